package cometbft

import (
	"sync"
	"time"

	"github.com/ethereum-optimism/optimism/op-service/clock"
)

// watch knows which call into the machine is in progress, and since when.
type watch struct {
	clock clock.Clock

	mu    sync.Mutex
	call  string // empty: none
	since time.Time
}

// enter notes that a call begins, and returns what notes that it has ended.
func (w *watch) enter(call string) (leave func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.call, w.since = call, w.clock.Now()
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.call = ""
	}
}

// longest is the call in progress and how long it takes already.
func (w *watch) longest() (string, time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.call == "" {
		return "", 0
	}
	return w.call, w.clock.Since(w.since)
}
