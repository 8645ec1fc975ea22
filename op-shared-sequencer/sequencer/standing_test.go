package sequencer

import (
	"errors"
	"math/rand"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/stretchr/testify/require"

	"github.com/ethereum-optimism/optimism/op-node/rollup"
	"github.com/ethereum-optimism/optimism/op-node/rollup/derive"
	opengine "github.com/ethereum-optimism/optimism/op-node/rollup/engine"
	"github.com/ethereum-optimism/optimism/op-service/eth"
	"github.com/ethereum-optimism/optimism/op-service/event"
)

var (
	start = time.Unix(1_800_000_000, 0)
	l2A   = eth.L2BlockRef{Hash: common.Hash{0xa}, Number: 10}
	l2B   = eth.L2BlockRef{Hash: common.Hash{0xb}, Number: 11, ParentHash: l2A.Hash}
)

func running() standing {
	return standing{running: true, active: true, confirmed: true, localSafe: l2A, safe: l2A}
}

func TestBlocked(t *testing.T) {
	eleven := uint64(11)
	for name, test := range map[string]struct {
		change func(s *standing)
		head   eth.L2BlockRef
		denied *uint64
		want   string // "" if ready
	}{
		"ready":           {head: l2B},
		"not running":     {change: func(s *standing) { s.running = false }, head: l2B, want: "virtual node"},
		"switched off":    {change: func(s *standing) { s.active = false }, head: l2B, want: "switched off"},
		"just started":    {change: func(s *standing) { s.confirmed = false }, head: l2B, want: "first reset"},
		"resetting":       {change: func(s *standing) { s.resetting = true }, head: l2B, want: "resetting"},
		"deriving":        {change: func(s *standing) { s.deriving = true }, head: l2B, want: "derivation is building"},
		"backing off":     {change: func(s *standing) { s.notBefore = start.Add(1) }, head: l2B, want: "backing off"},
		"back-off over":   {change: func(s *standing) { s.notBefore = start }, head: l2B},
		"denied above":    {head: l2B, denied: &eleven, want: "block 11, which was invalidated"},
		"denied replaced": {change: func(s *standing) { s.localSafe = l2B }, head: l2B, denied: &eleven},
		"no head":         {want: "head is not known"},
		"lag at limit":    {change: func(s *standing) { s.maxSafeLag = 1 }, head: l2B, want: "the limit is 1"},
		"lag below limit": {change: func(s *standing) { s.maxSafeLag = 2 }, head: l2B},
	} {
		t.Run(name, func(t *testing.T) {
			s := running()
			if test.change != nil {
				test.change(&s)
			}
			got := s.blocked(test.head, test.denied, start)
			if test.want == "" {
				require.Empty(t, got)
			} else {
				require.Contains(t, got, test.want)
			}
		})
	}
}

func derived(parent eth.L2BlockRef) opengine.BuildStartEvent {
	return opengine.BuildStartEvent{Attributes: &derive.AttributesWithParent{Parent: parent, DerivedFrom: eth.L1BlockRef{Number: 5}}}
}

// The event orders were recorded from op-supernode; each ends in a chain that can be built on.
func TestEventOrders(t *testing.T) {
	confirm := opengine.EngineResetConfirmedEvent{LocalUnsafe: l2B, LocalSafe: l2A}
	forkchoice := func(head eth.L2BlockRef) opengine.ForkchoiceUpdateEvent {
		return opengine.ForkchoiceUpdateEvent{UnsafeL2Head: head, SafeL2Head: l2A}
	}
	type step struct {
		ev    event.Event
		abort bool
		ready bool // after the cool-down of a reset
	}
	for name, steps := range map[string][]step{
		"start": {
			{ev: rollup.ResetEvent{Err: errors.New("initial reset")}, abort: true},
			{ev: confirm, abort: true, ready: true},
			{ev: forkchoice(l2B), ready: true},
		},
		"L1 reorg": {
			{ev: confirm, abort: true, ready: true},
			{ev: rollup.ResetEvent{Err: errors.New("reorg")}, abort: true},
			{ev: forkchoice(l2A)},
			{ev: confirm, abort: true, ready: true},
		},
		"denied block is replaced": {
			{ev: confirm, abort: true, ready: true},
			{ev: derived(l2A), abort: true},
			{ev: forkchoice(l2A)},
			{ev: opengine.BuildStartedEvent{Parent: l2A, DerivedFrom: eth.L1BlockRef{Number: 5}}, abort: true},
			{ev: derived(l2A), abort: true}, // deposits only
			{ev: opengine.PayloadSuccessEvent{Ref: l2B}, ready: true},
		},
		"replacement exists already": { // no payload event follows
			{ev: confirm, abort: true, ready: true},
			{ev: derived(l2A), abort: true},
			{ev: forkchoice(l2A)},
			{ev: forkchoice(l2B), ready: true},
		},
		"own build is not derivation's": {
			{ev: confirm, abort: true, ready: true},
			{ev: opengine.BuildStartEvent{Attributes: &derive.AttributesWithParent{Parent: l2A}}, ready: true},
			{ev: opengine.BuildStartedEvent{Parent: l2A}, ready: true},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := standing{running: true, active: true}
			for i, st := range steps {
				require.Equal(t, st.abort, s.observe(st.ev, start, time.Second), "abort after step %d, %s", i, st.ev)
				why := s.blocked(l2B, nil, start.Add(time.Second))
				require.Equal(t, st.ready, why == "", "step %d, %s: %q", i, st.ev, why)
			}
		})
	}
}

func TestResetRestsOneBlock(t *testing.T) {
	s := running()
	s.observe(rollup.ResetEvent{}, start, 2*time.Second)
	s.observe(opengine.EngineResetConfirmedEvent{LocalSafe: l2A}, start, 2*time.Second)
	require.NotEmpty(t, s.blocked(l2B, nil, start.Add(2*time.Second-1)))
	require.Empty(t, s.blocked(l2B, nil, start.Add(2*time.Second)))
}

// Whatever comes, a chain is never built on between a reset and its confirmation, nor
// while derivation builds, and a confirmed reset always ends both.
func TestStandingUnderRandomEvents(t *testing.T) {
	for seed := range int64(200) {
		rng := rand.New(rand.NewSource(seed))
		s := standing{running: true, active: true}
		resetting, deriving := false, false
		confirmed := false
		for range 200 {
			switch rng.Intn(6) {
			case 0:
				require.True(t, s.observe(rollup.ResetEvent{}, start, 0))
				resetting = true
			case 1:
				s.observe(opengine.EngineResetConfirmedEvent{LocalSafe: l2A}, start, 0)
				resetting, deriving, confirmed = false, false, true
			case 2:
				require.True(t, s.observe(derived(l2A), start, 0))
				deriving = true
			case 3:
				s.observe(opengine.ForkchoiceUpdateEvent{UnsafeL2Head: l2A, SafeL2Head: l2A}, start, 0)
			case 4:
				s.observe(opengine.ForkchoiceUpdateEvent{UnsafeL2Head: l2B, SafeL2Head: l2A}, start, 0)
				deriving = false
			case 5:
				s.observe(opengine.PayloadSuccessEvent{Ref: l2B}, start, 0)
				deriving = false
			}
			require.Equal(t, confirmed && !resetting && !deriving, s.blocked(l2B, nil, start) == "", "seed %d", seed)
		}
	}
}
