package engine

import (
	"context"
	"fmt"
	"sync"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"

	"github.com/ethereum-optimism/optimism/op-service/eth"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// Later is an Engine that may not be there yet. Until it is, every call fails with
// ErrUnavailable, so that other chains do not wait for it.
type Later struct {
	chain sequence.ChainID
	stop  context.CancelFunc
	done  chan struct{}

	mu     sync.Mutex
	engine Engine
	err    error // why there is none
	gaveUp error // what dialing ended with
}

var _ Engine = (*Later)(nil)

// Connect dials in the background until Close. dial is to try until the engine is there,
// as Dial does; if it gives up for another reason than the end of its context, no later
// try will do, and refused is told why.
func Connect(chain sequence.ChainID, dial func(ctx context.Context) (Engine, error), refused func(error)) *Later {
	l := &Later{chain: chain, done: make(chan struct{}), err: fmt.Errorf("chain %s: %w: not connected yet", chain, ErrUnavailable)}
	ctx, cancel := context.WithCancel(context.Background())
	l.stop = cancel
	go func() {
		defer close(l.done)
		e, err := dial(ctx)
		l.mu.Lock()
		l.engine = e
		if err != nil {
			l.engine, l.gaveUp, l.err = nil, err, fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		l.mu.Unlock()
		if err != nil && ctx.Err() == nil {
			refused(err)
		}
	}()
	return l
}

// Await waits until the engine is there, or it is known that it will not be.
func (l *Later) Await(ctx context.Context) error {
	select {
	case <-l.done:
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.gaveUp
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Close ends the dialing, or closes the engine.
func (l *Later) Close() {
	l.stop()
	<-l.done
	if e, err := l.get(); err == nil {
		e.Close()
	}
}

func (l *Later) get() (Engine, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.engine == nil {
		return nil, l.err
	}
	return l.engine, nil
}

func (l *Later) Chain() sequence.ChainID { return l.chain }

func (l *Later) Open(ctx context.Context, parent eth.BlockID, attrs *eth.PayloadAttributes) (Session, error) {
	e, err := l.get()
	if err != nil {
		return nil, err
	}
	return e.Open(ctx, parent, attrs)
}

func (l *Later) Insert(ctx context.Context, hash common.Hash) error {
	e, err := l.get()
	if err != nil {
		return err
	}
	return e.Insert(ctx, hash)
}

func (l *Later) Import(ctx context.Context, payload *eth.ExecutionPayloadEnvelope) error {
	e, err := l.get()
	if err != nil {
		return err
	}
	return e.Import(ctx, payload)
}

func (l *Later) SetHead(ctx context.Context, head, safe, finalized common.Hash) error {
	e, err := l.get()
	if err != nil {
		return err
	}
	return e.SetHead(ctx, head, safe, finalized)
}

func (l *Later) Head(ctx context.Context) (BlockInfo, error) {
	e, err := l.get()
	if err != nil {
		return BlockInfo{}, err
	}
	return e.Head(ctx)
}

func (l *Later) Block(ctx context.Context, number uint64) (BlockInfo, error) {
	e, err := l.get()
	if err != nil {
		return BlockInfo{}, err
	}
	return e.Block(ctx, number)
}

func (l *Later) BlockByHash(ctx context.Context, hash common.Hash) (BlockInfo, error) {
	e, err := l.get()
	if err != nil {
		return BlockInfo{}, err
	}
	return e.BlockByHash(ctx, hash)
}

func (l *Later) Payload(ctx context.Context, hash common.Hash) (*eth.ExecutionPayloadEnvelope, error) {
	e, err := l.get()
	if err != nil {
		return nil, err
	}
	return e.Payload(ctx, hash)
}

func (l *Later) Receipts(ctx context.Context, hash common.Hash) (types.Receipts, error) {
	e, err := l.get()
	if err != nil {
		return nil, err
	}
	return e.Receipts(ctx, hash)
}
