"""The benchmark of search quality measures what it says: shares of the true front, full slots, noise-free values."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.cluster.quality.__main__ import jobs, recorded
from benchmarks.cluster.quality.contestants import (
    GENERATIONAL,
    ON_GRID,
    ON_PROBLEMS,
    OPENEVOLVE,
    OURS,
    RANDOM,
    STEADY,
)
from benchmarks.cluster.quality.measure import GRID, Job, measure, reported, world_of
from benchmarks.cluster.quality.plots import write_plot
from benchmarks.cluster.quality.problems import Cube, problem
from benchmarks.cluster.quality.steady import run
from benchmarks.cluster.quality.tables import tables
from benchmarks.cluster.quality.vectors import GenerationalNsga2, Uniform
from population.archive import Archive
from population.candidate import Proposal
from search.indicators import hypervolume
from search.policy import Policy

JOB = Job(space="zdt1", contestant=STEADY, slots=10, children=150, seed=3)


class Watched:
    """A policy that notes how many children were pending at each of its proposals."""

    def __init__(self, inner: Policy) -> None:
        self.inner = inner
        self.pending: dict[int, list[int]] = {}

    def propose(
        self, archive: Archive, pending: Sequence[Proposal], number: int, rng: np.random.Generator
    ) -> Proposal | None:
        found = self.inner.propose(archive, pending, number, rng)
        if found is not None:
            self.pending[number] = [proposal.number for proposal in pending]
        return found

    def remeasure(self, archive: Archive, pending: Sequence[str], rng: np.random.Generator) -> str | None:
        return None


class Shelf:
    """A stand-in for OpenEvolve's database: the member with the best score is every child's parent."""

    def __init__(self) -> None:
        self.scores: dict[str, float] = {}

    def reset(self, seed: int, features: Sequence[str]) -> None:
        self.scores = {}

    def sample(self, island: int) -> tuple[str, list[str]]:
        return max(self.scores, key=lambda member: self.scores[member]), list(self.scores)

    def add(self, member: str, parent: str | None, island: int | None, metrics: Mapping[str, float]) -> None:
        self.scores[member] = metrics["combined_score"]


@pytest.mark.parametrize("name", ["zdt1", "zdt2", "zdt3", "dtlz2", "wfg4", "wfg9"])
def test_the_true_front_has_the_whole_volume(name: str) -> None:
    space = problem(name)
    front = np.asarray(space.pymoo.pareto_front())
    share = hypervolume((front - space.ideal_M) / (space.nadir_M - space.ideal_M), space.reference_M) / space.volume
    # 100 to 136 points leave gaps.
    assert 0.85 < share <= 1.0


@pytest.mark.parametrize("name", ["dtlz2", "wfg4", "wfg9"])
def test_the_fronts_whose_volume_is_a_formula_are_the_sphere(name: str) -> None:
    space = problem(name)
    front = np.asarray(space.pymoo.pareto_front()) / space.nadir_M
    assert np.linalg.norm(front, axis=1) == pytest.approx(np.ones(len(front)), abs=0.01)


def test_a_point_costs_what_the_problem_says_and_is_measured_with_noise() -> None:
    world = Cube(problem("zdt1"), seed=1)
    run(world, Uniform(), slots=4, children=200, seed=1)
    measured = world.archive.costs_of(world.archive.scored)
    true = np.array([world.true_costs(member) for member in world.archive.scored])
    assert 0.04 < (measured - true).std() < 0.06
    point = world.points["c000007"]
    assert world.true_costs("c000007") == pytest.approx(np.asarray(world.problem.pymoo.evaluate(point)))


def test_every_slot_is_pending_whenever_a_child_is_drawn() -> None:
    watched = Watched(Uniform())
    course = run(Cube(problem("zdt1"), seed=1), watched, slots=7, children=40, seed=1)
    assert course.children == 40
    assert all(len(pending) == min(number - 1, 6) for number, pending in watched.pending.items())
    assert all(pending == sorted(pending) for pending in watched.pending.values())


def test_generations_wait_for_their_last_child() -> None:
    watched = Watched(GenerationalNsga2(8, seed=1))
    run(Cube(problem("zdt1"), seed=1), watched, slots=8, children=40, seed=1)
    assert len(watched.pending) == 40
    assert all((number - 1) // 8 == (p - 1) // 8 for number, pending in watched.pending.items() for p in pending)


@pytest.mark.parametrize("contestant", [OURS, STEADY, GENERATIONAL, RANDOM])
def test_a_run_follows_its_seed(contestant: str) -> None:
    job = replace(JOB, contestant=contestant, children=30)
    first, again = measure(job, None), measure(job, None)
    assert first.children == 30
    assert replace(again, cpu_s=first.cpu_s) == first


def test_nsga2_is_ahead_of_random_search() -> None:
    runs = [
        [measure(replace(JOB, contestant=c, children=800, seed=s), None).found[-1] for s in range(3)]
        for c in (GENERATIONAL, RANDOM)
    ]
    assert np.mean(runs[0]) > np.mean(runs[1])


def test_ours_reports_the_noise_aware_front_and_the_others_what_looked_best() -> None:
    world, entry = world_of(replace(JOB, contestant=OURS))
    run(world, ON_PROBLEMS[OURS](entry), slots=4, children=60, seed=1)
    assert reported(world.archive, OURS) == world.archive.front
    plain = reported(world.archive, STEADY)
    measured = world.archive.costs_of(world.archive.scored)
    assert len(plain) >= len(world.archive.front)
    for member in plain:
        assert not (
            (measured <= world.archive.costs(member)).all(axis=1) & (measured < world.archive.costs(member)).any(axis=1)
        ).any()


@pytest.mark.parametrize("space", ["wfg4", GRID])
def test_openevolve_s_database_chooses_the_parent(space: str) -> None:
    world, entry = world_of(Job(space=space, contestant=OPENEVOLVE, slots=3, children=12, seed=1))
    shelf = Shelf()
    policy = (ON_GRID if space == GRID else ON_PROBLEMS)[OPENEVOLVE](replace(entry, database=shelf))
    course = run(world, policy, slots=3, children=12, seed=1)
    assert 0 < course.children <= 12
    assert "c000000" in shelf.scores
    assert set(shelf.scores) <= set(world.archive.scored)
    assert all(0 < score <= 1.2 for score in shelf.scores.values())


def test_what_is_recorded_is_read_again_and_told(tmp_path: Path) -> None:
    wanted = list(jobs(range(2), ["zdt1", GRID], [OURS, RANDOM], [10]))
    assert [job.seed for job in wanted] == [0] * 4 + [1] * 4
    results = [measure(replace(job, children=12), None) for job in wanted]
    (tmp_path / "runs-0.jsonl").write_text("".join(json.dumps(r.plain()) + "\n" for r in results))
    read = recorded(tmp_path)
    assert list(read.values()) == results
    text = tables(results)
    assert "of 2, " in text
    assert "| 10 | grid | 12 | 2 |" in text
    write_plot(tmp_path / "picture.png", results)
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
