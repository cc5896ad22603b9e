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
    """Prompt and generated tokens together, as far as the host knows them."""
    prompt_len: int
    max_new_tokens: int
    sampling: Sampling = field(default_factory=Sampling)
    in_flight: int = 0
    """Tokens that launched steps will add to `tokens`: the device knows them before the host does."""
    finish_reason: str | None = None
    """None while running, then "length", "stop" or "abort"."""

    @property
    def length(self) -> int:
        """Tokens that the sequence has once the launched steps are done."""
        return len(self.tokens) + self.in_flight

    @property
    def remaining(self) -> int:
        """Tokens that may still be asked of the model."""
        return self.prompt_len + self.max_new_tokens - self.length

    @property
    def max_len(self) -> int:
        """Most tokens the sequence can ever have: what `KVCache.allocate` must make room for."""
        return self.prompt_len + self.max_new_tokens


@dataclass(frozen=True, slots=True)
class Segment:
    """Compute positions [start, end) of `seq` in this step; K/V of [0, start) are in the cache already.

    `end` = seq.length for a segment that wants the next token, less for a chunk of a prompt that is not the last.
    """

    seq: Sequence
    start: int
    end: int
    want: bool


@dataclass(frozen=True, slots=True)
class Output:
    """What one step added to one sequence."""

    seq: Sequence
    token_ids: list[int]
    """Newly accepted tokens, at least one."""
    finish_reason: str | None
