"""Decides how the list of all children is filtered, sorted and cut into pages."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from population.candidate import Candidate, Child
from population.errors import UsageError
from population.evaluation import Rejected
from vibeserve.dashboard.measures import point
from vibeserve.follower import Followed
from vibeserve.front_rows import label_of

PAGE = 50
STATES = ("front", "scored", "rejected", "pending")


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What is asked for. `sort` is `number`, `cost_s` or an objective; `text` is looked for in id, label and reason."""

    state: str = ""
    text: str = ""
    stage: str = ""
    operator: str = ""
    sort: str = "number"
    descending: bool = True
    page: int = 0


def child_rows(run: Followed) -> list[dict[str, Any]]:
    """Every child in order of its number, with what lists show of it."""
    return run.kept("child rows", lambda: _rows(run))


def children_page(run: Followed, query: Query) -> dict[str, Any]:
    """One page and the number of children that fit.

    Raises:
        UsageError: an unknown state or sort key.
    """
    goals = list(run.state.archive.objectives)
    sorts = {"number": None, "cost_s": None, **{o.name: o for o in goals}}
    if query.sort not in sorts or query.state not in ("", *STATES):
        raise UsageError(f"expected a sort among {', '.join(sorts)} and a state among {', '.join(STATES)}")

    def chosen() -> list[dict[str, Any]]:
        rows = [row for row in child_rows(run) if _fits(row, query)]
        if query.sort in ("number", "cost_s"):
            key = query.sort
            known, unknown = [r for r in rows if r[key] is not None], [r for r in rows if r[key] is None]
            return sorted(known, key=lambda row: float(row[key]), reverse=query.descending) + unknown
        place = [o.name for o in goals].index(query.sort)
        known = [r for r in rows if r["values"]]
        # "Descending" is best first, whatever the direction.
        known.sort(key=lambda row: goals[place].cost(row["values"][place][0]), reverse=not query.descending)
        return known + [r for r in rows if not r["values"]]

    rows = run.kept(("children", replace(query, page=0)), chosen)
    first = max(0, query.page) * PAGE
    return {
        "revision": run.revision,
        "rows": rows[first : first + PAGE],
        "total": len(rows),
        "page": max(0, query.page),
        "pages": math.ceil(len(rows) / PAGE),
        "objectives": [{"name": o.name, "unit": o.unit or "", "higher": str(o.direction) == "max"} for o in goals],
        "operators": sorted({row["operator"] for row in child_rows(run)}),
        "stages": sorted({row["stage"] for row in child_rows(run) if row["stage"]}),
    }


def _fits(row: Mapping[str, Any], query: Query) -> bool:
    if query.state and row["state"] != query.state and not (query.state == "scored" and row["state"] == "front"):
        return False
    if (query.stage and row["stage"] != query.stage) or (query.operator and row["operator"] != query.operator):
        return False
    text = query.text.casefold()
    return not text or any(text in str(row[key]).casefold() for key in ("id", "label", "reason"))


def _rows(run: Followed) -> list[dict[str, Any]]:
    archive = run.state.archive
    front, scored = frozenset(archive.front), frozenset(archive.scored)
    found: dict[int, dict[str, Any]] = {}
    pending = ((number, proposal, None) for number, proposal in run.state.pending.items())
    ended = ((number, child.proposal, child) for number, child in archive.children.items())
    for number, proposal, child in (*ended, *pending):
        name = proposal.id
        refusal = None if child is None or name in scored else last_refusal(run, child)
        known = archive.estimates(name) if name in scored else None
        found[number] = {
            "id": name,
            "number": number,
            "operator": str(proposal.operator),
            "label": label_of(proposal) or run.state.summaries.get(number, ""),
            "parents": proposal.parents,
            "state": "front" if name in front else "scored" if known else "rejected" if child else "pending",
            "stage": str(refusal.stage) if refusal else "",
            "reason": refusal.reason if refusal else "",
            "values": [point(known[o.name]) for o in archive.objectives] if known else None,
            "cost_s": child.cost_s if child else None,
        }
    return [found[number] for number in sorted(found)]


def last_refusal(run: Followed, child: Child) -> Rejected | None:
    """The verdict that keeps a child off the front; None if it has none."""
    evaluations = run.state.archive.evaluations(child.id) if isinstance(child, Candidate) else (child.evaluation,)
    return next((e for e in reversed(evaluations) if isinstance(e, Rejected)), None)
