"""Decides what a request is to the engine: one Sequence; and what one step computes of it: a Segment."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How the next token is chosen and what ends a sequence."""

    temperature: float = 0.0
    """0 is greedy."""
    top_p: float = 1.0
    seed: int = 0
    """With `temperature` > 0 the draw at position p depends on (seed, p) alone, however requests are batched."""
    stop_ids: frozenset[int] = frozenset()
    """Tokens that end the sequence after they were emitted; empty under `ignore_eos`."""


@dataclass(slots=True, kw_only=True, eq=False)
class Sequence:
    """One request's state. Only the engine changes it; components keep their own state in dicts keyed by `id`."""

    id: int
    """Unique and increasing in order of arrival."""
    tokens: list[int]
    """Prompt and generated tokens together."""
    prompt_len: int
    max_new_tokens: int
    sampling: Sampling = field(default_factory=Sampling)
    arrival_s: float = 0.0
    """`time.monotonic()` when the request was parsed."""
    finish_reason: str | None = None
    """None while running, then "length", "stop" or "abort"."""

    @property
    def num_generated(self) -> int:
        return len(self.tokens) - self.prompt_len

    @property
    def remaining(self) -> int:
        """Tokens that may still be generated."""
        return self.max_new_tokens - self.num_generated

    @property
    def max_len(self) -> int:
        """Most tokens the sequence can ever have: what `KVCache.allocate` must make room for."""
        return self.prompt_len + self.max_new_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """Compute positions [start, end) of `seq` in this step; K/V of [0, start) are in the cache already.

    `end` = len(seq.tokens) + len(draft) for a segment that wants logits, less for a prefill chunk that is not the last.
    """

    seq: Sequence
    start: int
    end: int
    want: int
    """Logits wanted, for the last `want` positions: 0 (unfinished prefill), 1, or 1 + len(draft)."""
    draft: tuple[int, ...] = ()
    """Guessed tokens that follow seq.tokens; computed along, kept as far as `Sampler.accept` agrees."""

    @property
    def token_ids(self) -> list[int]:
        """The end - start token ids to compute."""
        tokens = self.seq.tokens
        if self.end <= len(tokens):
            return tokens[self.start : self.end]
        return tokens[self.start :] + list(self.draft[: self.end - len(tokens)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """What one step added to one sequence."""

    seq: Sequence
    token_ids: list[int]
    """Newly accepted tokens, at least one."""
    finish_reason: str | None
