"""Decides what each operator and skill is worth: children, yield, hypervolume gained, and for what time."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

from population.candidate import Child, Proposal
from vibeserve.dashboard.course import steps
from vibeserve.follower import Followed


def operators(run: Followed) -> dict[str, Any]:
    """Rows by operator, and by the skill whose recipe was applied; the seed is none of them."""
    return run.kept("operators", lambda: {"revision": run.revision, **_operators(run)})


def _operators(run: Followed) -> dict[str, Any]:
    gained = {step.number: step.gained for step in steps(run)}
    return {
        "objectives": [o.name for o in run.state.archive.objectives],
        "operators": _grouped(run, gained, lambda p: str(p.operator)),
        "skills": _grouped(run, gained, lambda p: p.recipe or ""),
        "models": [],
        "why_no_models": _why_no_models(run),
    }


def _why_no_models(run: Followed) -> str:
    if any(str(c.proposal.operator) in ("agent", "repair") for c in run.state.archive.children.values()):
        return "Agents wrote some children, but the ledger does not record which model they used."
    return "No language model was called: every child came from a recipe, from knobs or from a merge."


def _grouped(run: Followed, gained: Mapping[int, float], name_of: Callable[[Proposal], str]) -> list[dict[str, Any]]:
    groups: dict[str, list[Child]] = defaultdict(list)
    for number, child in run.state.archive.children.items():
        if number > 0 and (name := name_of(child.proposal)):
            groups[name].append(child)
    rows = [_row(run, name, children, gained) for name, children in groups.items()]
    return sorted(rows, key=lambda row: (-row["gained"], -row["children"]))


def _row(run: Followed, name: str, children: list[Child], gained: Mapping[int, float]) -> dict[str, Any]:
    archive = run.state.archive
    scored, front = frozenset(archive.scored), frozenset(archive.front)
    seconds = sum(child.cost_s for child in children)
    total = sum(gained.get(child.proposal.number, 0.0) for child in children)
    return {
        "name": name,
        "children": len(children),
        "scored": sum(child.proposal.id in scored for child in children),
        "front": sum(child.proposal.id in front for child in children),
        "gained": total,
        "seconds": seconds,
        "gained_per_hour": total / seconds * 3600 if seconds else None,
        "over_parent": {o.name: _over_parent(run, o.name, children) for o in archive.objectives},
        "best": max(children, key=lambda child: gained.get(child.proposal.number, 0.0)).proposal.id,
    }


def _over_parent(run: Followed, objective: str, children: list[Child]) -> float | None:
    """Geometric mean of how many times better the scored children are than their first parents; None for none."""
    archive = run.state.archive
    goal = next(o for o in archive.objectives if o.name == objective)
    scored = frozenset(archive.scored)
    logs = []
    for child in children:
        parents = child.proposal.parents
        if child.proposal.id in scored and parents and parents[0] in scored:
            mine, theirs = (archive.estimates(n)[objective].value for n in (child.proposal.id, parents[0]))
            ratio = goal.gain(mine, theirs)
            if 0 < ratio < math.inf:
                logs.append(math.log(ratio))
    return math.exp(math.fsum(logs) / len(logs)) if logs else None
