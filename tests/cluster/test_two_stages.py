"""Two stages through the real driver, in virtual time: slots stay busy, twins and hangs and kills cost little."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from population.archive import Archive
from population.candidate import Candidate
from population.evaluation import Rejected, Scored, Stage
from population.events import Ended, Event, Faulted, MutationDone, Proposed, Remeasured, RemeasureStarted
from population.ledger import read_events
from population.replay import State
from tests.cluster.simulated import AlwaysTheSeed, SimulatedCluster, Workload, busy, rules_for, simulate, steady
from vibeserve.driver import Tick
from vibeserve.executor import Fault, MeasureTask, Mutated, Outcome, Task

WORKLOAD = Workload(seed=1, unit_s=60.0)


def events_of(folder: Path) -> list[Event]:
    return list(read_events(folder / "ledger"))


@pytest.mark.parametrize(("slots", "mutation"), [(1, 1.0), (8, 0.01), (8, 1.0), (32, 4.0)])
def test_no_slot_waits_for_a_mutation(tmp_path: Path, slots: int, mutation: float) -> None:
    """From a mutation that takes no time, where nothing is done ahead, to one of eight times an evaluation."""
    cluster = SimulatedCluster(slots, replace(WORKLOAD, mutation=mutation))
    simulate(cluster, tmp_path, rules_for(60 * slots + 60))
    assert busy(cluster, *steady(cluster)) >= 0.95


def test_the_queue_stays_between_its_marks(tmp_path: Path) -> None:
    """A mutator that is much faster than the evaluators does not run away from them."""
    cluster, waiting = SimulatedCluster(8, replace(WORKLOAD, mutation=0.2)), list[int]()

    def watch(tick: Tick) -> None:
        if isinstance(tick.event, Proposed | MutationDone):
            waiting.append(len(tick.jobs()) - 8)

    simulate(cluster, tmp_path, rules_for(200, queue_low=2, queue_high=5), watch=watch)
    assert 4 <= max(waiting[20:]) <= 16


def test_the_cap_on_mutations_is_kept(tmp_path: Path) -> None:
    cluster = SimulatedCluster(16, replace(WORKLOAD, mutation=4.0))
    simulate(cluster, tmp_path, rules_for(120, mutations=7))
    spans = [(begin, begin + cluster.workload.mutation_s(key)) for key, begin in cluster.mutations]
    most = max(sum(begin <= moment < end for begin, end in spans) for moment, _ in spans)
    assert most == 7


class Twins(SimulatedCluster):
    """Each mutation comes to one of few trees, many at the same moment."""

    def mutated(self, task: Task) -> Outcome:
        made = super().mutated(task)
        assert isinstance(made, Mutated)
        return replace(made, tree=f"{int(task.key[1:]) % 5:040x}")


def test_no_tree_is_evaluated_twice_also_when_twins_arrive_together(tmp_path: Path) -> None:
    cluster = Twins(8, Workload(seed=1, unit_s=0.0))
    state = simulate(cluster, tmp_path, rules_for(40))
    made = [event for event in events_of(tmp_path) if isinstance(event, MutationDone)]
    assert len(made) == 6 and max(Counter(event.tree for event in made).values()) == 1
    assert len(cluster.begun) == 6
    verdicts = [child.evaluation for child in state.archive.children.values() if not isinstance(child, Candidate)]
    assert len(verdicts) == 35
    assert all(isinstance(verdict, Rejected) and verdict.stage is Stage.DEDUPE for verdict in verdicts)


class Hanging(SimulatedCluster):
    """The first attempt at some tasks never ends."""

    def __init__(self, slots: int, workload: Workload, hang: set[str]) -> None:
        super().__init__(slots, workload)
        self.hang = hang

    def _run(self, task: Task, outcome: Outcome, now_s: float, elapsed_s: float) -> None:
        stage = f"{'measure' if isinstance(task, MeasureTask) else 'mutate'} {task.key}"
        if stage in self.hang:
            self.hang.remove(stage)
            elapsed_s = 1e9
        super()._run(task, outcome, now_s, elapsed_s)


def test_what_hangs_is_ended_and_tried_again_and_not_charged(tmp_path: Path) -> None:
    cluster = Hanging(4, WORKLOAD, {"mutate c000060", "measure c000070"})
    state = simulate(cluster, tmp_path, rules_for(100))
    assert set(cluster.cancelled) == {"c000060", "c000070"} and not cluster.hang
    assert len(state.archive.children) == 101 and not state.pending
    for name in ("c000060", "c000070"):
        assert isinstance(state.archive.candidates[name].evaluation, Scored)
    faulted = [event for event in events_of(tmp_path) if isinstance(event, Faulted)]
    assert {event.key for event in faulted} == {"c000060", "c000070"}
    assert all("no result after" in event.reason for event in faulted)


class Stuck(SimulatedCluster):
    """No attempt at one child's mutation ever ends."""

    def _run(self, task: Task, outcome: Outcome, now_s: float, elapsed_s: float) -> None:
        super()._run(task, outcome, now_s, 1e9 if task.key == "c000020" else elapsed_s)


def test_a_mutation_that_always_hangs_ends_its_child_and_not_the_run(tmp_path: Path) -> None:
    cluster = Stuck(4, WORKLOAD)
    state = simulate(cluster, tmp_path, rules_for(200))
    assert cluster.cancelled == ["c000020"] * 3 and len(state.archive.children) == 201 and not state.pending
    verdict = state.archive.children[20].evaluation
    assert isinstance(verdict, Rejected) and verdict.stage is Stage.MUTATE and "no result after" in verdict.reason
    assert [event.attempt for event in events_of(tmp_path) if isinstance(event, Faulted)] == [1, 2]


class Losing(SimulatedCluster):
    """A node with half of the evaluations is lost once, at a moment when its slots are busy."""

    def __init__(self, slots: int, workload: Workload) -> None:
        super().__init__(slots, workload)
        self.lost: list[str] = []

    def evaluated(self, task: MeasureTask) -> Outcome:
        if 20 <= int(task.key[1:]) < 24 and task.key not in self.lost:
            self.lost.append(task.key)
            return Fault(reason=f"{task.key}: NodeDiedError")
        return super().evaluated(task)


def test_the_tasks_of_a_lost_node_are_restarted_before_everything_that_waits(tmp_path: Path) -> None:
    cluster = Losing(4, WORKLOAD)
    state = simulate(cluster, tmp_path, rules_for(60))
    assert sorted(cluster.lost) == ["c000020", "c000021", "c000022", "c000023"]
    begun = [key for key, _ in cluster.begun]
    for name in cluster.lost:
        first, second = (place for place, key in enumerate(begun) if key == name)
        assert second - first <= 2 * cluster.evaluate_slots, "it went to the end of the queue"
        assert isinstance(state.archive.candidates[name].evaluation, Scored)
    assert not state.pending and len(state.archive.children) == 61


class Curious(AlwaysTheSeed):
    """Measures the seed again whenever it is asked."""

    def remeasure(self, archive: Archive, pending: object, rng: np.random.Generator) -> str | None:  # type: ignore[override]
        return "c000000"


def test_re_measurements_fill_idle_slots_and_give_way_to_children(tmp_path: Path) -> None:
    """A slow LLM leaves the slots idle; a child that is ready begins all the same at the moment it is."""
    cluster = SimulatedCluster(2, replace(WORKLOAD, mutation=4.0))
    rules = replace(rules_for(40, mutations=4), remeasure=True)
    state = simulate(cluster, tmp_path, rules, Curious())
    made = {key: begin + cluster.workload.mutation_s(key) for key, begin in cluster.mutations}
    late = {key: begin - made[key] for key, begin in cluster.begun if key in made}
    alone = [key for key, moment in made.items() if not any(0 < moment - other < 60 for other in made.values())]
    assert len(alone) >= 10
    assert max(late[key] for key in alone) <= 1.0, "a child waited for a re-measurement"
    assert cluster.cancelled and state.next_remeasure > 5
    events = events_of(tmp_path)
    started = [event.index for event in events if isinstance(event, RemeasureStarted)]
    ended = [event.index for event in events if isinstance(event, Remeasured)]
    assert sorted(started) == sorted(ended) == list(range(state.next_remeasure))


class Killed(BaseException):
    """Stands for SIGKILL."""


def test_after_a_kill_what_is_mutated_is_evaluated_and_nothing_is_mutated_again(tmp_path: Path) -> None:
    def kill(tick: Tick) -> None:
        if isinstance(tick.event, Ended) and tick.event.number == 30:
            raise Killed

    first = SimulatedCluster(4, WORKLOAD)
    with pytest.raises(Killed):
        simulate(first, tmp_path, rules_for(60), watch=kill)
    before = State.replay(read_events(tmp_path / "ledger"))
    assert len(before.mutated) >= 2 and len(before.pending) > len(before.mutated)
    waiting = [f"c{number:06d}" for number in before.mutated]
    second = SimulatedCluster(4, WORKLOAD)
    state = simulate(second, tmp_path, rules_for(60))
    assert [key for key, _ in second.begun][: len(waiting)] == waiting, "in the order in which they were mutated"
    assert not {key for key, _ in second.mutations} & set(waiting)
    assert len(state.archive.children) == 61 and not state.pending
    ended = Counter(event.number for event in events_of(tmp_path) if isinstance(event, Ended))
    assert ended == Counter(range(61))


def test_the_same_latencies_in_the_same_order_give_the_same_records(tmp_path: Path) -> None:
    def recorded(folder: Path) -> list[str]:
        simulate(SimulatedCluster(8, WORKLOAD), folder, rules_for(80))
        return [repr(replace(event, time_s=0.0, active_s=0.0)) for event in events_of(folder)[1:-1]]

    assert recorded(tmp_path / "one") == recorded(tmp_path / "two")
