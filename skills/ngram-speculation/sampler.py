"""Decides the next token: greedy, or a draw at the request's temperature; guesses ahead from earlier n-grams."""

from __future__ import annotations

import numpy as np
from knobs import read_knobs
from sequence import Sampling, Segment, Sequence
from weights import Array


class History:
    """Where every n-gram of one sequence was last seen, brought up to date as the sequence grows."""

    def __init__(self) -> None:
        self._after: dict[tuple[int, ...], int] = {}
        """N-gram → position of the token that followed it last."""
        self._next = 0

    def find(self, tokens: list[int], size: int) -> int | None:
        """Position after the last earlier occurrence of the final `size` tokens."""
        for position in range(max(self._next, size), len(tokens)):
            self._after[tuple(tokens[position - size : position])] = position
        self._next = len(tokens)
        return self._after.get(tuple(tokens[-size:]))


class Sampler:
    """Component `sampler`, interface 1."""

    def __init__(self) -> None:
        knobs = read_knobs(__file__)
        self._ngram_tokens: int = knobs["ngram_tokens"]
        self._draft_tokens: int = knobs["draft_tokens"]
        self._max_streams: int = knobs["max_streams"]
        self._streams: dict[int, History] = {}

    def draft(self, seq: Sequence) -> list[int]:
        """Guessed next tokens of `seq`, fewer than seq.remaining; empty when it has no guess."""
        history = self._streams.setdefault(seq.id, History())
        if len(self._streams) > self._max_streams:
            return []
        start = history.find(seq.tokens, self._ngram_tokens)
        if start is None:
            return []
        # Reading on into the guesses themselves continues a cycle that is shorter than the draft.
        tokens = list(seq.tokens)
        for position in range(start, start + min(self._draft_tokens, seq.remaining - 1)):
            tokens.append(tokens[position])
        return tokens[len(seq.tokens) :]

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
        self._streams.pop(seq.id, None)

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
