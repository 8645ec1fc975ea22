package keyfile

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ethereum/go-ethereum/crypto"
	"github.com/stretchr/testify/require"
)

const password = Password("correct horse")

func write(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	return path
}

func TestKey(t *testing.T) {
	key, err := crypto.GenerateKey()
	require.NoError(t, err)
	secret := hex.EncodeToString(crypto.FromECDSA(key))
	for name, pw := range map[string]Password{"plain": "", "protected": password} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "key")
			data, err := Encode(key, pw, Light)
			require.NoError(t, err)
			require.NoError(t, Create(path, data))
			info, err := os.Stat(path)
			require.NoError(t, err)
			require.EqualValues(t, 0o600, info.Mode().Perm())
			require.ErrorIs(t, Create(path, []byte("another")), fs.ErrExist, "never overwritten")

			require.Equal(t, pw != "", Protected(data))
			require.Equal(t, pw == "", strings.Contains(string(data), secret))
			address, err := Address(path)
			require.NoError(t, err)
			require.Equal(t, crypto.PubkeyToAddress(key.PublicKey), address)
			got, err := Read(path, password)
			require.NoError(t, err)
			require.True(t, key.Equal(got))
			if pw == "" {
				return
			}
			_, err = Read(path, "wrong")
			require.ErrorIs(t, err, ErrWrongPassword)
			_, err = Read(path, "")
			require.ErrorIs(t, err, ErrProtected)
		})
	}
}

func TestReplace(t *testing.T) {
	path := write(t, "old")
	require.NoError(t, Replace(path, []byte("new")))
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "new", string(data))
	require.NoFileExists(t, path+".part")
}

func TestSeal(t *testing.T) {
	secret := []byte("sixty-four bytes of an ed25519 key")
	sealed, err := Seal(secret, password, Light)
	require.NoError(t, err)
	got, err := Open(sealed, password)
	require.NoError(t, err)
	require.Equal(t, secret, got)
	_, err = Open(sealed, "wrong")
	require.ErrorIs(t, err, ErrWrongPassword)
	_, err = Open(sealed, "")
	require.ErrorIs(t, err, ErrProtected)
	_, err = Seal(secret, "", Light)
	require.ErrorContains(t, err, "empty password")
	sealed.CipherText = "00" + sealed.CipherText[2:]
	_, err = Open(sealed, password)
	require.ErrorIs(t, err, ErrWrongPassword, "it was changed")
}

func TestMistakes(t *testing.T) {
	_, err := Read(filepath.Join(t.TempDir(), "none"), "")
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = Read(write(t, "0x"+strings.Repeat("ab", 31)), "")
	require.ErrorContains(t, err, "32 bytes in hex")
	require.NotContains(t, err.Error(), "abab")
	_, err = Read(write(t, strings.Repeat("a", maxBytes+1)), "")
	require.ErrorContains(t, err, "larger")
	_, err = Read(write(t, `{"version":3,"crypto":{}}`), password)
	require.Error(t, err)
}

func TestPassword(t *testing.T) {
	for content, want := range map[string]Password{"a b\n": "a b", "one\r\ntwo\n": "one", "last": "last"} {
		got, err := ReadPassword(write(t, content))
		require.NoError(t, err)
		require.True(t, want == got)
	}
	_, err := ReadPassword(write(t, "\nsecond"))
	require.ErrorContains(t, err, "first line is empty")
	shown, err := json.Marshal(struct{ P Password }{password})
	require.NoError(t, err)
	for _, s := range []string{fmt.Sprint(password), fmt.Sprintf("%v %+v %#v %q", password, struct{ P Password }{password}, password, password), string(shown)} {
		require.NotContains(t, s, "horse")
	}
}
