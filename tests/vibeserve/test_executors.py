"""Both executors keep the contract, and Ray's deaths become faults that lose nothing."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from population.evaluation import Scored
from population.events import Faulted
from population.ledger import read_events
from population.replay import State
from population.repository import Repository
from tests.contracts.executor_contract import ExecutorContract, Make, child, delta_of, drain, measure, mutated
from tests.vibeserve.recorded import TOY, RecordedEvaluator, toy_config, toy_kit
from vibeserve.cluster import connection, nodes, ray_executor
from vibeserve.cluster.placement import Placement
from vibeserve.cluster.selectors import Demand
from vibeserve.display import SilentDisplay
from vibeserve.executor import Delta, Evaluated, Fault
from vibeserve.inline import InlineExecutor
from vibeserve.machine import cluster_nodes
from vibeserve.wiring import Parts, run
from vibeserve.workshop import _FILES_BYTES, Workshop, _texts


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


class TestInline(ExecutorContract):
    @pytest.fixture
    def make(self) -> Make:
        return lambda kit: InlineExecutor(Workshop(kit))


@pytest.fixture(scope="module")
def two_nodes(cache: None) -> Iterator[str]:
    """A cluster of two nodes on this machine, one CPU each."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")  # loopback only
        patch.setenv("PYTHONPATH", os.getcwd())
        nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        nodes.add_node(num_cpus=1, labels={"rack": "b"})
        nodes.wait_for_nodes()
        yield nodes.address
        nodes.shutdown()


def orphan(data: bytes) -> object:
    """A reference to an object that is gone, because the process that owned it is."""
    import ray

    class Owner:
        def put(self) -> list[object]:
            return [ray.put(data)]

    owner: Any = ray.remote(num_cpus=0)(Owner).remote()
    (ref,) = ray.get(owner.put.remote())
    ray.kill(owner)
    return ref


class TestRay(ExecutorContract):
    @pytest.fixture
    def make(self, two_nodes: str) -> Make:
        def make(kit: object) -> ray_executor.RayExecutor:
            connection.connect(two_nodes)
            return ray_executor.RayExecutor(kit, Placement(Demand(cpus=1)))  # type: ignore[arg-type]

        return make

    def test_a_dead_worker_is_a_fault_that_may_be_retried(self, make: Make, tmp_path: Path) -> None:
        kit = toy_kit(tmp_path, RecordedEvaluator(die_once=tmp_path / "died"))
        executor = make(kit)
        try:
            made = mutated(executor, child(1, kit, recipe="batching"))
            task = measure("c000001", kit, commit=made.commit, chain=(delta_of(made),))
            executor.submit(task)
            fault = drain(executor, 1)[0].outcome
            assert isinstance(fault, Fault)
            assert fault.retryable
            executor.submit(task)
            assert isinstance(drain(executor, 1)[0].outcome, Evaluated)
        finally:
            executor.close()

    def test_a_delta_that_the_object_store_lost_is_put_again(self, make: Make, tmp_path: Path) -> None:
        """A worker that cannot fetch it says so: a fault that may be retried, and the next attempt has it."""
        kit = toy_kit(tmp_path, RecordedEvaluator())
        hub = Repository.open(tmp_path / "hub.git")
        unseen = hub.commit_tree(TOY / "seed", parents=(kit.seed_commit,), message="on no machine yet", number=9).sha
        delta = Delta(commit=unseen, data=hub.delta(unseen))
        executor = make(kit)
        assert isinstance(executor, ray_executor.RayExecutor)
        try:
            executor._parcels._refs[unseen] = orphan(delta.data)
            task = measure("c000009", kit, commit=unseen, chain=(delta,))
            executor.submit(task)
            fault = drain(executor, 1)[0].outcome
            assert isinstance(fault, Fault) and fault.retryable, fault
            assert "was lost on its way" in fault.reason
            executor.submit(task)
            assert isinstance(drain(executor, 1)[0].outcome, Evaluated)
        finally:
            executor.close()

    def test_a_delta_is_put_once_however_many_tasks_need_it(self, make: Make, tmp_path: Path) -> None:
        kit = toy_kit(tmp_path, RecordedEvaluator())
        executor = make(kit)
        assert isinstance(executor, ray_executor.RayExecutor)
        try:
            delta = Delta(commit="0" * 40, data=b"once")
            first, second = (executor._parcels.parcel((delta,)) for _ in range(2))
            assert first == second
            assert len(pickle.dumps(replace(child(1, kit), chain=()))) < 1000
        finally:
            executor.close()

    def test_slots_are_counted_by_label(self, two_nodes: str) -> None:
        connection.connect(two_nodes)
        try:
            assert nodes.capacity(Demand(cpus=1)) == 2
            assert nodes.capacity(Demand(cpus=1, labels={"rack": "b"})) == 1
            assert nodes.capacity(Demand(cpus=1, gpus=1)) == 0
        finally:
            connection.ray.shutdown()

    def test_the_doctor_attacks_every_node(self, two_nodes: str) -> None:
        states, mixed = cluster_nodes(two_nodes, allow_reduced=False)
        assert (len(states), mixed) == (2, None)
        for report in (state.facts.report for state in states if state.facts is not None):
            assert report.probe is not None, report.trouble
            assert (report.probe.unexpected, report.ok) == ((), True)
            assert report.probe.attacks >= 31
        assert not connection.ray.is_initialized()

    def test_a_run_on_two_nodes_survives_a_dead_worker(self, two_nodes: str, tmp_path: Path) -> None:
        evaluator = RecordedEvaluator(die_once=tmp_path / "died", delay_s=0.05)
        # A re-measurement that gives way kills its worker, too, and could excuse the death.
        options = ("budget.children=10", f"cluster.address={two_nodes}", "evaluation.remeasure=false")
        config = toy_config(tmp_path / "runs", *options, executor="ray")
        run_dir = run(config, SilentDisplay(), Parts(evaluator=evaluator)).run_dir
        events = list(read_events(run_dir / "ledger"))
        state = State.replay(events)
        assert len(state.archive.children) == 11
        assert not state.pending
        assert (tmp_path / "died").exists()
        faulted = {event.key for event in events if isinstance(event, Faulted)}
        assert faulted
        for key in faulted & set(state.archive.candidates):
            assert isinstance(state.archive.candidates[key].evaluation, Scored)


def test_of_what_is_kept_the_short_files_are_whole_and_the_long_ones_share_the_rest(tmp_path: Path) -> None:
    lines = "".join(f"line {i}\n" for i in range(20_000))
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_text(lines)
    (tmp_path / "stacks.txt").write_text("frame 1\n" * 1400)
    kept = dict(_texts(tmp_path))
    assert kept["stacks.txt"] == "frame 1\n" * 1400
    assert sum(map(len, kept.values())) <= _FILES_BYTES + 200
    for name in ("a.jsonl", "b.jsonl"):
        head, first, *_ = kept[name].splitlines()
        assert head.endswith("earlier bytes not kept]") and first.startswith("line ")
        assert kept[name].endswith("line 19999\n") and len(kept[name]) > 20_000
