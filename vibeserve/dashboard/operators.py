"""Decides what each operator and skill is worth: children, yield, hypervolume gained, and for what time."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

from population.candidate import Child, Proposal
from vibeserve.accounts import entry_json, spending_json, writer_of
from vibeserve.dashboard.course import steps
from vibeserve.dashboard.spending import account_of
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
        "models": _models(run, gained),
        "roles": _roles(run),
        "why_no_models": "No language model was asked: every child came from a recipe, from knobs or from a merge.",
    }


def _models(run: Followed, gained: Mapping[int, float]) -> list[dict[str, Any]]:
    """What each model's children gained, and what they cost; a model that only read has none."""
    spent = account_of(run)
    by_model: dict[str, list[Child]] = defaultdict(list)
    for number, cost in run.state.costs.items():
        model, child = writer_of(cost), run.state.archive.children.get(number)
        if model is not None and child is not None:
            by_model[model].append(child)
    rows = []
    for model, children in by_model.items():
        row, entry = _row(run, model, children, gained), spent.models[model]
        dollars = entry.bill.dollars
        per_dollar = row["gained"] / dollars if entry.bill.known and dollars else None
        rows.append({**row, **entry_json(entry), "children": len(children), "cost": entry.bill.text(),
                     "gained_per_dollar": per_dollar})  # fmt: skip
    return sorted(rows, key=lambda row: (-row["gained"], -row["children"]))


def _roles(run: Followed) -> list[dict[str, Any]]:
    return [
        {"role": spent.role, "model": spent.model, **spending_json([spent]), "seconds": spent.elapsed_s,
         "cost": due.text(), "why_unknown": due.why_unknown}
        for spent, due in account_of(run).roles
    ]  # fmt: skip


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
