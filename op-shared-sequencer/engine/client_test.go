package engine_test

// The client against engines that are wrong, late, broken or of another version.

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core"
	"github.com/ethereum/go-ethereum/eth/catalyst"
	"github.com/ethereum/go-ethereum/log"
	"github.com/ethereum/go-ethereum/miner"

	"github.com/ethereum-optimism/optimism/op-service/eth"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine/embedded"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine/enginetest"
)

func quiet() log.Logger { return log.NewLogger(log.DiscardHandler()) }

// The client has its own list of codes, so that it does not need op-geth.
func TestCodes(t *testing.T) {
	t.Parallel()
	require.Equal(t, map[string]int{
		"CodeUnknownSession":         catalyst.CodeUnknownSession,
		"CodeTooManySessions":        catalyst.CodeTooManySessions,
		"CodeSessionExpired":         catalyst.CodeSessionExpired,
		"CodeUnknownParent":          catalyst.CodeUnknownParent,
		"CodeParentStateUnavailable": catalyst.CodeParentStateUnavailable,
		"CodeForcedTx":               catalyst.CodeForcedTx,
		"CodeUnknownSavepoint":       catalyst.CodeUnknownSavepoint,
		"CodeBadTransaction":         catalyst.CodeBadTransaction,
		"CodeTooManyTransactions":    catalyst.CodeTooManyTransactions,
		"CodePoolBehind":             catalyst.CodePoolBehind,
		"CodeUnknownSealedBlock":     catalyst.CodeUnknownSealedBlock,
		"CodeSealFailed":             catalyst.CodeSealFailed,
		"CodeInsertFailed":           catalyst.CodeInsertFailed,
		"CodeCondition":              catalyst.CodeCondition,
		"CodeNoCut":                  catalyst.CodeNoCut,
	}, engine.Codes)
}

// Over RPC only the text of a reason arrives.
func TestMayFitLater(t *testing.T) {
	t.Parallel()
	for _, err := range []error{miner.ErrDAFootprint, miner.ErrBlockSize, core.ErrGasLimitReached, core.ErrNonceTooHigh, core.ErrFeeCapTooLow} {
		require.True(t, engine.MayFitLater(fmt.Errorf("why: %w", err)), err)
		require.True(t, engine.MayFitLater(errors.New("why: "+err.Error())), err)
	}
	for _, err := range []error{nil, miner.ErrTxFailed, miner.ErrTxType, core.ErrNonceTooLow, core.ErrInsufficientFunds} {
		require.False(t, engine.MayFitLater(err), err)
	}
}

func TestDialRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t, enginetest.NewChain(901, 1), fronts[0].new)
	other := enginetest.NewChain(902, 1)
	for _, addr := range []string{r.node.AuthEndpoint(), r.node.AuthHTTPEndpoint()} {
		_, err := engine.Dial(ctxFor(t), quiet(), r.chain.Rollup, addr, [32]byte{9}, engine.Options{})
		require.ErrorContains(t, err, "JWT secret")
		_, err = engine.Dial(ctxFor(t), quiet(), other.Rollup, addr, jwtSecret, engine.Options{})
		require.ErrorContains(t, err, "serves chain 901")
		require.ErrorContains(t, err, "chain 902")
	}
	for _, addr := range []string{"ftp://127.0.0.1:1", "127.0.0.1:8551", "ws://[::1"} {
		_, err := engine.Dial(ctxFor(t), quiet(), r.chain.Rollup, addr, jwtSecret, engine.Options{})
		require.Error(t, err, addr)
	}
	_, err := engine.Dial(ctxFor(t), quiet(), nil, r.node.AuthEndpoint(), jwtSecret, engine.Options{})
	require.ErrorContains(t, err, "chain ID")
}

func TestDialWaits(t *testing.T) {
	t.Parallel()
	for _, scheme := range []string{"ws", "http"} {
		t.Run(scheme, func(t *testing.T) {
			t.Parallel()
			chain := enginetest.NewChain(901, 1)
			cfg := embedded.Config{Chain: 901, Genesis: chain.Genesis, JWTSecret: jwtSecret, Auth: embedded.Listen{Port: freePort(t)}}
			addr := fmt.Sprintf("%s://127.0.0.1:%d", scheme, cfg.Auth.Port)

			ctx, cancel := context.WithCancel(ctxFor(t))
			defer cancel()
			_, err := engine.Dial(ctx, log.NewLogger(watch(cancel)), chain.Rollup, addr, jwtSecret, engine.Options{RetryDelay: time.Millisecond})
			require.ErrorIs(t, err, engine.ErrUnavailable)
			require.ErrorIs(t, err, context.Canceled)
			require.ErrorContains(t, err, "refused")

			var attempts atomic.Int32
			waiting := make(chan struct{})
			logger := log.NewLogger(watch(func() {
				if attempts.Add(1) == 1 {
					close(waiting)
				}
			}))
			done := make(chan error, 1)
			go func() {
				c, err := engine.Dial(ctxFor(t), logger, chain.Rollup, addr, jwtSecret, engine.Options{RetryDelay: time.Millisecond})
				if err == nil {
					c.Close()
				}
				done <- err
			}()
			<-waiting // it has tried
			n, err := embedded.Start(cfg)
			require.NoError(t, err)
			defer n.Close()
			require.NoError(t, <-done)
		})
	}
}

// An engine that can be dialled and then answers as told.
type fake struct {
	*httptest.Server
	answer func(method string) (result string, code int)
	status atomic.Int32 // HTTP status to fail with, if not 0
}

func newFake(t testing.TB, answer func(method string) (string, int)) *fake {
	f := &fake{answer: answer}
	f.Server = httptest.NewServer(http.HandlerFunc(f.serve))
	t.Cleanup(f.Close)
	return f
}

func (f *fake) serve(w http.ResponseWriter, req *http.Request) {
	if s := f.status.Load(); s != 0 {
		w.WriteHeader(int(s))
		return
	}
	body, _ := io.ReadAll(req.Body)
	type call struct {
		ID     json.RawMessage `json:"id"`
		Method string          `json:"method"`
	}
	one := func(c call) string {
		result, code := f.answer(c.Method)
		if code != 0 {
			return fmt.Sprintf(`{"jsonrpc":"2.0","id":%s,"error":{"code":%d,"message":%q}}`, c.ID, code, result)
		}
		return fmt.Sprintf(`{"jsonrpc":"2.0","id":%s,"result":%s}`, c.ID, result)
	}
	w.Header().Set("content-type", "application/json")
	var batch []call
	if json.Unmarshal(body, &batch) == nil {
		out := make([]string, len(batch))
		for i, c := range batch {
			out[i] = one(c)
		}
		io.WriteString(w, "["+strings.Join(out, ",")+"]")
		return
	}
	var c call
	json.Unmarshal(body, &c)
	io.WriteString(w, one(c))
}

const opened = `{"id":"0x00000000000000000000000000000001","forced":[],
	"status":{"number":"0x1","timestamp":"0x1","parentHash":"0x0000000000000000000000000000000000000000000000000000000000000000",
	"baseFeePerGas":"0x1","gasLimit":"0x1","gasUsed":"0x0","txCount":"0x0"}}`

// dialled is what a client asks before it is used.
func dialled(method string) (string, int) {
	switch method {
	case "eth_chainId":
		return `"0x385"`, 0
	case "engine_sessionVersion":
		return `"0x3"`, 0
	case "engine_sessionOpen":
		return opened, 0
	}
	return "not here", -32601
}

func (f *fake) dial(t testing.TB) *engine.Client {
	c, err := engine.Dial(ctxFor(t), quiet(), enginetest.NewChain(901, 0).Rollup, f.URL, jwtSecret, engine.Options{})
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

func TestDialUnpatched(t *testing.T) {
	t.Parallel()
	f := newFake(t, func(method string) (string, int) {
		if method == "eth_chainId" {
			return `"0x385"`, 0
		}
		return "the method does not exist", -32601
	})
	_, err := engine.Dial(ctxFor(t), quiet(), enginetest.NewChain(901, 0).Rollup, f.URL, jwtSecret, engine.Options{})
	require.ErrorContains(t, err, "no sessions")

	f = newFake(t, func(method string) (string, int) {
		if method == "engine_sessionVersion" {
			return `"0x1"`, 0
		}
		return dialled(method)
	})
	_, err = engine.Dial(ctxFor(t), quiet(), enginetest.NewChain(901, 0).Rollup, f.URL, jwtSecret, engine.Options{})
	require.ErrorContains(t, err, "sessions are of version 1, expected 3")
}

// calls makes every call of an engine and of a session on it. Some go through
// whatever the answer is; none may panic or take nonsense for an answer.
func calls(e engine.Engine) map[string]func(ctx context.Context) error {
	attrs := &eth.PayloadAttributes{Timestamp: 1}
	hash := common.Hash{1}
	session := func(f func(ctx context.Context, s engine.Session) error) func(context.Context) error {
		return func(ctx context.Context) error {
			s, err := e.Open(ctx, eth.BlockID{}, attrs)
			if err != nil {
				return err
			}
			return f(ctx, s)
		}
	}
	return map[string]func(ctx context.Context) error{
		"insert": func(ctx context.Context) error { return e.Insert(ctx, hash) },
		"import": func(ctx context.Context) error {
			return e.Import(ctx, &eth.ExecutionPayloadEnvelope{ExecutionPayload: &eth.ExecutionPayload{}})
		},
		"set head": func(ctx context.Context) error { return e.SetHead(ctx, hash, hash, hash) },
		"head":     func(ctx context.Context) error { _, err := e.Head(ctx); return err },
		"block":    func(ctx context.Context) error { _, err := e.Block(ctx, 1); return err },
		"by hash":  func(ctx context.Context) error { _, err := e.BlockByHash(ctx, hash); return err },
		"payload":  func(ctx context.Context) error { _, err := e.Payload(ctx, hash); return err },
		"receipts": func(ctx context.Context) error { _, err := e.Receipts(ctx, hash); return err },
		"open":     session(func(context.Context, engine.Session) error { return nil }),
		"execute": session(func(ctx context.Context, s engine.Session) error {
			_, err := s.Execute(ctx, [][]byte{{1}}, false)
			return err
		}),
		"fill": session(func(ctx context.Context, s engine.Session) error {
			_, _, err := s.Fill(ctx, engine.FillOptions{})
			return err
		}),
		"savepoint": session(func(ctx context.Context, s engine.Session) error { _, err := s.Savepoint(ctx); return err }),
		"rollback":  session(func(ctx context.Context, s engine.Session) error { return s.Rollback(ctx, 1) }),
		"release":   session(func(ctx context.Context, s engine.Session) error { return s.Release(ctx, 1) }),
		"account": session(func(ctx context.Context, s engine.Session) error {
			_, err := s.Account(ctx, common.Address{})
			return err
		}),
		"result":  session(func(ctx context.Context, s engine.Session) error { _, err := s.Result(ctx); return err }),
		"seal":    session(func(ctx context.Context, s engine.Session) error { _, err := s.Seal(ctx); return err }),
		"discard": session(func(ctx context.Context, s engine.Session) error { return s.Discard(ctx) }),
	}
}

// Answers of the right form and the wrong content, and of the wrong form.
func TestGarbage(t *testing.T) {
	t.Parallel()
	var answer atomic.Pointer[string]
	f := newFake(t, func(method string) (string, int) {
		if a := answer.Load(); a != nil && method != "engine_sessionOpen" {
			return *a, 0
		}
		return dialled(method)
	})
	c := f.dial(t)
	ignored := map[string]bool{"insert": true, "open": true, "rollback": true, "release": true, "discard": true} // have no answer
	for _, a := range []string{
		`"x"`, `[1]`, `[null]`, `[[]]`, `{}`, `true`, `[{}]`, `{"executionPayload":null}`, `{"status":"VALIDISH"}`, `{"payloadStatus":{"status":""}}`,
		`[{"txHash":"0x01"}]`, `[{"logs":[null],"status":"0x1","raw":"0x01"}]`, `[{"status":"0x1"},{"status":"0x1"}]`, `{"gasUsed":"-1"}`,
		`{"hash":"0x0000000000000000000000000000000000000000000000000000000000000005"}`,
	} {
		answer.Store(&a)
		for name, call := range calls(c) {
			err := call(ctxFor(t))
			if ignored[name] || (a == `{"hash":"0x0000000000000000000000000000000000000000000000000000000000000005"}` && (name == "head" || name == "block" || name == "by hash")) {
				continue
			}
			require.Error(t, err, "%s answered with %s", name, a)
			require.NotErrorIs(t, err, engine.ErrUnavailable, "%s answered with %s", name, a)
		}
	}
	for _, o := range []string{
		`null`, `{}`, `{"id":"0x01"}`, strings.Replace(opened, `"forced":[]`, `"forced":[{}]`, 1), strings.Replace(opened, `"number":"0x1"`, `"number":"0x2"`, 1),
		strings.Replace(opened, `"timestamp":"0x1"`, `"timestamp":"0x3"`, 1), strings.Replace(opened, `"baseFeePerGas":"0x1"`, `"baseFeePerGas":null`, 1),
	} {
		f := newFake(t, func(method string) (string, int) {
			if method == "engine_sessionOpen" {
				return o, 0
			}
			return dialled(method)
		})
		_, err := f.dial(t).Open(ctxFor(t), eth.BlockID{}, &eth.PayloadAttributes{Timestamp: 1})
		require.Error(t, err, o)
	}
}

// A fill's answer that is not one ends the session: nobody knows what the block holds.
func TestFillGarbage(t *testing.T) {
	t.Parallel()
	compressed := func(rlp ...byte) []byte { return snappy.Encode(nil, rlp) }
	for what, answer := range map[string][]byte{
		"cannot be read":                   {0x05, 0x00},
		"at most":                          {0xff, 0xff, 0xff, 0xff, 0x0f}, // 4 GiB, it says
		"expected input list":              compressed(0x01),
		"result 0 without its transaction": compressed(0xc7, 0xc6, 0x80, 0x01, 0x80, 0x80, 0x80, 0xc0),
	} {
		f := newFake(t, func(method string) (string, int) {
			if method == "engine_sessionFill" {
				return fmt.Sprintf(`{"transactions": "0x%x"}`, answer), 0
			}
			return dialled(method)
		})
		s, err := f.dial(t).Open(ctxFor(t), eth.BlockID{}, &eth.PayloadAttributes{Timestamp: 1})
		require.NoError(t, err)
		_, _, err = s.Fill(ctxFor(t), engine.FillOptions{})
		require.ErrorContains(t, err, what)
		_, _, err = s.Fill(ctxFor(t), engine.FillOptions{})
		require.ErrorIs(t, err, engine.ErrSessionClosed)
	}
}

// Whatever an engine answers, the client gives an error or a result and does not panic.
func FuzzGarbage(f *testing.F) {
	for _, seed := range []string{`null`, `{}`, `[]`, opened, `[{"status":"0x1","logs":[{}]}]`, `{"executionPayload":{}}`, `{"transactions":[null]}`, `{"transactions":"0x0100c0"}`} {
		f.Add(seed)
	}
	var answer atomic.Pointer[string]
	srv := newFake(f, func(method string) (string, int) {
		if a := answer.Load(); a != nil {
			return *a, 0
		}
		return dialled(method)
	})
	c := srv.dial(f)
	f.Fuzz(func(t *testing.T, a string) {
		answer.Store(&a)
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		for _, call := range calls(c) {
			call(ctx)
		}
	})
}

func TestErrorCodes(t *testing.T) {
	t.Parallel()
	var code atomic.Int32
	f := newFake(t, func(method string) (string, int) {
		if c := code.Load(); c != 0 && method != "engine_sessionOpen" {
			return "told so", int(c)
		}
		return dialled(method)
	})
	c := f.dial(t)
	execute := func() (engine.Session, error) {
		s, err := c.Open(ctxFor(t), eth.BlockID{}, &eth.PayloadAttributes{Timestamp: 1})
		require.NoError(t, err)
		_, err = s.Execute(ctxFor(t), [][]byte{{1}}, false)
		require.ErrorContains(t, err, "told so")
		require.ErrorContains(t, err, "chain 901: block 1")
		return s, err
	}
	for cd, want := range map[int32]error{
		catalyst.CodeUnknownSession:         engine.ErrSessionClosed,
		catalyst.CodeSessionExpired:         engine.ErrSessionClosed,
		catalyst.CodeParentStateUnavailable: engine.ErrParentState,
		-32000:                              engine.ErrSessionClosed, // something else went wrong inside
		-32002:                              engine.ErrUnavailable,   // the server's timeout
	} {
		code.Store(cd)
		s, err := execute()
		require.ErrorIs(t, err, want)
		require.ErrorIs(t, err, engine.ErrSessionClosed, "its outcome is unknown")
		code.Store(0)
		_, err = s.Savepoint(ctxFor(t))
		require.ErrorIs(t, err, engine.ErrSessionClosed, "and stays so")
	}
	code.Store(catalyst.CodeTooManyTransactions)
	_, err := execute()
	require.NotErrorIs(t, err, engine.ErrSessionClosed)

	for cd, want := range map[int32]error{
		catalyst.CodeUnknownSealedBlock:     engine.ErrNotFound,
		catalyst.CodeUnknownParent:          engine.ErrUnknownParent,
		catalyst.CodeParentStateUnavailable: engine.ErrParentState,
	} {
		code.Store(cd)
		require.ErrorIs(t, c.Insert(ctxFor(t), common.Hash{1}), want)
	}
	code.Store(0)
	for status, want := range map[int32]error{http.StatusServiceUnavailable: engine.ErrUnavailable, http.StatusBadGateway: engine.ErrUnavailable} {
		f.status.Store(status)
		_, err := c.Head(ctxFor(t))
		require.ErrorIs(t, err, want)
	}
	f.status.Store(http.StatusUnauthorized)
	_, err = c.Head(ctxFor(t))
	require.NotErrorIs(t, err, engine.ErrUnavailable)
	require.ErrorContains(t, err, "JWT secret")
}

// An engine that takes the connection and never answers.
func TestSilence(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	for _, scheme := range []string{"http", "ws"} {
		ctx, cancel := context.WithTimeout(ctxFor(t), 100*time.Millisecond)
		defer cancel()
		_, err = engine.Dial(ctx, quiet(), enginetest.NewChain(901, 0).Rollup, scheme+"://"+l.Addr().String(), jwtSecret,
			engine.Options{CallTimeout: 10 * time.Millisecond, RetryDelay: time.Millisecond})
		require.ErrorIs(t, err, engine.ErrUnavailable)
	}

	// A Fill has its own time on top of the timeout, any other call has not.
	release := make(chan struct{})
	f := newFake(t, func(method string) (string, int) {
		switch method {
		case "engine_sessionFill":
			time.Sleep(200 * time.Millisecond) // longer than the timeout, shorter than MaxTime
			return `{"transactions": "0x0100c0"}`, 0
		case "engine_sessionExecute":
			<-release
		}
		return dialled(method)
	})
	defer close(release)
	c := f.dial(t)
	s, err := c.Open(ctxFor(t), eth.BlockID{}, &eth.PayloadAttributes{Timestamp: 1})
	require.NoError(t, err)
	c.SetCallTimeout(50 * time.Millisecond)
	_, _, err = s.Fill(ctxFor(t), engine.FillOptions{MaxTime: time.Minute})
	require.NoError(t, err)
	_, err = s.Execute(ctxFor(t), [][]byte{{1}}, false)
	require.ErrorIs(t, err, engine.ErrUnavailable)
	require.ErrorIs(t, err, engine.ErrSessionClosed)
}

// After Close every call says that the engine is not available.
func TestClientClosed(t *testing.T) {
	t.Parallel()
	r := newRig(t, enginetest.NewChain(901, 1), fronts[1].new)
	r.e.Close()
	_, err := r.e.Head(ctxFor(t))
	require.ErrorIs(t, err, engine.ErrUnavailable)
	_, err = r.node.Engine().Head(ctxFor(t))
	require.NoError(t, err, "the engine runs on")
}

// Direct calls and RPC are the same engine: any history gives the same results and
// the same block.
func TestSameBehaviour(t *testing.T) {
	t.Parallel()
	r := newRig(t, enginetest.NewChain(901, 5), fronts[0].new)
	rpc := r.dial(r.node.AuthEndpoint())
	head := r.head()
	ctx := ctxFor(t)
	rapid.Check(t, func(rt *rapid.T) {
		var sessions [2]engine.Session
		for i, e := range []engine.Engine{r.e, rpc} {
			s, err := e.Open(ctx, head.ID(), r.chain.Attributes(head))
			if err != nil {
				rt.Fatal(err)
			}
			defer s.Discard(ctx)
			sessions[i] = s
		}
		both := func(what string, f func(s engine.Session) (any, error)) {
			a, errA := f(sessions[0])
			b, errB := f(sessions[1])
			if (errA == nil) != (errB == nil) || asJSON(t, a) != asJSON(t, b) {
				rt.Fatalf("%s: embedded %s (%v), rpc %s (%v)", what, asJSON(t, a), errA, asJSON(t, b), errB)
			}
		}
		tx := rapid.Custom(func(rt *rapid.T) []byte {
			who, nonce := rapid.IntRange(0, 2).Draw(rt, "who"), rapid.Uint64Range(0, 3).Draw(rt, "nonce")
			target := rapid.SampledFrom([]common.Address{enginetest.Echo, enginetest.Fail, enginetest.Log, to(1)}).Draw(rt, "to")
			switch rapid.IntRange(0, 9).Draw(rt, "kind") {
			case 0:
				return rapid.SliceOfN(rapid.Byte(), 0, 3).Draw(rt, "garbage")
			case 1:
				return enginetest.Deposit(nonce, target, 1, nil)
			case 2:
				return r.chain.Call(who, nonce, target, nil, 20_000) // below the intrinsic gas
			}
			return r.chain.Call(who, nonce, target, []byte{byte(who), byte(nonce)}, 60_000)
		})
		// The numbers of savepoints are the session's own affair.
		marks := [2][]engine.Savepoint{}
		mark := func(s engine.Session, i int) engine.Savepoint {
			list := marks[0]
			if s == sessions[1] {
				list = marks[1]
			}
			if i < len(list) {
				return list[i]
			}
			return 1 << 20
		}
		for range rapid.IntRange(1, 12).Draw(rt, "steps") {
			switch rapid.IntRange(0, 5).Draw(rt, "step") {
			case 0:
				for i, s := range sessions {
					m, err := s.Savepoint(ctx)
					if err != nil {
						rt.Fatal(err)
					}
					marks[i] = append(marks[i], m)
				}
			case 1:
				m := rapid.IntRange(0, 4).Draw(rt, "mark")
				both("rollback", func(s engine.Session) (any, error) { return nil, s.Rollback(ctx, mark(s, m)) })
			case 2:
				m := rapid.IntRange(0, 4).Draw(rt, "mark")
				both("release", func(s engine.Session) (any, error) { return nil, s.Release(ctx, mark(s, m)) })
			default:
				txs := rapid.SliceOfN(tx, 0, 4).Draw(rt, "transactions")
				atomic := rapid.Bool().Draw(rt, "atomic")
				both("execute", func(s engine.Session) (any, error) {
					res, err := s.Execute(ctx, txs, atomic)
					return comparable(res), err
				})
			}
			both("result", func(s engine.Session) (any, error) { return s.Result(ctx) })
			both("account", func(s engine.Session) (any, error) { return s.Account(ctx, to(1)) })
		}
		both("seal", func(s engine.Session) (any, error) {
			p, err := s.Seal(ctx)
			if err == nil && s == sessions[1] {
				var txs [][]byte
				for _, tx := range p.ExecutionPayload.Transactions {
					txs = append(txs, tx)
				}
				if engine.Known(s) != catalyst.TransactionsDigest(txs) {
					rt.Fatal("the session has not seen all of its block's transactions: they were sent again")
				}
			}
			return p, err
		})
	})
}

// comparable are results with their errors as text, and nothing told from empty.
func comparable(results []engine.TxResult) []string {
	out := []string{}
	for _, r := range results {
		logs := []string{}
		for _, l := range r.Logs {
			logs = append(logs, fmt.Sprintf("%s %x %x %d %d %s %d", l.Address, l.Topics, l.Data, l.Index, l.BlockNumber, l.TxHash, l.TxIndex))
		}
		status := r.Status
		if r.Err != nil {
			status = 0
		}
		out = append(out, fmt.Sprintf("%s %x %d %d %v %x %v", r.Hash, r.Raw, status, r.GasUsed, logs, r.ReturnData, r.Err))
	}
	return out
}

// watch calls f for every record that is logged.
type watch func()

func (w watch) Enabled(context.Context, slog.Level) bool  { return true }
func (w watch) Handle(context.Context, slog.Record) error { w(); return nil }
func (w watch) WithAttrs([]slog.Attr) slog.Handler        { return w }
func (w watch) WithGroup(string) slog.Handler             { return w }
