"""Decides what one run is worth: hypervolume of the noise-free values of all it evaluated, and of what it reports."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import moocore
import numpy as np

from benchmarks.cluster.quality.contestants import ON_GRID, ON_PROBLEMS, OURS, Entry
from benchmarks.cluster.quality.database import Database
from benchmarks.cluster.quality.grid import Grid, shuffled
from benchmarks.cluster.quality.problems import Cube, problem
from benchmarks.cluster.quality.steady import World, run
from population.archive import Archive
from population.objectives import FloatArray
from search.indicators import hypervolume

GRID = "grid"
CHECKPOINTS = (0.25, 0.5, 1.0)
"""Shares of the budget after which the hypervolume is taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One run: who, on what, with how many children pending, for how many."""

    space: str
    contestant: str
    slots: int
    children: int
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Of one run; volumes are shares of the true front's."""

    job: Job
    children: int
    found: tuple[float, ...]
    """Of everything evaluated, at the checkpoints."""
    reported: float
    """Of what the run reports as its front."""
    members: int
    """Reported."""
    cpu_s: float
    front: tuple[tuple[float, ...], ...]
    """True costs of the non-dominated among all that were evaluated."""

    def plain(self) -> dict[str, object]:
        return asdict(self)


def world_of(job: Job) -> tuple[World, Entry]:
    world: World = Grid(job.seed) if job.space == GRID else Cube(problem(job.space), job.seed)
    recipes = {r.name: r for r in shuffled(job.seed).recipes} if job.space == GRID else {}
    return world, Entry(recipes=dict(sorted(recipes.items())), slots=job.slots, seed=job.seed, best_M=world.best_M)


def measure(job: Job, database: Database | None) -> Result:
    """One run."""
    world, entry = world_of(job)
    contestants = ON_GRID if job.space == GRID else ON_PROBLEMS
    policy = contestants[job.contestant](entry.with_database(database))
    started_s = time.process_time()
    course = run(world, policy, job.slots, job.children, job.seed)
    cpu_s = time.process_time() - started_s
    costs_NM = np.array([world.true_costs(member) for member in world.archive.scored])
    numbers = list(world.archive.children)
    ended = {f"c{number:06d}": position for position, number in enumerate(numbers)}
    when_N = np.array([ended[member] for member in world.archive.scored])
    chosen = [world.true_costs(member) for member in reported(world.archive, job.contestant)]
    return Result(
        job=job,
        children=course.children,
        found=tuple(_share(world, costs_NM[when_N <= share * job.children]) for share in CHECKPOINTS),
        reported=_share(world, np.array(chosen)),
        members=len(chosen),
        cpu_s=cpu_s,
        front=tuple(tuple(map(float, row)) for row in _front(costs_NM, world.reference_M)),
    )


def reported(archive: Archive, contestant: str) -> Sequence[str]:
    """Ours: the noise-aware front. The others know no noise: the non-dominated of all measured values."""
    if contestant.startswith(OURS):
        return archive.front
    ids = archive.scored
    return [ids[row] for row in np.flatnonzero(moocore.is_nondominated(archive.costs_of(ids)))]


def _share(world: World, costs_NM: FloatArray) -> float:
    return hypervolume(costs_NM, world.reference_M) / world.volume


def _front(costs_NM: FloatArray, reference_M: FloatArray) -> FloatArray:
    inside = costs_NM[(costs_NM < reference_M).all(axis=1)]
    best: FloatArray = inside[moocore.is_nondominated(inside)] if len(inside) else inside
    return best


def result(data: Mapping[str, Any]) -> Result:
    """What `Result.plain` and JSON made of a result."""
    front = tuple(tuple(row) for row in data["front"])
    return Result(**{**data, "job": Job(**data["job"]), "found": tuple(data["found"]), "front": front})
