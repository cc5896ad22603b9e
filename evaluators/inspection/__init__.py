"""Diff inspection: what a candidate's files may not hold, decided by reading them; nothing is executed."""
