package executor_test

import (
	"testing"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/stretchr/testify/require"

	"github.com/ethereum-optimism/optimism/op-core/interop/messages"
	"github.com/ethereum-optimism/optimism/op-core/predeploys"
	"github.com/ethereum-optimism/optimism/op-service/eth/safety"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/executor"
)

// byteDraw chooses by a fuzzer's bytes, and zero when they are used up.
type byteDraw struct{ data []byte }

func (d *byteDraw) intn(n int) int {
	if len(d.data) == 0 {
		return 0
	}
	b := d.data[0]
	d.data = d.data[1:]
	if n > 1 && n <= 256 {
		return int(b) * n / 256
	}
	return int(b) % n
}

// FuzzHistories looks for a history on which executor and model disagree.
func FuzzHistories(f *testing.F) {
	f.Add([]byte{})
	for seed := range 8 {
		var data []byte
		for i := range 300 {
			data = append(data, byte((i+seed)*(i^seed)*7919>>3))
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		w := newWorld()
		d := &byteDraw{data}
		r := newRun(t, d, newMemory(), w)
		for len(d.data) > 0 && w.slot < 1100 {
			r.step(30)
		}
	})
}

// FuzzApply feeds logs of the CrossL2Inbox and access lists as they come. Whatever is
// accepted as an executing message names a log that is there, and was declared.
func FuzzApply(f *testing.F) {
	scene := newScene(f, 1400, 1500)
	good := executing(0, scene.sent)
	keys := func(ms ...messages.Message) (out []byte) {
		for _, k := range declare(ms...)[0].StorageKeys {
			out = append(out, k[:]...)
		}
		return out
	}
	topics := append(append([]byte{}, good.Topics[0][:]...), good.Topics[1][:]...)
	f.Add(topics, good.Data, keys(scene.sent), true)
	f.Add(topics, good.Data, keys(scene.sent, scene.sent), true)
	f.Add(topics, good.Data[:100], keys(scene.sent), true)
	f.Add(topics[:32], []byte{}, []byte{1, 2, 3}, true)
	f.Add([]byte{}, []byte{}, []byte{}, false)
	f.Fuzz(func(t *testing.T, topics, data, list []byte, inbox bool) {
		l := &types.Log{Data: data}
		if inbox {
			l.Address = predeploys.CrossL2InboxAddr
		}
		for ; len(topics) >= 32 && len(l.Topics) < 4; topics = topics[32:] {
			l.Topics = append(l.Topics, common.Hash(topics[:32]))
		}
		access := types.AccessList{{Address: predeploys.CrossL2InboxAddr, StorageKeys: hashes(list)}}
		s := newScene(t, 1400, 1500)
		err := newExecutor(t, s.cfg).Begin(1500, s.parents).Apply(chainB, []executor.Tx{{AccessList: access, Logs: []*types.Log{l}}})
		var me *executor.MessageError
		m, decodeErr := messages.MessageFromLog(l)
		switch {
		case decodeErr == nil && m == nil:
			require.NoError(t, err)
		case err != nil:
			require.ErrorAs(t, err, &me)
			require.NotContains(t, err.Error(), "\n")
		default:
			require.NoError(t, decodeErr)
			require.True(t, s.history.has(m), "accepted %v", m)
			declared, err := messages.DecodeAccessList(access)
			require.NoError(t, err)
			require.Contains(t, declared, m.Access())
		}
	})
}

// FuzzCheckAccessList feeds access list entries as they come.
func FuzzCheckAccessList(f *testing.F) {
	scene := newScene(f, 1400, 1500)
	var good []byte
	for _, k := range declare(scene.sent, scene.sent)[0].StorageKeys {
		good = append(good, k[:]...)
	}
	f.Add(good, uint64(1500), uint64(0), uint64(chainB))
	f.Add(good[:64], uint64(1500), uint64(400), uint64(chainA))
	f.Add(good[:40], uint64(0), ^uint64(0), uint64(stranger))
	f.Fuzz(func(t *testing.T, list []byte, time, timeout, chain uint64) {
		s := newScene(t, 1400, 1500)
		entries := hashes(list)
		err := newExecutor(t, s.cfg).CheckAccessList(entries, safety.CrossUnsafe, messages.ExecutingDescriptor{
			ChainID: chainID(chain).ID(), Timestamp: time, Timeout: timeout,
		})
		if err != nil {
			return
		}
		for len(entries) > 0 {
			rest, access, err := messages.ParseAccess(entries)
			require.NoError(t, err)
			entries = rest
			require.LessOrEqual(t, access.Timestamp, time)
			require.LessOrEqual(t, time-access.Timestamp, window)
			require.LessOrEqual(t, timeout, window-(time-access.Timestamp))
			id, _ := access.ChainID.Uint64()
			head, _ := s.history.Head(chainID(id))
			require.NoError(t, s.history.Contains(chainID(id), head.ID(), access.Query()))
		}
	})
}

func hashes(data []byte) (out []common.Hash) {
	for ; len(data) >= 32; data = data[32:] {
		out = append(out, common.Hash(data[:32]))
	}
	return out
}

// has says whether the log that a message names is there, field by field.
func (m *memory) has(msg *messages.Message) bool {
	for chain, blocks := range m.blocks {
		for _, b := range blocks {
			for _, l := range b.logs {
				if identify(chain, b.ref, l) == *msg {
					return true
				}
			}
		}
	}
	return false
}
