	// The engine controller asks for the same few blocks many times per payload:
	// do not fetch their transactions again when only the hash has to be checked.
	if h, err := s.HeaderByNumber(ctx, num); err == nil {
		if ref, ok := s.l2BlockRefsCache.Get(h.Hash()); ok {
			return ref, nil
		}
	}
