"""Decides the next token: greedy, or a draw at the request's temperature; guesses nothing ahead."""

from __future__ import annotations

import numpy as np
from sequence import Sampling, Segment, Sequence
from weights import Array


class Sampler:
    """Component `sampler`, interface 1."""

    def draft(self, seq: Sequence) -> list[int]:
        """Guessed next tokens of `seq`, fewer than seq.remaining; empty when it has no guess."""
        return []

    def accept(self, segment: Segment, logits: Array) -> list[int]:
        """Newly accepted tokens for the logits (1 + drafts, V): the agreed drafts, then one token more."""
        accepted: list[int] = []
        for row, guess in zip(logits, (*segment.draft, None), strict=True):
            token = self._choose(row, segment.seq.sampling, len(segment.seq.tokens) + len(accepted))
            accepted.append(token)
            if token != guess:
                break
        return accepted

    def release(self, seq: Sequence) -> None:
        """Forget a finished or aborted sequence."""

    def _choose(self, row: Array, sampling: Sampling, position: int) -> int:
        if sampling.temperature == 0:
            return int(row.argmax())
        scaled = (row.astype(np.float64) - float(row.max())) / sampling.temperature
        probabilities = np.exp(scaled)
        probabilities /= probabilities.sum()
        if sampling.top_p < 1:
            order = np.argsort(-probabilities)
            # A token stays while the mass before it is below top_p, so that at least one stays.
            before = np.cumsum(probabilities[order]) - probabilities[order]
            probabilities[order[before >= sampling.top_p]] = 0
            probabilities /= probabilities.sum()
        return int(np.random.default_rng((sampling.seed, position)).choice(len(row), p=probabilities))
