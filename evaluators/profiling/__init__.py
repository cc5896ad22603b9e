"""Where a scored server's time goes, as evidence for the next change: samplers, tracers, and how far the roof is."""
