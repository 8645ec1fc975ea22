package sdk

import (
	"bytes"
	"encoding/json"
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"math/big"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/ethereum/go-ethereum/accounts"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/stretchr/testify/require"

	"github.com/ethereum-optimism/optimism/op-core/interop/messages"
	"github.com/ethereum-optimism/optimism/op-core/predeploys"
	"github.com/ethereum-optimism/optimism/op-service/eth"
	"github.com/ethereum-optimism/optimism/op-service/txintent"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/bundlepool"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rpc"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

var update = flag.Bool("update", false, "write the files in test/testdata anew")

// requireFile compares what Go says with the file the tests of the SDK read.
func requireFile(t *testing.T, name string, v any) {
	var want bytes.Buffer
	enc := json.NewEncoder(&want)
	enc.SetIndent("", "  ")
	require.NoError(t, enc.Encode(v))
	path := filepath.Join("test", "testdata", name)
	if *update {
		require.NoError(t, os.WriteFile(path, want.Bytes(), 0o644))
	}
	have, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, want.String(), string(have), "%s is not what the Go code says: go test ./packages/sdk -update, and adapt the SDK", path)
}

// messageVector is a log and all that is made of it. Numbers are decimal: JSON's lose digits.
type messageVector struct {
	Address     common.Address `json:"address"`
	Topics      []common.Hash  `json:"topics"`
	Data        hexutil.Bytes  `json:"data"`
	BlockNumber string         `json:"blockNumber"`
	LogIndex    uint32         `json:"logIndex"`
	Timestamp   string         `json:"timestamp"`
	ChainID     string         `json:"chainId"`
	PayloadHash common.Hash    `json:"payloadHash"`
	Checksum    common.Hash    `json:"checksum"`
	StorageKeys []common.Hash  `json:"storageKeys"`
	Relay       hexutil.Bytes  `json:"relay"`    // call data of relayMessage
	Validate    hexutil.Bytes  `json:"validate"` // call data of validateMessage
}

func TestMessageVectors(t *testing.T) {
	huge := new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 256), big.NewInt(2))
	var out struct {
		Messages []messageVector `json:"messages"`
		// Together are the storage keys of one access list for all of them.
		Together []common.Hash `json:"together"`
	}
	var accesses []messages.Access
	for _, v := range []struct {
		log   types.Log
		time  uint64
		chain *big.Int
	}{
		{types.Log{Address: predeploys.L2toL2CrossDomainMessengerAddr, Topics: []common.Hash{{1}, {31: 2}, {31: 3}, {}}, Data: []byte("a message"), BlockNumber: 7, Index: 3}, 1_700_000_000, big.NewInt(901)},
		{types.Log{Address: common.HexToAddress("0xABcdEFABcdEFabcdEfAbCdefabcdeFABcDEFabCD"), BlockNumber: 0, Index: 0}, 0, big.NewInt(1)},
		{types.Log{Address: common.Address{19: 1}, Topics: []common.Hash{{31: 9}}, BlockNumber: 1<<63 - 1, Index: 1<<32 - 1}, 1<<63 - 1, new(big.Int).SetUint64(1<<64 - 1)},
		{types.Log{Address: common.Address{2}, Data: bytes.Repeat([]byte{0xab}, 65), BlockNumber: 1 << 40, Index: 77}, 1 << 33, new(big.Int).Lsh(big.NewInt(1), 64)},
		{types.Log{Address: common.Address{3}, Data: []byte{0}, BlockNumber: 5, Index: 1}, 6, huge},
	} {
		payload := messages.LogToMessagePayload(&v.log)
		trigger := txintent.ExecTrigger{
			Executor: predeploys.CrossL2InboxAddr,
			Msg: messages.Message{
				Identifier: messages.Identifier{
					Origin: v.log.Address, BlockNumber: v.log.BlockNumber, LogIndex: uint32(v.log.Index), Timestamp: v.time, ChainID: eth.ChainIDFromBig(v.chain),
				},
				PayloadHash: crypto.Keccak256Hash(payload),
			},
		}
		validate, err := trigger.EncodeInput()
		require.NoError(t, err)
		relay := txintent.RelayTrigger{ExecTrigger: trigger, Payload: payload}
		relayed, err := relay.EncodeInput()
		require.NoError(t, err)
		access := trigger.Msg.Access()
		accesses = append(accesses, access)
		topics := v.log.Topics
		if topics == nil {
			topics = []common.Hash{}
		}
		out.Messages = append(out.Messages, messageVector{
			Address: v.log.Address, Topics: topics, Data: v.log.Data, BlockNumber: strconv.FormatUint(v.log.BlockNumber, 10),
			LogIndex: uint32(v.log.Index), Timestamp: strconv.FormatUint(v.time, 10), ChainID: v.chain.String(),
			PayloadHash: trigger.Msg.PayloadHash, Checksum: common.Hash(access.Checksum),
			StorageKeys: messages.EncodeAccessList([]messages.Access{access}), Relay: relayed, Validate: validate,
		})
	}
	out.Together = messages.EncodeAccessList(accesses)
	requireFile(t, "messages.json", out)
}

// TestCancelVector signs what cancels a bundle with the first development key.
func TestCancelVector(t *testing.T) {
	const devKey = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"
	key, err := crypto.HexToECDSA(devKey)
	require.NoError(t, err)
	hash := crypto.Keccak256Hash([]byte("a bundle"))
	text := bundlepool.CancelText(hash)
	sig, err := crypto.Sign(accounts.TextHash([]byte(text)), key)
	require.NoError(t, err)
	sig[64] += 27 // as wallets give it
	requireFile(t, "cancel.json", map[string]any{
		"privateKey": "0x" + devKey, "bundleHash": hash, "text": text, "signature": hexutil.Bytes(sig),
	})
}

// TestReplacementVectors has what is signed for a replacement ID.
func TestReplacementVectors(t *testing.T) {
	type vector struct {
		Bundle  rpc.Bundle `json:"bundle"`
		Message string     `json:"message"`
	}
	var out []vector
	for _, b := range []*sequence.Bundle{
		{Expiry: 9, Items: []sequence.BundleItem{{Chain: 901, Transaction: []byte{2, 3}}}, Terms: &sequence.Terms{ReplacementID: common.Hash{31: 1}}},
		{Expiry: 1 << 40, Items: []sequence.BundleItem{{Chain: 901, Transaction: bytes.Repeat([]byte{7}, 100), MayRevert: true}, {Chain: 902}}, Terms: &sequence.Terms{
			First: 128, ReplacementID: common.Hash{0xaa}, Conditions: []sequence.Condition{
				{Chain: 901, NumberMin: 1, TimeMax: 300},
				{Chain: 902, NumberMax: 127, TimeMin: 128, Accounts: []sequence.KnownAccount{
					{Address: common.Address{1}, StorageRoot: common.Hash{5}},
					{Address: common.Address{2}, Slots: []sequence.KnownSlot{{Key: common.Hash{3}, Value: common.Hash{31: 4}}, {Key: common.Hash{4}}}},
				}},
			},
		}},
	} {
		out = append(out, vector{rpc.NewBundle(b), b.ReplacementText()})
	}
	requireFile(t, "replacement.json", out)
}

// TestErrorCodes reads the codes, and the words for faults, from the source.
func TestErrorCodes(t *testing.T) {
	out := struct {
		Codes        map[string]int `json:"codes"`
		BundleFaults []string       `json:"bundleFaults"`
		ChangeFaults []string       `json:"changeFaults"`
	}{Codes: map[string]int{}}
	errors := values(t, "rpc", "errors.go")
	for name, value := range errors {
		if code, ok := value.(*ast.UnaryExpr); ok && strings.HasPrefix(name, "Code") {
			lit, ok := code.X.(*ast.BasicLit)
			require.True(t, ok && code.Op == token.SUB, name)
			n, err := strconv.Atoi(lit.Value)
			require.NoError(t, err)
			out.Codes[strings.TrimPrefix(name, "Code")] = -n
		}
	}
	// The pool has words for other refusals too; those have codes of their own.
	kinds := values(t, "bundlepool", "check.go")
	for _, w := range words(t, values(t, "bundlepool", "metrics.go")["reasons"]) {
		if _, ok := kinds[w.err]; ok {
			out.BundleFaults = append(out.BundleFaults, w.word)
		}
	}
	for _, w := range words(t, errors["changeKinds"]) {
		out.ChangeFaults = append(out.ChangeFaults, w.word)
	}
	require.Contains(t, out.Codes, "InvalidBundle")
	require.NotEmpty(t, out.BundleFaults)
	require.NotEmpty(t, out.ChangeFaults)
	requireFile(t, "errors.json", out)
}

// values are the constants and variables of a file of op-shared-sequencer that have a value, by name.
func values(t *testing.T, pkg, name string) map[string]ast.Expr {
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join("..", "..", "op-shared-sequencer", pkg, name), nil, 0)
	require.NoError(t, err)
	out := map[string]ast.Expr{}
	for _, d := range file.Decls {
		if gen, ok := d.(*ast.GenDecl); ok {
			for _, s := range gen.Specs {
				if v, ok := s.(*ast.ValueSpec); ok && len(v.Names) == len(v.Values) {
					for i, n := range v.Names {
						out[n.Name] = v.Values[i]
					}
				}
			}
		}
	}
	return out
}

type errorWord struct{ err, word string }

// words reads a list of errors with the word for each.
func words(t *testing.T, list ast.Expr) []errorWord {
	lit, ok := list.(*ast.CompositeLit)
	require.True(t, ok, "a list of errors with their words")
	var out []errorWord
	for _, e := range lit.Elts {
		pair, ok := e.(*ast.CompositeLit)
		require.True(t, ok && len(pair.Elts) == 2)
		var w errorWord
		switch id := pair.Elts[0].(type) {
		case *ast.Ident:
			w.err = id.Name
		case *ast.SelectorExpr:
			w.err = id.Sel.Name
		}
		word, ok := pair.Elts[1].(*ast.BasicLit)
		require.True(t, ok)
		var err error
		w.word, err = strconv.Unquote(word.Value)
		require.NoError(t, err)
		out = append(out, w)
	}
	return out
}
