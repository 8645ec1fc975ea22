package conductor

import (
	"errors"
	"fmt"
	"time"
)

// Tuning is what of op-conductor's settings bears on how fast a dead leader is replaced.
// All else is upstream's default, for op-conductor and op-node alike.
type Tuning struct {
	// Heartbeat is raft's: a follower that has not heard from the leader for one to two
	// of these (at random) asks for votes. It is most of the gap.
	Heartbeat time.Duration
	// Lease is how long a leader goes on without hearing from a majority; at most Heartbeat.
	Lease time.Duration
	// HealthInterval is the time between two looks of a conductor at its op-node, in
	// whole seconds, at least one. A dead leader is noticed by raft, not by these.
	HealthInterval time.Duration
	// UnsafeInterval is how old the unsafe head may be before an op-node counts as
	// unhealthy, in whole seconds.
	UnsafeInterval time.Duration
	// MinPeers is how many gossip peers a healthy op-node has.
	MinPeers uint64
}

// Upstream is what op-conductor runs with when nothing is tuned: the defaults of its
// flags for raft (1 s heartbeat, 500 ms lease). The health check has no defaults: once a
// second is the shortest there is, five blocks of silence leave room for a failover, and
// one peer is what a survivor of three still has when the leader has died.
func Upstream() Tuning {
	return Tuning{
		Heartbeat: time.Second, Lease: 500 * time.Millisecond,
		HealthInterval: time.Second, UnsafeInterval: 5 * time.Second, MinPeers: 1,
	}
}

// Fast is Upstream with the heartbeat of 300 ms that op-conductor's README counts with,
// and the lease in the same proportion to it as in the defaults. It is sensible only
// where Result.Unforced stays 0: on a busy machine it deposes leaders that are well, and
// shorter heartbeats do so all the time.
func Fast() Tuning {
	t := Upstream()
	t.Heartbeat, t.Lease = 300*time.Millisecond, 150*time.Millisecond
	return t
}

func (t *Tuning) check() error {
	whole := func(d time.Duration) bool { return d >= time.Second && d%time.Second == 0 }
	switch {
	case t.Heartbeat < 5*time.Millisecond || t.Heartbeat > time.Second:
		// Raft's election timeout is fixed at one second and must not be shorter.
		return fmt.Errorf("heartbeat of %s: raft takes 5ms to 1s", t.Heartbeat)
	case t.Lease < 5*time.Millisecond || t.Lease > t.Heartbeat:
		return fmt.Errorf("lease of %s: raft takes 5ms to the heartbeat's %s", t.Lease, t.Heartbeat)
	case !whole(t.HealthInterval) || !whole(t.UnsafeInterval):
		return fmt.Errorf("health check every %s, unsafe head %s old: give whole seconds", t.HealthInterval, t.UnsafeInterval)
	case t.MinPeers == 0:
		return errors.New("no peers: op-conductor wants at least one")
	}
	return nil
}
