"""What Ray keeps where it can no longer begin is moved, and who was given to a dying worker is not charged with it."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest

from evaluators.evaluator import EvaluationTask, Lease
from population.evaluation import Evaluation, Stage
from tests.cluster.racks import Racks, until
from tests.contracts.executor_contract import drain, measure
from tests.vibeserve.recorded import RecordedEvaluator, toy_kit
from vibeserve.cluster import connection
from vibeserve.cluster.deaths import Deaths
from vibeserve.cluster.errands import Reply
from vibeserve.cluster.placement import Placement
from vibeserve.cluster.ray_executor import RayExecutor
from vibeserve.cluster.selectors import Demand
from vibeserve.cluster.strays import Flight
from vibeserve.executor import Evaluated, Fault
from vibeserve.workshop import Kit


@dataclass(frozen=True)
class Held:
    """Notes on which node an evaluation began; it goes on until `<node>-free` is there."""

    folder: Path

    def evaluate(self, task: EvaluationTask, lease: Lease, progress: Callable[[Stage], None]) -> Evaluation:
        import ray

        node = ray.get_runtime_context().get_node_labels()["name"]
        (self.folder / f"{task.candidate} on {node}").touch()
        while not (self.folder / f"{node}-free").exists():
            time.sleep(0.01)
        return RecordedEvaluator().evaluate(task, lease, progress)


@pytest.fixture
def racks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Racks]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    cluster = Racks()
    cluster.add("a", cpus=1)
    connection.connect(cluster.address)
    yield cluster
    cluster.close()


def begun(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("* on *")}


def executor_of(kit: Kit) -> RayExecutor:
    return RayExecutor(kit, Placement(Demand(cpus=1)))


def test_a_node_that_joins_takes_what_waits_for_another(racks: Racks, tmp_path: Path) -> None:
    kit = toy_kit(tmp_path, cast(Any, Held(tmp_path)))
    executor = executor_of(kit)
    try:
        executor.submit(measure("c000001", kit))
        until("the first to begin", lambda: not executor.wait(0.1) and begun(tmp_path) == {"c000001 on a"})
        until("the board to know", lambda: "c000001" in executor.stages())
        executor.submit(measure("c000002", kit))
        racks.add("b", cpus=1)
        both = {"c000001 on a", "c000002 on b"}
        until("the second to begin on b", lambda: not executor.wait(0.1) and begun(tmp_path) == both)
        for node in "ab":
            (tmp_path / f"{node}-free").touch()
        assert all(isinstance(done.outcome, Evaluated) for done in drain(executor, 2))
        assert begun(tmp_path) == both, "the one that ran already was left alone"
        _given_to_a_dying_worker(executor, kit)
        _killed_by_our_recall(executor, kit)
    finally:
        executor.close()


def _given_to_a_dying_worker(executor: RayExecutor, kit: Kit) -> None:
    """Told by Ray of a crash of a task that never began: once it is submitted again, then it is a fault."""
    import ray

    task = measure("c000003", kit)
    flight = Flight(task.key, task, ray.put(None), time.monotonic(), {})
    crash = ray.exceptions.WorkerCrashedError()
    executor._deaths.died(time.monotonic() + 60)
    assert executor._failed(flight, crash, recalled=False) is None
    (done,) = drain(executor, 1)
    assert done.key == "c000003" and isinstance(done.outcome, Evaluated), "it was not submitted again"
    executor._deaths.died(time.monotonic() + 60)
    assert executor._failed(flight, crash, recalled=False) is None, "its result ended the matter"
    drain(executor, 1)
    executor._deaths = Deaths()
    fault = executor._failed(flight, crash, recalled=False)
    assert isinstance(fault, Fault) and "WorkerCrashedError" in fault.reason


def _killed_by_our_recall(executor: RayExecutor, kit: Kit) -> None:
    """Its server was killed before its worker was, which told of it: as little its node's fault as its own."""
    import ray

    task = measure("c000004", kit)
    flight = Flight(task.key, task, ray.put(None), time.monotonic(), {})
    told = Future[bytes]()
    told.set_result(pickle.dumps(Reply(outcome=Fault(reason="its server was killed"), node="a")))
    executor._recalled.add(flight.ref)
    assert executor._outcome(flight, told) is None
    (done,) = drain(executor, 1)
    assert done.key == "c000004" and isinstance(done.outcome, Evaluated), "it was not submitted again"
    assert isinstance(executor._outcome(flight, told), Fault), "nobody recalled it this time"


def test_a_task_is_spared_once_and_only_soon_after_another_death() -> None:
    deaths = Deaths()
    assert not deaths.may_spare("c000001", 10.0), "no worker was dying"
    deaths.died(10.0)
    assert deaths.may_spare("c000001", 10.5)
    assert not deaths.may_spare("c000001", 11.5)
    deaths.spare("c000001")
    assert not deaths.may_spare("c000001", 10.5)
    assert deaths.may_spare("c000002", 10.5)
    deaths.ended("c000001")
    assert deaths.may_spare("c000001", 10.5)
