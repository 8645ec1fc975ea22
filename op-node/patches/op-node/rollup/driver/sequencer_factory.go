package driver

import (
	"context"

	"github.com/ethereum/go-ethereum/log"
	"github.com/ethereum/go-ethereum/params"

	"github.com/ethereum-optimism/optimism/op-node/rollup"
	"github.com/ethereum-optimism/optimism/op-node/rollup/conductor"
	"github.com/ethereum-optimism/optimism/op-node/rollup/derive"
	"github.com/ethereum-optimism/optimism/op-node/rollup/engine"
	"github.com/ethereum-optimism/optimism/op-node/rollup/sequencing"
)

// SequencerFactory makes the sequencer of one driver. It is called once per
// NewDriver, so again after every restart of a virtual node. The driver registers
// what it returns for events, initialises it, runs its loop and closes it, exactly
// as it does with sequencing.NewSequencer's.
type SequencerFactory func(p *SequencerParts) sequencing.SequencerIface

// SequencerParts is what the driver would hand to its own sequencer, and what its
// attributes builder is made of. The parts are valid until Ctx ends.
type SequencerParts struct {
	Ctx       context.Context // ends when the driver closes
	Log       log.Logger
	RollupCfg *rollup.Config
	DepSet    derive.DependencySet

	AttributesBuilder derive.AttributesBuilder
	L1OriginSelector  sequencing.L1OriginSelectorIface
	L1                sequencing.L1Blocks // behind the sequencer confirmation depth
	Listener          sequencing.SequencerStateListener
	Conductor         conductor.SequencerConductor
	Gossip            sequencing.AsyncGossiper
	Metrics           sequencing.Metrics
	Engine            *engine.EngineController
	SuperAuthority    rollup.SuperAuthority // nil outside a supernode

	// For a sequencer that makes its own attributes builder.
	L1ChainConfig *params.ChainConfig
	L1Receipts    derive.L1ReceiptsFetcher
	L2            derive.SystemConfigL2Fetcher
}
