package ledger

import (
	"time"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// Metrics is told what the disk does. Its methods must not block.
type Metrics interface {
	// LedgerSynced: a write was synced, or was not.
	LedgerSynced(took time.Duration, err error)
}

// NoMetrics drops everything.
type NoMetrics struct{}

func (NoMetrics) LedgerSynced(time.Duration, error) {}

// WithMetrics has the time of each sync told, by the given clock.
func WithMetrics(m Metrics, now func() time.Time) Option {
	return func(l *Ledger) { l.metrics, l.now = m, now }
}

// noTime is the clock of a log that tells nobody.
func noTime() time.Time { return time.Time{} }

// Stats is how much the log holds.
type Stats struct {
	Bytes    int64 // of its files
	Segments int   // files
	Records  int   // slots that are kept
	Oldest   sequence.Slot
	Broken   bool // nothing can be written any more
}

// Stats are those after the newest write. It never waits for the disk.
func (l *Ledger) Stats() Stats {
	if s := l.stats.Load(); s != nil {
		return *s
	}
	return Stats{}
}

// tell keeps the statistics for whoever asks. The caller holds mu, or has the log alone.
func (l *Ledger) tell() {
	s := &Stats{Segments: len(l.segments), Records: len(l.state.entries), Broken: l.broken != nil}
	for _, seg := range l.segments {
		s.Bytes += seg.size
	}
	if s.Records > 0 {
		s.Oldest = l.state.entries[0].slot
	}
	l.stats.Store(s)
}
