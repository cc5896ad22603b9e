"""Decides what the family tree shows and where each candidate stands in it, and which line led to the best."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import Any

from population.archive import Archive
from vibeserve.dashboard.measures import point
from vibeserve.follower import Followed
from vibeserve.front_rows import SEED, label_of

MOST_NODES = 800


def lineage(run: Followed, best_in: str) -> dict[str, Any]:
    """Scored candidates by generation: the best line, the lines of the front, then those of the best of the rest.

    Lines are left out where the tree would have more than `MOST_NODES`; `without_line` counts such front members.

    `best_in` names an objective; anything else means the best on the whole (least total cost).
    """
    return run.kept(("lineage", best_in), lambda: {"revision": run.revision, **_lineage(run, best_in)})


def _lineage(run: Followed, best_in: str) -> dict[str, Any]:
    archive = run.state.archive
    if not archive.scored:
        return {"nodes": [], "edges": [], "path": [], "steps": [], "total": 0, "objectives": []}
    objective = next((o for o in archive.objectives if o.name == best_in), None)
    best = archive.front[0]
    if objective is not None:
        best = min(archive.front, key=lambda name: objective.cost(archive.estimates(name)[objective.name].value))
    shown = _chosen(archive, best)
    places = _places(archive, shown)
    path = line_of(archive, best)
    front = frozenset(archive.front)
    drawn, scored = frozenset(shown), frozenset(archive.scored)
    nodes = [
        {
            "id": name,
            "x": places[name][0],
            "y": places[name][1],
            "front": name in front,
            "operator": str(archive.candidates[name].proposal.operator),
            "label": label_of(archive.candidates[name].proposal),
            "gains": _gains(archive, scored, SEED, name),
        }
        for name in shown
    ]
    edges = [
        [parent, name, order]
        for name in shown
        for order, parent in enumerate(archive.candidates[name].proposal.parents)
        if parent in places
    ]
    return {
        "nodes": nodes,
        "edges": edges,
        "path": path,
        "steps": [_step(archive, scored, before, after) for before, after in zip([None, *path], path, strict=False)],
        "total": len(archive.scored),
        "without_line": sum(name not in drawn for name in archive.front),
        "objectives": [{"name": o.name, "unit": o.unit or ""} for o in archive.objectives],
    }


def line_of(archive: Archive, name: str) -> list[str]:
    """First parents from the seed to the candidate."""
    line = [name]
    while parents := archive.candidates[line[-1]].proposal.parents:
        if parents[0] not in archive.candidates:
            break
        line.append(parents[0])
    return line[::-1]


def _chosen(archive: Archive, best: str) -> list[str]:
    """Ids in order of their number; every one's first parents are there, too."""
    totals = archive.costs_of(archive.scored).sum(axis=1)
    ranked = sorted(zip(totals, archive.scored, strict=True))[:MOST_NODES]
    chosen = dict.fromkeys(line_of(archive, best))
    for name in (*archive.front, *(name for _, name in ranked)):
        line = [ancestor for ancestor in line_of(archive, name) if ancestor not in chosen]
        if len(chosen) + len(line) <= MOST_NODES:
            chosen.update(dict.fromkeys(line))
    return sorted(chosen)


def _places(archive: Archive, shown: Iterable[str]) -> dict[str, tuple[int, float]]:
    """(generation, row): leaves in rows of their own, parents in the middle of their children."""
    names = list(shown)
    children: dict[str | None, list[str]] = {}
    known = frozenset(names)
    for name in names:
        parents = archive.candidates[name].proposal.parents
        children.setdefault(parents[0] if parents and parents[0] in known else None, []).append(name)
    places: dict[str, tuple[int, float]] = {}
    row = 0.0
    stack = [(root, 0, False) for root in reversed(children.get(None, []))]
    while stack:
        name, depth, left = stack.pop()
        below = children.get(name, [])
        if left:
            places[name] = (depth, sum(places[c][1] for c in below) / len(below))
        elif below:
            stack.append((name, depth, True))
            stack.extend((child, depth + 1, False) for child in reversed(below))
        else:
            places[name], row = (depth, row), row + 1
    return places


def _gains(archive: Archive, scored: Set[str], before: str, after: str) -> Mapping[str, float] | None:
    """How many times better than `before`; None where one of both has no measurements."""
    if before not in scored or after not in scored:
        return None
    old, new = archive.estimates(before), archive.estimates(after)
    return {o.name: float(f"{o.gain(new[o.name].value, old[o.name].value):.4g}") for o in archive.objectives}


def _step(archive: Archive, scored: Set[str], before: str | None, after: str) -> dict[str, Any]:
    proposal = archive.candidates[after].proposal
    known = archive.estimates(after) if after in scored else None
    return {
        "id": after,
        "operator": str(proposal.operator),
        "label": label_of(proposal),
        "parents": proposal.parents,
        "gains": _gains(archive, scored, before, after) if before else None,
        "values": [point(known[o.name]) for o in archive.objectives] if known else None,
    }
