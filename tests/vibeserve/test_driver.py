"""Invariants of the whole loop, on the toy target with recorded measurements and real commits.

I1  child numbers are contiguous, and each proposal ends exactly once
I2  every candidate's commit is in the repository under its ref, with the recorded tree, before its record
I3  no tree is evaluated twice
I4  the state is the replay of the ledger
I5  parents are scored candidates that ended before their child was proposed
I6  the front is the noise-aware front of everything scored
I7  budgets are kept
I8  a crash at any record, then a resume, gives the population of an undisturbed run and repeats at most one stage
"""

from __future__ import annotations

import json
import signal
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from population.candidate import Candidate, candidate_id
from population.disk import Disk
from population.errors import InfrastructureError, RunError
from population.evaluation import Rejected, Scored, Stage
from population.events import Ended, Event, MutationDone, Proposed, Stopped
from population.ledger import read_events
from population.replay import State
from population.repository import Repository
from tests.vibeserve.recorded import RecordedEvaluator, toy_config
from vibeserve.display import SilentDisplay
from vibeserve.growth import generations
from vibeserve.wiring import Parts, resume, run

CHILDREN = 12


class Crash(BaseException):
    """Stands for SIGKILL: nothing may catch it and go on."""


@dataclass
class CrashingDisk(Disk):
    """Dies at the n-th sync of a record: before the record reaches the disk, or right after it."""

    at: int
    written: bool
    count: int = 0

    def write(self, fd: int, data: bytes) -> int:
        self.count += 1
        if self.count == self.at and not self.written:
            raise Crash
        size = super().write(fd, data)
        if self.count >= self.at:
            raise Crash
        return size


@dataclass
class FullDisk(Disk):
    """Has room for a number of records."""

    room: int

    def write(self, fd: int, data: bytes) -> int:
        self.room -= 1
        if self.room < 0:
            return super().write(fd, data[: len(data) // 2])
        return super().write(fd, data)


def events_of(run_dir: Path) -> list[Event]:
    return list(read_events(run_dir / "ledger"))


def population_of(run_dir: Path) -> list[tuple[object, ...]]:
    """Everything that a run has found, without times and epochs."""
    state = State.replay(events_of(run_dir))
    rows: list[tuple[object, ...]] = []
    for number, child in sorted(state.archive.children.items()):
        commit = (child.commit, child.tree) if isinstance(child, Candidate) else None
        evaluation = child.evaluation
        found = dict(evaluation.samples) if isinstance(evaluation, Scored) else (evaluation.stage, evaluation.reason)
        rows.append((number, child.proposal, commit, found))
    return [*rows, state.archive.front, dict(state.pending)]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("undisturbed")
    return start(runs, f"budget.children={CHILDREN}")


def start(runs: Path, *overrides: str, parts: Parts | None = None) -> Path:
    """A run whose secret is fixed, so that it can be repeated to the last digit."""
    parts = parts or Parts(evaluator=RecordedEvaluator())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vibeserve.wiring.secrets.token_hex", lambda size: "5e" * size)
        return run(toy_config(runs, *overrides), SilentDisplay(), parts).run_dir


def test_each_proposal_ends_exactly_once(undisturbed: Path) -> None:  # I1
    events = events_of(undisturbed)
    proposed = [e.proposal.number for e in events if isinstance(e, Proposed)]
    ended = Counter(e.number for e in events if isinstance(e, Ended))
    assert proposed == list(range(CHILDREN + 1))
    assert ended == Counter(proposed)


def test_every_evaluation_is_recorded_with_its_place(undisturbed: Path) -> None:
    """And what was never evaluated has none."""
    events = events_of(undisturbed)
    made = {event.number for event in events if isinstance(event, MutationDone)}
    for event in (event for event in events if isinstance(event, Ended)):
        assert (event.place is not None) == (event.number in made)
        if event.place is not None:
            assert event.place.node and len(event.place.cpus) == 1 and event.place.gpus == ()


def test_commits_are_stored_under_their_refs(undisturbed: Path) -> None:  # I2
    repository = Repository.open(undisturbed / "population.git")
    made = [e for e in events_of(undisturbed) if isinstance(e, MutationDone)]
    assert len(made) > 3
    for event in made:
        assert repository.ref(candidate_id(event.number)) == event.commit
        assert repository.tree_of(event.commit) == event.tree


def test_no_tree_is_evaluated_twice(undisturbed: Path) -> None:  # I3
    trees = Counter(e.tree for e in events_of(undisturbed) if isinstance(e, MutationDone))
    assert max(trees.values()) == 1


def test_parents_were_scored_before(undisturbed: Path) -> None:  # I5
    scored: set[str] = set()
    for event in events_of(undisturbed):
        if isinstance(event, Proposed):
            assert set(event.proposal.parents) <= scored
        elif isinstance(event, Ended) and isinstance(event.evaluation, Scored):
            scored.add(candidate_id(event.number))


def test_the_search_finds_the_good_and_refuses_the_wrong(undisturbed: Path) -> None:  # I4, I6
    state = State.replay(events_of(undisturbed))
    archive = state.archive
    assert not state.pending
    assert any("batching" in archive.candidates[i].genome.capabilities for i in archive.front)
    stages = {c.evaluation.stage for c in archive.children.values() if isinstance(c.evaluation, Rejected)}
    assert stages & {Stage.AUDIT, Stage.BOOT}
    best = max(archive.estimates(i)["output_throughput"].value for i in archive.front)
    assert best > 2 * archive.estimates("c000000")["output_throughput"].value


def test_the_same_seed_and_measurements_give_the_same_population(undisturbed: Path, tmp_path: Path) -> None:
    assert population_of(start(tmp_path, f"budget.children={CHILDREN}")) == population_of(undisturbed)


@pytest.mark.parametrize("written", [False, True], ids=["before-the-record", "after-the-record"])
def test_a_crash_at_any_record_changes_nothing(tmp_path: Path, written: bool) -> None:  # I8
    children = 4
    calm = start(tmp_path / "calm", f"budget.children={children}")
    expected = population_of(calm)
    records = len(events_of(calm))
    for at in range(3, records):
        runs = tmp_path / f"{at}"
        disk = CrashingDisk(at=at, written=written)
        with pytest.raises(Crash):
            start(runs, f"budget.children={children}", parts=Parts(evaluator=RecordedEvaluator(), disk=disk))
        (run_dir,) = runs.iterdir()
        resume(run_dir, (), SilentDisplay(), Parts(evaluator=RecordedEvaluator()))
        assert population_of(run_dir) == expected, f"crash at record {at}"


def test_a_full_disk_ends_the_driver_and_loses_nothing(tmp_path: Path) -> None:
    with pytest.raises(InfrastructureError, match="No space left on device"):
        start(tmp_path, "budget.children=6", parts=Parts(evaluator=RecordedEvaluator(), disk=FullDisk(room=9)))
    (run_dir,) = tmp_path.iterdir()
    before = events_of(run_dir)
    result = resume(run_dir, (), SilentDisplay(), Parts(evaluator=RecordedEvaluator()))
    assert result.stopped_because == "budget: children"
    assert events_of(run_dir)[: len(before)] == before


def test_budgets_are_kept_and_can_be_raised(tmp_path: Path) -> None:  # I7
    run_dir = start(tmp_path, "budget.children=2")
    resume(run_dir, ("budget.children=5",), SilentDisplay(), Parts(evaluator=RecordedEvaluator()))
    assert [e.proposal.number for e in events_of(run_dir) if isinstance(e, Proposed)] == [0, 1, 2, 3, 4, 5]
    last = events_of(run_dir)[-1]
    assert isinstance(last, Stopped)
    assert last.reason == "budget: children"


def test_wall_time_ends_the_search(tmp_path: Path) -> None:
    run_dir = start(tmp_path, "budget.wall_time_s=1.0", parts=Parts(evaluator=RecordedEvaluator(delay_s=0.3)))
    last = events_of(run_dir)[-1]
    assert isinstance(last, Stopped)
    assert last.reason == "budget: wall time"


def test_a_final_measurement_of_front_seed_and_baseline(tmp_path: Path) -> None:
    run_dir = start(tmp_path, "budget.children=4", "evaluation.final_repeats=2")
    state = State.replay(events_of(run_dir))
    subjects = {"c000000", "batched", *state.archive.front}
    assert set(state.finals) == {(subject, round_) for subject in subjects for round_ in (0, 1)}


def test_a_changed_target_is_refused(undisturbed: Path, tmp_path: Path) -> None:
    run_dir = start(tmp_path, "budget.children=1")
    checker = run_dir / "target" / "accuracy_checker" / "checker.py"
    checker.write_text(checker.read_text() + "\n# kinder\n")
    with pytest.raises(RunError, match="checker"):
        resume(run_dir, (), SilentDisplay(), Parts(evaluator=RecordedEvaluator()))


@pytest.mark.parametrize("override", ["seed=8", "evaluation.trace_seed=1", "evaluation.repeats=3"])
def test_a_resume_that_would_measure_something_else_is_refused(tmp_path: Path, override: str) -> None:
    run_dir = start(tmp_path, "budget.children=1")
    with pytest.raises(RunError, match=override.partition("=")[0]):
        resume(run_dir, (override,), SilentDisplay(), Parts(evaluator=RecordedEvaluator()))


def test_a_front_member_that_fails_its_final_measurement_leaves_the_front(tmp_path: Path) -> None:
    class Flaky(RecordedEvaluator):
        def evaluate(self, task, lease, progress):  # type: ignore[no-untyped-def]
            if task.candidate.startswith("f-c0000") and not task.candidate.startswith("f-c000000"):
                return Rejected(stage=Stage.AUDIT, reason="other tokens this time")
            return super().evaluate(task, lease, progress)

    run_dir = start(tmp_path, "budget.children=4", "evaluation.final_repeats=1", parts=Parts(evaluator=Flaky()))
    state = State.replay(events_of(run_dir))
    failed = {subject for (subject, _), final in state.finals.items() if isinstance(final.evaluation, Rejected)}
    assert failed
    assert not failed & set(state.archive.front)


def test_the_secret_is_disclosed_when_the_run_is_over(undisturbed: Path) -> None:
    last = events_of(undisturbed)[-1]
    assert isinstance(last, Stopped)
    assert last.disclosed == {"secret": (undisturbed / "secret").read_text()}


def test_a_rejected_seed_is_an_error_with_the_cause(tmp_path: Path) -> None:
    class Refusing(RecordedEvaluator):
        def evaluate(self, task, lease, progress):  # type: ignore[no-untyped-def]
            return Rejected(stage=Stage.BOOT, reason="it did not start", evidence="the last line of its log")

    with pytest.raises(RunError, match=r"(?s)rejected at stage 'boot': it did not start.*the last line of its log"):
        start(tmp_path, parts=Parts(evaluator=Refusing()))


def test_an_internal_error_is_one_childs_problem(tmp_path: Path) -> None:
    run_dir = start(tmp_path, "budget.children=6", parts=Parts(evaluator=RecordedEvaluator(explode=True)))
    reasons = [
        c.evaluation.reason
        for c in State.replay(events_of(run_dir)).archive.children.values()
        if isinstance(c.evaluation, Rejected)
    ]
    assert any("ZeroDivisionError" in reason for reason in reasons)


def test_the_first_interrupt_drains(tmp_path: Path) -> None:
    class Interrupting(RecordedEvaluator):
        def evaluate(self, task, lease, progress):  # type: ignore[no-untyped-def]
            if task.candidate == "c000002":
                signal.raise_signal(signal.SIGINT)
            return super().evaluate(task, lease, progress)

    run_dir = start(tmp_path, "budget.children=9", parts=Parts(evaluator=Interrupting()))
    events = events_of(run_dir)
    assert [e.number for e in events if isinstance(e, Ended)] == [0, 1, 2]
    last = events[-1]
    assert isinstance(last, Stopped)
    assert last.reason == "interrupted"


def test_files_of_a_child_are_kept(undisturbed: Path) -> None:
    assert (undisturbed / "children" / "c000001" / "server.log").read_text() == "recorded\n"


def test_ledger_is_strict_json(undisturbed: Path) -> None:
    lines = [
        line for path in sorted((undisturbed / "ledger").glob("*.jsonl")) for line in path.read_text().splitlines()
    ]
    kinds = [json.loads(line)["event"]["kind"] for line in lines]
    assert kinds[:3] == ["epoch_started", "run_started", "proposed"]


@pytest.mark.parametrize("policy", ["evolve", "nsga2", "random"])
def test_generations_with_a_barrier(tmp_path: Path, policy: str) -> None:
    run_dir = start(tmp_path, "budget.children=6", "search.barrier=true", "search.generation_size=3",
                    f"search.policy={policy}")  # fmt: skip
    archive = State.replay(events_of(run_dir)).archive
    progress = generations(archive, 3)
    assert [g.children for g in progress] == [3, 3]
    assert progress[0].hypervolume <= progress[1].hypervolume


def test_time_that_is_left_measures_the_front_once_more(tmp_path: Path) -> None:
    run_dir = start(tmp_path, "budget.children=4", "budget.wall_time_s=3.0")
    state = State.replay(events_of(run_dir))
    assert state.next_remeasure > 0
    assert not state.remeasuring
    assert all(state.archive.estimates(i)["output_throughput"].n > 1 for i in state.archive.front)
