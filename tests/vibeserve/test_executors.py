"""Both executors keep the contract, and Ray's deaths become faults that lose nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from population.evaluation import Scored
from population.events import Faulted
from population.ledger import read_events
from population.replay import State
from tests.contracts.executor_contract import ExecutorContract, Make, child, drain
from tests.vibeserve.recorded import RecordedEvaluator, toy_config, toy_kit
from vibeserve import cluster
from vibeserve.display import SilentDisplay
from vibeserve.executor import Evaluated, Fault, Mutated
from vibeserve.inline import InlineExecutor
from vibeserve.machine import node_reports
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


class TestRay(ExecutorContract):
    @pytest.fixture
    def make(self, two_nodes: str) -> Make:
        def make(kit: object) -> cluster.RayExecutor:
            cluster.connect(two_nodes)
            return cluster.RayExecutor(kit, cluster.Demand(cpus=1))  # type: ignore[arg-type]

        return make

    def test_a_dead_worker_is_a_fault_that_may_be_retried(self, make: Make, tmp_path: Path) -> None:
        kit = toy_kit(tmp_path, RecordedEvaluator(die_once=tmp_path / "died"))
        executor = make(kit)
        try:
            executor.submit(child(1, kit, recipe="batching"))
            mutated, fault = drain(executor, 2)
            assert isinstance(mutated.outcome, Mutated)
            assert isinstance(fault.outcome, Fault)
            assert fault.outcome.retryable
            executor.submit(child(1, kit, recipe="batching"))
            assert isinstance(drain(executor, 2)[1].outcome, Evaluated)
        finally:
            executor.close()

    def test_slots_are_counted_by_label(self, two_nodes: str) -> None:
        cluster.connect(two_nodes)
        try:
            assert cluster.capacity(cluster.Demand(cpus=1)) == 2
            assert cluster.capacity(cluster.Demand(cpus=1, labels={"rack": "b"})) == 1
            assert cluster.capacity(cluster.Demand(cpus=1, gpus=1)) == 0
            assert cluster.capacity(cluster.pinned(cluster.Demand(cpus=1))) == 1
        finally:
            cluster.ray.shutdown()

    def test_the_doctor_attacks_every_node(self, two_nodes: str) -> None:
        reports = node_reports(two_nodes, allow_reduced=False)
        assert len(reports) == 2
        for report in reports:
            assert report.probe is not None, report.trouble
            assert (report.probe.unexpected, report.ok) == ((), True)
            assert report.probe.attacks >= 31
        assert not cluster.ray.is_initialized()

    def test_a_run_on_two_nodes_survives_a_dead_worker(self, two_nodes: str, tmp_path: Path) -> None:
        evaluator = RecordedEvaluator(die_once=tmp_path / "died", delay_s=0.05)
        config = toy_config(tmp_path / "runs", "budget.children=10", f"cluster.address={two_nodes}", executor="ray")
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
