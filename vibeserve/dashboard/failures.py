"""Decides how failures are grouped: correct rejections, which are the judge at work, and machine errors."""

from __future__ import annotations

import re
from typing import Any

from population.events import Faulted
from vibeserve.dashboard.children import child_rows
from vibeserve.follower import Followed

_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
_CHILD = re.compile(r"\b[cr]\d{6}\b")
_SHOWN_GROUPS = 60
_EXAMPLES = 5


def failures(run: Followed) -> dict[str, Any]:
    """By stage and reason, the most frequent first. Reasons that differ only in numbers are one."""
    return run.kept("failures", lambda: {"revision": run.revision, **_failures(run)})


def _failures(run: Followed) -> dict[str, Any]:
    groups: dict[tuple[str, str, str], dict[str, Any]] = {}

    def count(kind: str, stage: str, reason: str, key: str, lost_s: float) -> None:
        group = groups.setdefault(
            (kind, stage, pattern(reason)),
            {"kind": kind, "stage": stage, "reason": reason, "count": 0, "examples": [], "lost_s": 0.0},
        )
        group["count"] += 1
        group["lost_s"] += lost_s
        if len(group["examples"]) < _EXAMPLES and key not in group["examples"]:
            group["examples"].append(key)

    rows = child_rows(run)
    for row in rows:
        if row["state"] == "rejected":
            count("rejection", row["stage"], row["reason"], row["id"], row["cost_s"] or 0.0)
    for event in run.events:
        if isinstance(event, Faulted):
            count("error", "machine", event.reason, event.key, 0.0)
    ordered = sorted(groups.values(), key=lambda group: (group["kind"] != "error", -group["count"]))
    stages: dict[str, int] = {}
    for group in ordered:
        stages[group["stage"]] = stages.get(group["stage"], 0) + group["count"]
    return {
        "groups": ordered[:_SHOWN_GROUPS],
        "left_out": max(0, len(ordered) - _SHOWN_GROUPS),
        "stages": stages,
        "children": sum(row["state"] != "pending" and row["number"] > 0 for row in rows),
        "rejected": sum(group["count"] for group in ordered if group["kind"] == "rejection"),
        "errors": sum(group["count"] for group in ordered if group["kind"] == "error"),
    }


def pattern(reason: str) -> str:
    """A reason without the numbers and names that differ from child to child."""
    return _NUMBER.sub("#", _CHILD.sub("#", reason))
