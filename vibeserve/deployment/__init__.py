"""A candidate as a folder that runs without VibeServe: tree, pinned environment, manifests, evidence."""
