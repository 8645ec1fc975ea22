package rpc

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common/lru"
	gethrpc "github.com/ethereum/go-ethereum/rpc"
	"golang.org/x/time/rate"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/stream"
)

// What requests count for, in those that only read something.
const (
	costRead      = 1
	costSend      = 5 // signatures are recovered
	costSubscribe = 5
	costSimulate  = 20 // engines run it
)

// sources is how many addresses are remembered: those that asked last.
const sources = 4096

// limits are what each IP address may still ask for.
type limits struct {
	rate  rate.Limit
	burst int

	mu   sync.Mutex
	seen lru.BasicLRU[netip.Prefix, *rate.Limiter]
}

// newLimits without a rate sets none.
func newLimits(perSecond float64, burst int) *limits {
	if perSecond <= 0 {
		return nil
	}
	return &limits{rate: rate.Limit(perSecond), burst: max(burst, costSimulate), seen: lru.NewBasicLRU[netip.Prefix, *rate.Limiter](sources)}
}

// admit refuses a request of an address that has asked for too much.
func (a *API) admit(ctx context.Context, cost int) error {
	return a.limits.admit(gethrpc.PeerInfoFromContext(ctx).RemoteAddr, cost, a.cfg.Now())
}

func (l *limits) admit(remote string, cost int, now time.Time) error {
	if l == nil {
		return nil
	}
	from, ok := stream.Source(remote)
	if !ok {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	limiter, known := l.seen.Get(from)
	if !known {
		limiter = rate.NewLimiter(l.rate, l.burst)
		l.seen.Add(from, limiter)
	}
	if limiter.AllowN(now, cost) {
		return nil
	}
	return &Error{Code: CodeRate, Message: fmt.Sprintf("%s asks for more than %v requests a second: slow down", from, float64(l.rate))}
}
