		if driverCfg.SequencerFactory != nil { // NewSequencer has no side effects, so lines are only added here
			sequencer = driverCfg.SequencerFactory(&SequencerParts{
				Ctx: driverCtx, Log: log, RollupCfg: cfg, DepSet: depSet,
				AttributesBuilder: attrBuilder, L1OriginSelector: findL1Origin, L1: sequencerConfDepth,
				Listener: sequencerStateListener, Conductor: sequencerConductor,
				Gossip: asyncGossiper, Metrics: metrics, Engine: ec, SuperAuthority: superAuthority,
				L1ChainConfig: l1ChainConfig, L1Receipts: l1, L2: l2,
			})
		}
