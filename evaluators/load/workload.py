"""Decides what a load is: how requests arrive, how long they are, what they share, and how long they are watched."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

KINDS = ("open", "closed", "max-rate")


@dataclass(frozen=True, slots=True, kw_only=True)
class Slo:
    """A service level: a request is good when it breaks none of the limits that are given."""

    ttft_ms: float | None = None
    tpot_ms: float | None = None
    e2el_ms: float | None = None
    attainment: float = 0.9
    """Fraction of the decided requests that must be good for a rate to count as sustained (max-rate only)."""

    def problems(self) -> list[str]:
        """One sentence per defect; empty when the level is usable."""
        limits = {"ttft_ms": self.ttft_ms, "tpot_ms": self.tpot_ms, "e2el_ms": self.e2el_ms}
        found = [
            f"slo.{key} must be a number > 0, got {v!r}"
            for key, v in limits.items()
            if v is not None and not _positive(v)
        ]
        if all(value is None for value in limits.values()):
            found.append("slo needs at least one of ttft_ms, tpot_ms, e2el_ms")
        if not _positive(self.attainment) or self.attainment > 1:
            found.append(f"slo.attainment must be in (0, 1], got {self.attainment!r}")
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """One `[[load]]` of a target. `problems()` says what is wrong with it; nothing else here raises.

    A prompt is `shared_prefix_tokens` of one of `num_prefixes` prefixes, then `input_tokens` fresh ones. With `turns`
    > 1 a session's next prompt is the last prompt, the answer to it, and `input_tokens` fresh ones, sent when the
    answer is complete.
    """

    name: str
    kind: str = "open"
    """open: on a schedule, whatever the server does; closed: `concurrency` in flight; max-rate: search the highest open
    rate."""
    rate_per_s: float | None = None
    """Requests per second, all turns counted; open loads need it (inf: all at once). max-rate: where the search
    starts."""
    burstiness: float = 1.0
    """Shape of the gamma distribution of the gaps: 1 is Poisson, below is burstier, inf is a metronome."""
    window_s: float | None = None
    """Fixed window with censoring; None: send `num_requests` and wait for all of them."""
    num_requests: int | None = None
    """Only without a window."""
    input_tokens: tuple[int, int] = (32, 32)
    """Inclusive range, uniform."""
    output_tokens: tuple[int, int] = (64, 64)
    """Inclusive range, uniform; sent as max_tokens with ignore_eos."""
    shared_prefix_tokens: int = 0
    num_prefixes: int = 1
    turns: int = 1
    concurrency: int | None = None
    slo: Slo | None = None

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> Load:
        """A load from a parsed TOML table: lengths as a number or a pair, `slo` as a table.

        Raises:
            TypeError: an unknown key; `problems()` reports everything else.
        """
        given = dict(table)
        for key in ("input_tokens", "output_tokens"):
            if key in given:
                given[key] = length_range(given[key])
        if isinstance(given.get("slo"), Mapping):
            given["slo"] = Slo(**given["slo"])
        return cls(**given)

    @property
    def longest_request_tokens(self) -> int:
        """Most prompt + output tokens that one request can need."""
        return self.shared_prefix_tokens + self.turns * (self.input_tokens[1] + self.output_tokens[1])

    def problems(self) -> list[str]:
        """One sentence per defect, the load named; empty when the load can run."""
        found = self._kind_problems() + self._extent_problems() + self._shape_problems()
        if self.slo is not None:
            found += self.slo.problems()
        return [f"load {self.name!r}: {text}" for text in found]

    def _kind_problems(self) -> list[str]:
        found = []
        if not isinstance(self.name, str) or not self.name or set(self.name) & set("@/\n "):
            found.append("name must be a word without spaces, '@' or '/' (metrics are called metric@name)")
        if self.kind not in KINDS:
            found.append(f"kind must be one of {', '.join(KINDS)}, got {self.kind!r}")
        if self.kind == "open" and self.rate_per_s is None:
            found.append("an open load needs rate_per_s (requests per second)")
        if self.rate_per_s is not None and not _positive(self.rate_per_s, infinite=self.kind == "open"):
            found.append(f"rate_per_s must be a number > 0, got {self.rate_per_s!r}")
        if self.kind == "closed" and not _count(self.concurrency):
            found.append(f"a closed load needs concurrency >= 1, got {self.concurrency!r}")
        if self.kind != "closed" and self.concurrency is not None:
            found.append(f"concurrency belongs to closed loads; a limit on a {self.kind} load would hide queueing")
        if self.kind == "max-rate" and self.slo is None:
            found.append("a max-rate load needs slo = {ttft_ms = ..., tpot_ms = ...}")
        return found

    def _extent_problems(self) -> list[str]:
        found = []
        if (self.window_s is None) == (self.num_requests is None):
            found.append("give exactly one of window_s (fixed window) and num_requests (run to completion)")
        if self.window_s is not None and not _positive(self.window_s):
            found.append(f"window_s must be a number > 0, got {self.window_s!r}")
        if self.num_requests is not None and not _count(self.num_requests):
            found.append(f"num_requests must be >= 1, got {self.num_requests!r}")
        if self.kind == "max-rate" and self.window_s is None:
            found.append("a max-rate load needs window_s: each rate is tried for one window")
        if self.kind == "open" and self.window_s is not None and self.rate_per_s == math.inf:
            found.append("rate_per_s = inf has no fixed window; give num_requests, or use kind = 'closed'")
        return found

    def _shape_problems(self) -> list[str]:
        found = []
        if not _positive(self.burstiness, infinite=True):
            found.append(f"burstiness must be > 0 (1 = Poisson), got {self.burstiness!r}")
        for key, value in (("input_tokens", self.input_tokens), ("output_tokens", self.output_tokens)):
            if not _is_range(value):
                found.append(f"{key} must be a number >= 1 or [low, high] with 1 <= low <= high, got {value!r}")
        if not isinstance(self.shared_prefix_tokens, int) or self.shared_prefix_tokens < 0:
            found.append(f"shared_prefix_tokens must be >= 0, got {self.shared_prefix_tokens!r}")
        if not _count(self.num_prefixes):
            found.append(f"num_prefixes must be >= 1, got {self.num_prefixes!r}")
        if not _count(self.turns):
            found.append(f"turns must be >= 1, got {self.turns!r}")
        return found


LOAD_KEYS = tuple(field.name for field in fields(Load))
"""The keys of a `[[load]]` table, for "did you mean"."""


def length_range(value: Any) -> Any:
    """32 → (32, 32), [24, 40] → (24, 40); anything else comes back as it is, for `problems()` to name."""
    if isinstance(value, int) and not isinstance(value, bool):
        return (value, value)
    if isinstance(value, list):
        return tuple(value)
    return value


def _positive(value: Any, *, infinite: bool = False) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        return False
    return value > 0 and (infinite or value != math.inf)


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_range(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(_count(v) for v in value) and value[0] <= value[1]
