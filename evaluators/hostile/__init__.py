"""The live hostile probe: attacks that run inside a node's own sandbox, and what of them is seen from outside."""
