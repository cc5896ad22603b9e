"""Decides what a condition on a metric asks, and whether a measurement keeps it: surely, perhaps or not at all."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from population.errors import ConfigError, UsageError
from population.objectives import Objective
from population.statistics import Estimate

_CONDITION = re.compile(r"\s*([A-Za-z0-9_]+)(?:@([A-Za-z0-9._-]+))?\s*(<=|>=|<|>)\s*([-+0-9.eE]+)\s*", re.ASCII)
_LATENCY = re.compile(r"_(ttft|tpot|itl|e2el)_ms$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """`p99_ttft_ms@low < 200`; without a load it is meant for every load that `applying` finds."""

    metric: str
    """As the client names it: `median_ttft_ms` where `p50_ttft_ms` was asked for."""
    load: str | None
    relation: str
    """`<`, `<=`, `>` or `>=`."""
    limit: float

    def __str__(self) -> str:
        return f"{self.metric}{f'@{self.load}' if self.load else ''} {self.relation} {self.limit:g}"

    def holds(self, value: float) -> bool:
        """Whether one number fits the condition; an infinite latency is above every limit."""
        return {
            "<": value < self.limit,
            "<=": value <= self.limit,
            ">": value > self.limit,
            ">=": value >= self.limit,
        }[self.relation]

    @property
    def upper(self) -> bool:
        """Whether less is better here."""
        return self.relation.startswith("<")


class Certainty(StrEnum):
    """What a 95 % interval says of a condition."""

    KEPT = "kept"
    """By the whole interval."""
    PERHAPS = "perhaps kept"
    """By the measured value, not by the whole interval."""
    PERHAPS_BROKEN = "perhaps broken"
    """Not by the measured value, but by a part of the interval."""
    BROKEN = "broken"

    @property
    def holds(self) -> bool:
        """Whether the measured value keeps the condition."""
        return self in (Certainty.KEPT, Certainty.PERHAPS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One condition on one metric of one load, and what was measured."""

    condition: Condition
    key: str
    """The metric as measured: `p99_ttft_ms@low`."""
    found: Estimate

    @property
    def certainty(self) -> Certainty:
        """By the measured value and its interval."""
        ends = [self.condition.holds(end) for end in (self.found.low, self.found.high)]
        if self.condition.holds(self.found.value):
            return Certainty.KEPT if all(ends) else Certainty.PERHAPS
        return Certainty.PERHAPS_BROKEN if any(ends) else Certainty.BROKEN

    @property
    def excess(self) -> float:
        """The value over the limit where less is better, the limit over the value elsewhere: above 1 is broken."""
        above, below = (
            (self.found.value, self.condition.limit)
            if self.condition.upper
            else (self.condition.limit, self.found.value)
        )
        if above == below:
            return 1.0
        return above / below if below > 0 else math.inf

    @property
    def distance(self) -> float:
        """By how much the value is beyond the limit, in the metric's unit; negative while the condition is kept."""
        beyond = self.found.value - self.condition.limit
        return beyond if self.condition.upper else -beyond


def parse_conditions(text: str, option: str) -> tuple[Condition, ...]:
    """`p99_ttft_ms<200, p50_tpot_ms@low<=10` as conditions.

    Raises:
        ConfigError: one sentence for every part that is no condition.
    """
    found, problems = [], []
    for part in [part for part in text.split(",") if part.strip()] or [text]:
        match = _CONDITION.fullmatch(part)
        limit = _number(match[4]) if match else None
        if match is None or limit is None:
            problems.append(
                f"{option}: expected conditions such as 'p99_ttft_ms<200, p50_tpot_ms@low<10', got '{part}'"
            )
            continue
        found.append(Condition(metric=metric_name(match[1]), load=match[2], relation=match[3], limit=limit))
    if problems:
        raise ConfigError(problems)
    return tuple(found)


def metric_name(name: str) -> str:
    """`median_ttft_ms` for `p50_ttft_ms`, everything else as it is."""
    return f"median_{name[4:]}" if name.startswith("p50_") else name


def applying(
    metric: str, load: str | None, known: Iterable[str], objectives: Sequence[Objective] = ()
) -> tuple[str, ...]:
    """The measured metrics that a name stands for; `known` are all that were measured, as `metric@load` or bare.

    With a load: that one. Without: the loads of the objective of that name; else those of the objectives about the same
    latency, because a load that saturates on purpose is no place for a latency limit; else every load.

    Raises:
        UsageError: nothing of that name was measured; says what was.
    """
    names = set(known)
    if load is not None:
        return _present((f"{metric}@{load}",), names, metric)
    loads = _declared_loads(metric, objectives)
    every = sorted(name for name in names if name == metric or name.startswith(f"{metric}@"))
    wanted = [name for name in every if "@" not in name or not loads or name.partition("@")[2] in loads]
    return _present(tuple(wanted or every), names, metric)


def _declared_loads(metric: str, objectives: Sequence[Objective]) -> frozenset[str]:
    own = [o for o in objectives if o.name == metric]
    kind = _LATENCY.search(metric)
    alike = [o for o in objectives if kind and (other := _LATENCY.search(o.name)) and other[1] == kind[1]]
    return frozenset(load for objective in own or alike for load in objective.loads)


def _present(keys: tuple[str, ...], names: set[str], metric: str) -> tuple[str, ...]:
    missing = [key for key in keys if key not in names]
    if keys and not missing:
        return keys
    import difflib

    bare = sorted({name.partition("@")[0] for name in names})
    loads = sorted({load for name in names if (load := name.partition("@")[2])})
    if metric in bare:
        raise UsageError(f"{missing[0]} was not measured; the loads are {', '.join(loads)}")
    close = difflib.get_close_matches(metric, bare, n=1)
    hint = f"; did you mean '{close[0]}'?" if close else f"; measured: {', '.join(bare)}"
    raise UsageError(f"no metric '{metric}' was measured{hint}")


def verdicts(
    conditions: Iterable[Condition], measured: Mapping[str, Estimate], objectives: Sequence[Objective] = ()
) -> tuple[Verdict, ...]:
    """Every condition on every metric that it applies to, in order.

    Raises:
        UsageError: a condition is about something that was not measured.
    """
    return tuple(
        Verdict(condition=condition, key=key, found=measured[key])
        for condition in conditions
        for key in applying(condition.metric, condition.load, measured, objectives)
    )


def verdict_json(verdict: Verdict) -> dict[str, Any]:
    """One condition, what was measured, and by how much it is kept or broken."""
    return {
        "condition": str(verdict.condition),
        "metric": verdict.key,
        "limit": verdict.condition.limit,
        **asdict(verdict.found),
        "verdict": str(verdict.certainty),
        "beyond": verdict.distance if math.isfinite(verdict.distance) else None,
    }


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
