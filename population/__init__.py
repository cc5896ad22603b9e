"""What was tried: objectives, evaluations, candidates, the archive, the ledger and the git repository."""
