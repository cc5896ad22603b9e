"""Decides how full each budget is, and when that is worth a warning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from population.replay import State
from vibeserve.agents.prices import Prices
from vibeserve.display import Meter
from vibeserve.spent import Spent

WARN_AT = 0.8
"""Used part of a budget from which on its user is told."""
WALL_TIME = "wall time"


class Limits(Protocol):
    """What a run was given; None is unlimited."""

    @property
    def children(self) -> int | None: ...
    @property
    def wall_time_s(self) -> float | None: ...
    @property
    def gpu_hours(self) -> float | None: ...
    @property
    def tokens(self) -> int | None: ...
    @property
    def dollars(self) -> float | None: ...


def meters(limits: Limits, state: State, elapsed_s: float, gpus: int | None, prices: Prices) -> tuple[Meter, ...]:
    """Every budget with what is used of it; those of GPUs and models where there is a limit or any use.

    `gpus`: per evaluation; None: not known.
    """
    children = sum(number > 0 for number in state.archive.children)
    found = [
        Meter(name="children", used=children, limit=limits.children),
        Meter(name=WALL_TIME, used=elapsed_s, limit=limits.wall_time_s, unit="s"),
    ]
    if gpus or (gpus is None and limits.gpu_hours is not None):
        hours = None if gpus is None else state.evaluate_s * gpus / 3600
        found.append(Meter(name="gpu hours", used=hours, limit=limits.gpu_hours, unit="h"))
    spent = Spent(state, prices)
    if state.spent or limits.tokens is not None:
        found.append(Meter(name="tokens", used=spent.tokens, limit=limits.tokens))
    if state.spent or limits.dollars is not None:
        bill = spent.bill
        used = None if bill.unpriced and not bill.dollars else bill.dollars
        found.append(Meter(name="dollars", used=used, limit=limits.dollars, unit="$", and_unknown=not bill.known))
    return tuple(found)


def warnings(shown: Sequence[Meter]) -> dict[str, str]:
    """Budget → what to tell its user, for those that are nearly used up or cannot be watched."""
    from vibeserve.tables import meter_text

    told = {}
    for meter in shown:
        if meter.limit is None:
            continue
        if meter.share is not None and meter.share >= WARN_AT:
            told[meter.name] = f"{meter.share:.0%} of a budget is used: {meter_text(meter)}"
        elif meter.used is None:
            told[meter.name] = f"what is used of a budget is not known: {meter_text(meter)}"
    return told
