"""Decides what the picture of a front shows: members, a fair thinning of the dominated, seed, baselines, held-out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from population.errors import UsageError
from population.statistics import Estimate
from vibeserve.dashboard.measures import Axis, axes, axis_json, axis_named, finals, point, values
from vibeserve.dashboard.service_level import service_level
from vibeserve.follower import Followed
from vibeserve.front_rows import SEED, label_of

MOST_DOMINATED = 1200
"""Points that a browser draws and a person tells apart; the picture says how many there are in all."""
_CELLS = 40
"""The dominated are thinned on a grid of so many cells a side, so that outliers stay."""


@dataclass(frozen=True, slots=True)
class _Plane:
    """The chosen axes with every scored candidate's estimates."""

    chosen: tuple[Axis, ...]
    columns: tuple[Mapping[str, Estimate], ...]

    def has(self, name: str) -> bool:
        return all(name in column for column in self.columns)

    def point(self, name: str) -> list[list[float]]:
        return [point(column[name]) for column in self.columns]


def front_picture(run: Followed, names: Sequence[str], level: str = "") -> dict[str, Any]:
    """The front over the axes of these names (two or three; none: the first two), under a service level.

    Raises:
        UsageError: fewer than two axes, or one that was never measured.
        ConfigError: the service level cannot be read.
    """
    possible = axes(run)
    wanted = list(names) or [axis.name for axis in possible[:2]]
    base = {"run": run.name, "revision": run.revision, "axes": [axis_json(axis) for axis in possible]}
    if not run.state.archive.scored:
        return {**base, "chosen": [], "front": [], "dominated": _nothing(), "level": None}
    if not 2 <= len(wanted) <= 3:
        raise UsageError(f"expected two or three axes, got {len(wanted)}")
    chosen = tuple(axis_named(run, name) for name in wanted)
    picture = run.kept(("front", tuple(wanted)), lambda: _picture(run, chosen))
    shown = [member["id"] for member in picture["front"]] + picture["dominated"]["ids"]
    return base | picture | {"level": service_level(run, level, chosen, shown)}


def _picture(run: Followed, chosen: tuple[Axis, ...]) -> dict[str, Any]:
    archive = run.state.archive
    plane = _Plane(chosen, tuple(values(run, axis) for axis in chosen))
    held_out = _Plane(chosen, tuple(finals(run.state, axis) for axis in chosen))
    members = [name for name in archive.front if plane.has(name)]
    measured = [name for name in held_out.columns[0] if held_out.has(name)]
    return {
        "chosen": [axis_json(axis) for axis in chosen],
        "front": [_member(run, plane, name) for name in members],
        "dominated": _dominated(run, plane, set(archive.front)),
        "seed": plane.point(SEED) if SEED in archive.scored and plane.has(SEED) else None,
        "baselines": {name: held_out.point(name) for name in measured if name not in archive.candidates},
        "held_out": {name: held_out.point(name) for name in measured if name in archive.candidates},
    }


def _member(run: Followed, plane: _Plane, name: str) -> dict[str, Any]:
    archive = run.state.archive
    proposal = archive.candidates[name].proposal
    gains = {}
    if SEED in archive.scored:
        seed, mine = archive.estimates(SEED), archive.estimates(name)
        gains = {o.name: o.gain(mine[o.name].value, seed[o.name].value) for o in archive.objectives}
    return {
        "id": name,
        "operator": str(proposal.operator),
        "label": label_of(proposal) or run.state.summaries.get(proposal.number, ""),
        "parents": proposal.parents,
        "point": plane.point(name),
        "values": [point(archive.estimates(name)[o.name]) for o in archive.objectives],
        "gains": gains,
    }


def _nothing() -> dict[str, Any]:
    return {"ids": [], "points": [], "total": 0}


def _dominated(run: Followed, plane: _Plane, front: set[str]) -> dict[str, Any]:
    names = [n for n in run.state.archive.scored if n not in front and n != SEED and plane.has(n)]
    if not names:
        return _nothing()
    grid = np.array([[column[name].value for column in plane.columns] for name in names])
    kept = thinned(grid, MOST_DOMINATED)
    rows = [[float(f"{value:.5g}") for value in grid[row]] for row in kept]
    return {"ids": [names[row] for row in kept], "points": rows, "total": len(names)}


def thinned(points_NA: np.ndarray[Any, np.dtype[np.float64]], most: int) -> list[int]:
    """Rows of at most `most` points: one of every occupied cell of a grid over the ranks first, then the rest in order.

    Ranks instead of values, so that one extreme value does not crowd all others into one cell.
    """
    count = len(points_NA)
    if count <= most:
        return list(range(count))
    ranks = np.argsort(np.argsort(points_NA[:, :2], axis=0, kind="stable"), axis=0, kind="stable")
    cells = ranks * _CELLS // count
    _, first = np.unique(cells[:, 0] * _CELLS + cells[:, 1], return_index=True)
    ends = np.concatenate([points_NA.argmin(axis=0), points_NA.argmax(axis=0)])
    order = np.concatenate([ends, first, np.linspace(0, count - 1, most, dtype=np.intp)])
    unique = list(dict.fromkeys(int(row) for row in order))
    return sorted(unique[:most])
