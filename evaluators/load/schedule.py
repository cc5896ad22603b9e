"""Decides, from two seeds, when each session arrives, how long its turns are, what it shares, and its tokens.

The trace seed fixes arrivals, lengths and sharing; the content seed fixes the tokens. Everything is keyed by name and
number, so that several client processes agree on one plan and a longer run begins like a shorter one.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from itertools import accumulate

from evaluators.load.workload import Load
from population.errors import ConfigError

REDRAWS = 64
"""Attempts at a prompt that was not sent before; more means that the space of prompts is too small."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One arrival: `turns` holds (fresh input tokens, output tokens) of each request in it."""

    number: int
    arrival_s: float
    prefix: int
    turns: tuple[tuple[int, int], ...]


class Trace:
    """Arrivals, lengths and sharing of one load."""

    def __init__(self, load: Load, seed: int) -> None:
        self.load = load
        self._key = f"trace/{seed}/{load.name}"

    def sessions(self) -> list[Session]:
        """Every session of an open load, or of a load without a window, in order of arrival."""
        count = self._count()
        arrivals = self.arrivals(count) if self.load.kind != "closed" else [0.0] * count
        return [self.session(number, arrival_s) for number, arrival_s in enumerate(arrivals)]

    def session(self, number: int, arrival_s: float = 0.0) -> Session:
        """The session with this number, whatever came before it."""
        load, rng = self.load, random.Random(f"{self._key}/session/{number}")
        prefix = rng.randrange(load.num_prefixes)
        turns = tuple((rng.randint(*load.input_tokens), rng.randint(*load.output_tokens)) for _ in range(load.turns))
        return Session(number=number, arrival_s=arrival_s, prefix=prefix, turns=turns)

    def arrivals(self, count: int) -> list[float]:
        """Absolute arrival times in seconds, gamma gaps rescaled so that the offered rate is exact.

        Without a window the last of N requests arrives at N/rate, as `vllm bench serve` does; with one, N + 1 gaps
        fill the window, so that the last arrival is inside it.
        """
        rate = self._session_rate()
        if rate == math.inf:
            return [0.0] * count
        rng, shape = random.Random(f"{self._key}/arrivals"), self.load.burstiness
        gaps = [1.0 if shape == math.inf else rng.gammavariate(shape, 1 / shape) for _ in range(count + 1)]
        if self.load.window_s is None:
            gaps.pop()
        scale = (self.load.window_s if self.load.window_s is not None else count / rate) / (math.fsum(gaps) or 1.0)
        return [at * scale for at in accumulate(gaps[:count])]

    def _session_rate(self) -> float:
        assert self.load.rate_per_s is not None, "problems() refuses an open load without a rate"
        return self.load.rate_per_s / self.load.turns

    def _count(self) -> int:
        if self.load.num_requests is not None:
            return math.ceil(self.load.num_requests / self.load.turns)
        assert self.load.window_s is not None, "problems() wants window_s or num_requests"
        return max(1, round(self._session_rate() * self.load.window_s))


class Prompts:
    """Fresh token contents. One object per evaluation: no prompt that it hands out is like another."""

    def __init__(self, ids: tuple[int, int]) -> None:
        self._ids = range(ids[0], ids[1] + 1)
        self._sent: set[bytes] = set()

    def prefix(self, seed: int, label: str, number: int, tokens: int) -> list[int]:
        """The tokens that all sessions with this prefix begin with."""
        return random.Random(f"content/{seed}/{label}/prefix/{number}").choices(self._ids, k=tokens)

    def extend(self, history: list[int], tokens: int, key: str) -> list[int]:
        """`history` and `tokens` fresh ones; `key` names seed, load, session and turn.

        Raises:
            ConfigError: no unsent prompt was found: too few tokens of too few kinds.
        """
        rng = random.Random(f"content/{key}")
        for _ in range(REDRAWS):
            prompt = history + rng.choices(self._ids, k=tokens)
            mark = b",".join(b"%d" % token for token in prompt)
            if mark not in self._sent:
                self._sent.add(mark)
                return prompt
        raise ConfigError(
            f"cannot draw a prompt that was not sent before: {len(self._sent)} sent, {tokens} fresh tokens of "
            f"{len(self._ids)} kinds each; raise input_tokens or widen prompt_ids"
        )
