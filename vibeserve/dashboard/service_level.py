"""Decides which drawn candidates keep a service level, and where its limits run through the picture."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from vibeserve.conditions import Condition, applying, parse_conditions
from vibeserve.dashboard.measures import Axis, axes, axis_named, values
from vibeserve.follower import Followed


def service_level(run: Followed, text: str, chosen: Sequence[Axis], names: Collection[str]) -> dict[str, Any]:
    """Limits along the chosen axes, and which of these candidates break a condition by their measured values.

    Raises:
        ConfigError: a part of the text is no condition.
        UsageError: a condition is about something that was not measured.
    """
    if not text.strip():
        return {"text": "", "limits": [], "broken": [], "unseen": []}
    conditions = parse_conditions(text, "service level")
    goals = tuple(run.state.archive.objectives)
    known = {axis.name for axis in axes(run)}
    limits, unseen, broken = [], [], set()
    for condition in conditions:
        keys = applying(condition.metric, condition.load, known - {o.name for o in goals}, goals)
        drawn = [place for place, axis in enumerate(chosen) if axis.name in (*keys, _bare(condition))]
        limits += [
            {"axis": place, "upper": condition.upper, "limit": condition.limit, "text": str(condition)}
            for place in drawn
        ]
        if not drawn:
            unseen.append(str(condition))
        for key in keys:
            found = values(run, axis_named(run, key))
            broken |= {name for name in names if name in found and not condition.holds(found[name].value)}
    return {"text": text, "limits": limits, "broken": sorted(broken), "unseen": unseen}


def _bare(condition: Condition) -> str:
    """The name of an objective, which is a mean over loads."""
    return condition.metric if condition.load is None else ""
