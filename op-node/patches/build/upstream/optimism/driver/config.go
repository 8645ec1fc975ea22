	// SequencerFactory, if set, makes the sequencer instead of sequencing.NewSequencer.
	SequencerFactory SequencerFactory `json:"-"`

