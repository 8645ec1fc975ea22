package bundlepool

import (
	"math/big"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/ethereum/go-ethereum/accounts/abi"
	"github.com/ethereum/go-ethereum/crypto"
)

func TestRevertReason(t *testing.T) {
	t.Parallel()
	encode := func(sig, typ string, arg any) []byte {
		ty, err := abi.NewType(typ, "", nil)
		require.NoError(t, err)
		data, err := abi.Arguments{{Type: ty}}.Pack(arg)
		require.NoError(t, err)
		return append(crypto.Keccak256([]byte(sig))[:4], data...)
	}
	text := func(s string) []byte { return encode("Error(string)", "string", s) }
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"none":           {nil, "no reason given"},
		"text":           {text("slippage"), "slippage"},
		"empty text":     {text(""), "no reason given"},
		"lines":          {text("a\nb\x1b[31m"), "a\ufffdb\ufffd[31m"},
		"long":           {text(strings.Repeat("é", 1000)), strings.Repeat("é", 256) + "…"},
		"not utf-8":      {text("\xff\xfe"), "\ufffd\ufffd"},
		"panic":          {encode("Panic(uint256)", "uint256", big.NewInt(0x11)), "arithmetic underflow or overflow"},
		"unknown panic":  {encode("Panic(uint256)", "uint256", big.NewInt(0x99)), "unknown panic code: 0x99"},
		"bad text":       {crypto.Keccak256([]byte("Error(string)"))[:4], "error 0x08c379a0"},
		"short":          {[]byte{1, 2}, "data 0x0102"},
		"custom":         {[]byte{1, 2, 3, 4}, "error 0x01020304"},
		"custom with":    {[]byte{1, 2, 3, 4, 5}, "error 0x01020304 with data 0x05"},
		"custom long":    {append([]byte{1, 2, 3, 4}, make([]byte, 1000)...), "error 0x01020304 with data 0x" + strings.Repeat("00", 128) + "… (1000 bytes)"},
		"already there":  {crypto.Keccak256([]byte("MessageAlreadyRelayed()"))[:4], "MessageAlreadyRelayed()"},
		"undeclared":     {crypto.Keccak256([]byte("NotInAccessList()"))[:4], "NotInAccessList()"},
		"bridge sender":  {crypto.Keccak256([]byte("InvalidCrossDomainSender()"))[:4], "InvalidCrossDomainSender()"},
		"transient lock": {crypto.Keccak256([]byte("ReentrantCall()"))[:4], "ReentrantCall()"},
	} {
		require.Equal(t, c.want, RevertReason(c.data), name)
	}
}

func FuzzRevertReason(f *testing.F) {
	f.Add([]byte{1, 2, 3, 4, 5})
	f.Add(append(crypto.Keccak256([]byte("Error(string)"))[:4], make([]byte, 96)...))
	f.Fuzz(func(t *testing.T, data []byte) {
		s := RevertReason(data)
		require.NotEmpty(t, s)
		require.True(t, utf8.ValidString(s))
		require.NotContains(t, s, "\n")
		require.Less(t, utf8.RuneCountInString(s), 400)
	})
}
