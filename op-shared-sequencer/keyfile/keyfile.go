// Package keyfile keeps private keys in files, plain or under a password. Protected ones are
// in go-ethereum's keystore format (version 3: scrypt, AES-128-CTR, a MAC over the cipher
// text), which wallets and op-geth read too. Errors never hold any of a key or a password.
package keyfile

import (
	"bytes"
	"crypto/ecdsa"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/ethereum/go-ethereum/accounts/keystore"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/google/uuid"
)

// maxBytes is the largest file that is read.
const maxBytes = 64 << 10

var (
	// ErrProtected: a key is protected and no password was given.
	ErrProtected = errors.New("protected by a password, and none was given")
	// ErrWrongPassword: a password does not open a key.
	ErrWrongPassword = errors.New("wrong password, or the file was changed")
)

// Password opens protected keys. Empty: keys are plain. However it is printed, it is not shown.
type Password string

const hidden = "(hidden)"

func (Password) String() string               { return hidden }
func (Password) GoString() string             { return hidden }
func (Password) LogValue() slog.Value         { return slog.StringValue(hidden) }
func (Password) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// ReadPassword reads a password: the first line of a file.
func ReadPassword(path string) (Password, error) {
	data, err := read(path)
	if err != nil {
		return "", err
	}
	line, _, _ := strings.Cut(string(data), "\n")
	if line = strings.TrimSuffix(line, "\r"); line == "" {
		return "", fmt.Errorf("%s: its first line is empty: expected a password", path)
	}
	return Password(line), nil
}

// Cost is how much work a guess of the password is.
type Cost struct{ N, P int }

var (
	// Standard takes about a second and 256 MB.
	Standard = Cost{keystore.StandardScryptN, keystore.StandardScryptP}
	// Light takes about 100 ms and 4 MB.
	Light = Cost{keystore.LightScryptN, keystore.LightScryptP}
)

// Seal encrypts a secret.
func Seal(secret []byte, password Password, cost Cost) (*keystore.CryptoJSON, error) {
	if password == "" {
		return nil, errors.New("an empty password protects nothing")
	}
	sealed, err := keystore.EncryptDataV3(secret, []byte(password), cost.N, cost.P)
	return &sealed, err
}

// Open decrypts what Seal made. Errors: ErrProtected, ErrWrongPassword.
func Open(sealed *keystore.CryptoJSON, password Password) ([]byte, error) {
	if password == "" {
		return nil, ErrProtected
	}
	secret, err := keystore.DecryptDataV3(*sealed, string(password))
	return secret, opened(err)
}

func opened(err error) error {
	if errors.Is(err, keystore.ErrDecrypt) {
		return ErrWrongPassword
	}
	return err
}

// Protected says whether a file's content is a protected key: JSON with the member crypto.
func Protected(data []byte) bool {
	var v struct {
		Crypto json.RawMessage `json:"crypto"`
	}
	return json.Unmarshal(data, &v) == nil && len(v.Crypto) > 0
}

// Read reads a secp256k1 key: hex, or protected. A password does no harm to a plain key.
// Errors: fs.ErrNotExist, ErrProtected, ErrWrongPassword.
func Read(path string, password Password) (*ecdsa.PrivateKey, error) {
	data, err := read(path)
	if err != nil {
		return nil, err
	}
	if !Protected(data) {
		return Parse(string(data))
	}
	if password == "" {
		return nil, fmt.Errorf("%s is %w", path, ErrProtected)
	}
	key, err := keystore.DecryptKey(data, string(password))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, opened(err))
	}
	return key.PrivateKey, nil
}

// Address is that of the key in a file, for which no password is needed.
func Address(path string) (common.Address, error) {
	data, err := read(path)
	if err != nil {
		return common.Address{}, err
	}
	if Protected(data) {
		var v struct {
			Address string `json:"address"`
		}
		if err := json.Unmarshal(data, &v); err != nil || !common.IsHexAddress(v.Address) {
			return common.Address{}, fmt.Errorf("%s: has no address", path)
		}
		return common.HexToAddress(v.Address), nil
	}
	key, err := Parse(string(data))
	if err != nil {
		return common.Address{}, fmt.Errorf("%s: %w", path, err)
	}
	return crypto.PubkeyToAddress(key.PublicKey), nil
}

// Parse reads a plain key.
func Parse(text string) (*ecdsa.PrivateKey, error) {
	key, err := crypto.HexToECDSA(strings.TrimPrefix(strings.TrimSpace(text), "0x"))
	if err != nil {
		return nil, errors.New("not a private key: expected 32 bytes in hex, between 1 and the order of secp256k1")
	}
	return key, nil
}

// Encode is a secp256k1 key as Read takes it: protected, or plain without a password.
func Encode(key *ecdsa.PrivateKey, password Password, cost Cost) ([]byte, error) {
	if password == "" {
		return []byte(hex.EncodeToString(crypto.FromECDSA(key)) + "\n"), nil
	}
	id, err := uuid.NewRandom()
	if err != nil {
		return nil, err
	}
	k := &keystore.Key{Id: id, Address: crypto.PubkeyToAddress(key.PublicKey), PrivateKey: key}
	return keystore.EncryptKey(k, string(password), cost.N, cost.P)
}

// Create writes a file that only its owner can read, synced. One that is there is never
// overwritten. Errors: fs.ErrExist.
func Create(path string, data []byte) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return syncDir(path)
}

// Replace writes a file whole or not at all.
func Replace(path string, data []byte) error {
	part := path + ".part"
	if err := Create(part, data); err != nil {
		return err
	}
	if err := os.Rename(part, path); err != nil {
		return errors.Join(err, os.Remove(part))
	}
	return syncDir(path)
}

// syncDir makes a file's name durable.
func syncDir(path string) error {
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxBytes+1))
	if err == nil && len(data) > maxBytes {
		err = fmt.Errorf("%s is larger than %d bytes", path, maxBytes)
	}
	return bytes.TrimPrefix(data, []byte("\ufeff")), err
}
