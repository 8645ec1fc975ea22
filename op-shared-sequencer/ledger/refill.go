package ledger

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/ethereum/go-ethereum/common"

	"github.com/ethereum-optimism/optimism/op-service/eth"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// Importer is what a refill needs of an engine; the contracts are those of engine.Engine.
type Importer interface {
	Head(ctx context.Context) (engine.BlockInfo, error)
	Block(ctx context.Context, number uint64) (engine.BlockInfo, error)
	BlockByHash(ctx context.Context, hash common.Hash) (engine.BlockInfo, error)
	Import(ctx context.Context, payload *eth.ExecutionPayloadEnvelope) error
	SetHead(ctx context.Context, head, safe, finalized common.Hash) error
}

// refillStep is after how many imports the head is moved: a crash during a long refill
// then costs at most these, and the engine need not keep a long branch off its head.
const refillStep = 64

// Outcome says how an engine stands to the log after a refill.
type Outcome int

const (
	// NothingLogged: the log knows nothing of the chain.
	NothingLogged Outcome = iota
	// UpToDate: the engine's chain held the log's head already, perhaps with blocks on top.
	UpToDate
	// Refilled: the engine's head was moved to the log's head.
	Refilled
	// Gap: blocks that are not in the log lie between the engine and the log. The engine
	// was left alone; derivation has to make them.
	Gap
	// EngineAhead: the engine is on another branch and further than the log. It was left alone.
	EngineAhead
)

func (o Outcome) String() string {
	return [...]string{"nothing logged", "up to date", "refilled", "gap", "engine ahead"}[o]
}

// RefillResult is what a refill found and did.
type RefillResult struct {
	Outcome  Outcome
	Imported int         // blocks
	Log      eth.BlockID // the log's head
	Engine   eth.BlockID // the engine's head: afterwards, or before if the refill failed
	Missing  eth.BlockID // with Gap: the block that neither the engine nor the log has
}

// Refill brings an engine to the log's head of its chain by importing, in order, what
// the engine lost. It is idempotent, and may be called again after an error.
//
// Which branch stands, if the engine's does not hold the log's head? Void blocks are out
// of the question: the head is never one. If the engine is not further than the log, the
// log: its blocks were agreed, only L1 can take that back, and a crash may have come
// between a reset of the engine and its Rewind. If L1 did take them back, derivation
// replaces them again when the op-node starts; the other way round they would be lost.
// If the engine is further than the log, it has been driven without it (the chain
// sequenced alone, say), and moving it back would take blocks nobody could refill.
func (l *Ledger) Refill(ctx context.Context, chain sequence.ChainID, eng Importer) (RefillResult, error) {
	fail := func(err error) error {
		return fmt.Errorf("chain %s: refill the engine from the ledger: %w", chain, err)
	}
	var res RefillResult
	var ok bool
	if res.Log, _, ok = l.Head(chain); !ok {
		return res, nil
	}
	head, err := eng.Head(ctx)
	if err != nil {
		return res, fail(err)
	}
	res.Engine = head.ID()
	if at, err := eng.Block(ctx, res.Log.Number); err == nil && at.Hash == res.Log.Hash && at.Number <= head.Number {
		res.Outcome = UpToDate
		return res, nil
	} else if err != nil && !errors.Is(err, engine.ErrNotFound) {
		return res, fail(err)
	}
	if head.Number > res.Log.Number {
		res.Outcome = EngineAhead
		l.log.Warn("Engine is on another branch and further than the ledger, leaving it there", "chain", chain,
			"engine", res.Engine, "ledger", res.Log)
		return res, nil
	}

	have, todo, missing, err := l.missing(ctx, chain, res.Log, eng)
	if err != nil {
		return res, fail(err)
	}
	if missing != (eth.BlockID{}) {
		res.Outcome, res.Missing = Gap, missing
		l.log.Warn("Derivation must fill a gap between the engine and the ledger", "chain", chain,
			"engine", res.Engine, "ledger", res.Log, "missing", missing)
		return res, nil
	}
	l.log.Info("Refilling engine from the ledger", "chain", chain, "engine", res.Engine, "from", have, "to", res.Log, "blocks", len(todo))
	setHead := func(id eth.BlockID) error {
		// With the final block, which a crash may have taken from the engine.
		final, err := l.final(ctx, chain, id, eng)
		if err != nil {
			return fmt.Errorf("final block: %w", err)
		}
		err = eng.SetHead(ctx, id.Hash, final, final)
		if err != nil && final != (common.Hash{}) {
			// Not below this head, which is agreed on all the same.
			l.log.Warn("Engine does not take the final block of the ledger", "chain", chain, "final", final, "head", id, "err", err)
			err = eng.SetHead(ctx, id.Hash, common.Hash{}, common.Hash{})
		}
		if err != nil {
			return fmt.Errorf("make block %s the head: %w", id, err)
		}
		return nil
	}
	for i, b := range todo {
		env, err := l.Payload(chain, b.id.Hash)
		if err != nil {
			return res, fail(err)
		}
		err = eng.Import(ctx, env)
		if i == 0 && (errors.Is(err, engine.ErrParentState) || errors.Is(err, engine.ErrUnknownParent)) {
			// A crash can leave a block without its state. Making it the head recovers that.
			if err := setHead(have); err != nil {
				return res, fail(err)
			}
			err = eng.Import(ctx, env)
		}
		if err != nil {
			return res, fail(fmt.Errorf("import block %s: %w", b.id, err))
		}
		res.Imported++
		if res.Imported%refillStep == 0 {
			if err := setHead(b.id); err != nil {
				return res, fail(err)
			}
			l.log.Info("Refilling engine from the ledger", "chain", chain, "at", b.id, "to", res.Log, "blocks", len(todo)-i-1)
		}
	}
	if err := setHead(res.Log); err != nil {
		return res, fail(err)
	}
	if head, err = eng.Head(ctx); err != nil {
		return res, fail(err)
	}
	if res.Engine = head.ID(); res.Engine != res.Log {
		return res, fail(fmt.Errorf("the engine took block %s for its head and stands on %s", res.Log, res.Engine))
	}
	res.Outcome = Refilled
	l.log.Info("Refilled engine from the ledger", "chain", chain, "head", res.Engine, "imported", res.Imported)
	return res, nil
}

// final is the chain's final block as far as the log knows, zero if the engine does not have
// it below a head: L1 went back behind what it called final, and derivation sees to it.
func (l *Ledger) final(ctx context.Context, chain sequence.ChainID, head eth.BlockID, eng Importer) (common.Hash, error) {
	l.mu.RLock()
	final := l.state.chains[chain].final
	l.mu.RUnlock()
	if final == (eth.BlockID{}) || final.Number > head.Number {
		return common.Hash{}, nil
	}
	at, err := eng.BlockByHash(ctx, final.Hash)
	if errors.Is(err, engine.ErrNotFound) || (err == nil && at.Number != final.Number) {
		l.log.Warn("Engine does not have the final block of the ledger", "chain", chain, "final", final)
		return common.Hash{}, nil
	}
	return final.Hash, err
}

// missing walks from a head down to the newest block the engine has: that one, the
// logged blocks above it in ascending order, or the block that is in neither place.
func (l *Ledger) missing(ctx context.Context, chain sequence.ChainID, head eth.BlockID, eng Importer) (have eth.BlockID, todo []block, missing eth.BlockID, err error) {
	for id := head; ; {
		_, err := eng.BlockByHash(ctx, id.Hash)
		if err == nil {
			have = id
			break
		}
		if !errors.Is(err, engine.ErrNotFound) {
			return have, nil, missing, err
		}
		l.mu.RLock()
		b, ok := l.state.chains[chain].blocks[id.Hash]
		l.mu.RUnlock()
		if !ok || id.Number == 0 {
			return have, nil, id, nil
		}
		todo = append(todo, b)
		id = eth.BlockID{Hash: b.parent, Number: id.Number - 1}
	}
	slices.Reverse(todo)
	return have, todo, missing, nil
}
