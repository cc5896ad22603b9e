"""The truth about one working tree: server lifecycle, load generator, judge, audit, benchmark, profile."""
