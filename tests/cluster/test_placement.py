"""Where evaluations go: on matching nodes of one kind of hardware, one per GPU, several GPUs on one node."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from population.candidate import Operator, Proposal
from population.errors import ConfigError, InfrastructureError
from tests.cluster.racks import Racks, identify, names, until
from tests.contracts.executor_contract import drain
from tests.vibeserve.recorded import RecordedEvaluator, toy_kit
from vibeserve.cluster import connection, nodes
from vibeserve.cluster.placement import Placement
from vibeserve.cluster.ray_executor import RayExecutor
from vibeserve.cluster.selectors import ACCELERATOR_LABEL, Demand
from vibeserve.cluster.terms import Terms
from vibeserve.executor import Evaluated, Fault, MeasureTask, Mutated, MutateTask
from vibeserve.making import Makers
from vibeserve.mutators import Mutation

ONE_GPU = Demand(cpus=1, gpus=1)
H200 = Demand(cpus=1, gpus=1, labels={ACCELERATOR_LABEL: "H200"})


@pytest.fixture(scope="module")
def racks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Racks]:
    """Two nodes with two H200 each, one with two H100; the head has nothing."""
    patch = pytest.MonkeyPatch()
    patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    racks = Racks()
    try:
        racks.add("a", cpus=4, gpus=2)
        racks.add("b", cpus=4, gpus=2)
        racks.add("c", cpus=4, gpus=2, kind="H100")
        connection.connect(racks.address)
        yield racks
    finally:
        racks.close()
        patch.undo()


def seen(seconds: float) -> tuple[str, str, float, float]:
    """Node, GPUs, and from when to when; the clock is one for all nodes of this machine."""
    import ray

    begun_s = time.monotonic()
    time.sleep(seconds)
    labels = ray.get_runtime_context().get_node_labels()
    return labels.get("name", "head"), os.environ.get("CUDA_VISIBLE_DEVICES", "all"), begun_s, time.monotonic()


def evaluate(placement: Placement, count: int, seconds: float) -> list[tuple[str, str, float, float]]:
    """What so many evaluations see."""
    ray: Any = connection.ray
    task = ray.remote(seen)
    asked = [task.options(**placement.options(f"c{n:06d}")).remote(seconds) for n in range(count)]
    found: list[tuple[str, str, float, float]] = ray.get(asked, timeout=120)
    for number in range(count):
        placement.release(f"c{number:06d}")
    return found


def groups() -> list[dict[str, Any]]:
    """The cluster's placement groups that are not removed."""
    from ray.util.placement_group import placement_group_table

    return [row for row in placement_group_table().values() if row["state"] != "REMOVED"]


def test_evaluations_run_on_nodes_that_match_and_never_two_on_one_gpu(racks: Racks) -> None:
    placement = Placement(H200, Terms(identify=identify))
    assert placement.slots() == 4
    found = evaluate(placement, 8, 0.3)
    assert {node for node, *_ in found} == {"a", "b"}
    assert all(gpus in ("0", "1") for _, gpus, *_ in found)
    for one in found:
        for other in found:
            if one is not other and one[:2] == other[:2]:
                assert one[3] <= other[2] or other[3] <= one[2], f"{one} and {other} overlap"


@dataclass(frozen=True)
class SpyMutator:
    """Changes a file, and tells which GPUs it could see."""

    def mutate(self, folder: Path, proposal: Proposal, brief: str) -> Mutation:
        (folder / "note.txt").write_text(proposal.id)
        seen = os.environ.get("CUDA_VISIBLE_DEVICES", "all")
        return Mutation(summary="a note", changed=("note.txt",), trace=f"sees {seen!r}")


def test_a_mutation_sees_no_gpu_and_the_evaluation_that_follows_has_one_and_says_what_it_ran_on(
    racks: Racks, tmp_path: Path
) -> None:
    makers = Makers(mutators={Operator.TUNE: SpyMutator()})
    kit = replace(toy_kit(tmp_path, RecordedEvaluator()), makers=makers, identify=identify)
    placement = Placement(H200, Terms(identify=identify))
    executor = RayExecutor(replace(kit, hardware=placement.hardware), placement)
    try:
        for number in (1, 2, 3):
            proposal = Proposal(number=number, operator=Operator.TUNE, parents=("c000000",))
            executor.submit(MutateTask(proposal=proposal, parents=(kit.seed_commit,)))
            executor.submit(MeasureTask(key=f"r{number:06d}", trace_seed=1, content_seed=2, commit=kit.seed_commit))
        done = [completion.outcome for completion in drain(executor, 6)]
    finally:
        executor.close()
        connection.connect(racks.address)
    mutated = [outcome for outcome in done if isinstance(outcome, Mutated)]
    places = [outcome.place for outcome in done if isinstance(outcome, Evaluated)]
    assert [dict(outcome.files)["transcript.txt"] for outcome in mutated] == ["sees ''"] * 3
    assert [place is not None and len(place.gpus) for place in places] == [1] * 3
    assert all(place is not None and place.fingerprint == placement.hardware for place in places)


def test_an_evaluation_on_other_hardware_than_the_runs_is_a_fault_and_measures_nothing(
    racks: Racks, tmp_path: Path
) -> None:
    placement = Placement(H200, Terms(identify=identify))
    kit = replace(toy_kit(tmp_path, RecordedEvaluator()), identify=identify, hardware={"GPU": "H200", "CPU": "older"})
    executor = RayExecutor(kit, placement)
    try:
        executor.submit(MeasureTask(key="r000001", trace_seed=1, content_seed=2, commit=kit.seed_commit))
        (done,) = drain(executor, 1)
    finally:
        executor.close()
        connection.connect(racks.address)
    assert isinstance(done.outcome, Fault) and done.outcome.retryable
    assert "CPU a CPU, not older" in done.outcome.reason


def test_a_demand_that_nobody_meets_is_refused_before_anything_pends(racks: Racks) -> None:
    with pytest.raises(InfrastructureError) as refused:
        Placement(Demand(cpus=1, gpus=4, labels={ACCELERATOR_LABEL: "H20"}), Terms(identify=identify))
    text = str(refused.value)
    assert "expected a node with 4 GPUs, 1 CPU and ray.io/accelerator-type=H20" in text
    assert text.count("2 of 4 GPUs") == 3
    assert "did you mean ray.io/accelerator-type=H200?" in text


def test_a_mixed_pool_is_refused_or_narrowed_to_one_kind(racks: Racks) -> None:
    with pytest.raises(ConfigError, match="GPU H100, not H200"):
        Placement(ONE_GPU, Terms(identify=identify))
    said: list[str] = []
    placement = Placement(ONE_GPU, Terms(identify=identify, mixed="stratify", say=said.append))
    assert placement.slots() == 4
    assert placement.hardware == {"CPU": "a CPU", "GPU": "H200", "GPU power limit": "700 W"}
    assert "GPU H100, not H200" in said[0]
    assert {node for node, *_ in evaluate(placement, 6, 0.2)} <= {"a", "b"}


def test_a_run_that_was_measured_on_the_smaller_kind_goes_on_there(racks: Racks) -> None:
    before = {"CPU": "a CPU", "GPU": "H100", "GPU power limit": "700 W"}
    placement = Placement(ONE_GPU, Terms(identify=identify, mixed="stratify", before=before))
    assert placement.slots() == 2
    assert {node for node, *_ in evaluate(placement, 4, 0.1)} == {"c"}


def test_accepted_mixtures_use_every_node(racks: Racks) -> None:
    placement = Placement(ONE_GPU, Terms(identify=identify, mixed="accept"))
    assert (placement.slots(), placement.hardware) == (6, None)


def test_what_is_compared_stays_on_one_node_and_one_at_a_time(racks: Racks) -> None:
    placement = Placement(H200, Terms(identify=identify, alone=True))
    assert placement.slots() == 1
    assert len({node for node, *_ in evaluate(placement, 4, 0.1)}) == 1


def test_a_node_that_is_avoided_is_neither_used_nor_counted_unless_nothing_else_is_left(racks: Racks) -> None:
    placement = Placement(H200, Terms(identify=identify))
    known = {name: node for node in placement.usable for name in names([node])}
    assert placement.avoid([known["a"]])
    assert placement.slots() == 2
    assert {node for node, *_ in evaluate(placement, 4, 0.1)} == {"b"}
    assert not placement.avoid([known["a"], known["b"]])
    assert names(placement.usable) == ["b"]


def test_among_many_nodes_a_task_names_only_those_that_it_must_not_go_to(
    racks: Racks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nodes, "_NAMED", 0)
    pinned = Placement(H200, Terms(identify=identify))
    assert pinned.options("c000000")["label_selector"] == H200.labels
    assert {node for node, *_ in evaluate(pinned, 8, 0.2)} == {"a", "b"}
    known = {name: node for node in pinned.usable for name in names([node])}
    assert pinned.avoid([known["a"]])
    assert pinned.options("c000000")["label_selector"] == {**H200.labels, nodes.NODE_LABEL: f"!in({known['a']})"}
    assert {node for node, *_ in evaluate(pinned, 4, 0.1)} == {"b"}
    narrowed = Placement(ONE_GPU, Terms(identify=identify, mixed="stratify"))
    assert {node for node, *_ in evaluate(narrowed, 6, 0.2)} <= {"a", "b"}


def test_what_a_task_says_of_a_thousand_nodes_is_short() -> None:
    every = [f"{number:056x}" for number in range(1000)]
    assert nodes.selector_of(every) == {}
    assert nodes.selector_of(every[3:], every[:3]) == {nodes.NODE_LABEL: f"!in({','.join(every[:3])})"}
    assert nodes.selector_of(every[:2], every[2:]) == {nodes.NODE_LABEL: f"in({','.join(every[:2])})"}


def test_two_gpus_come_from_one_node_by_a_group_that_is_used_again_and_removed(racks: Racks) -> None:
    placement = Placement(Demand(cpus=1, gpus=2, labels={ACCELERATOR_LABEL: "H200"}), Terms(identify=identify, limit=2))
    assert placement.slots() == 2
    assert not placement.queues
    for _ in range(3):
        found = evaluate(placement, 2, 0.0)
        assert {(node, gpus) for node, gpus, *_ in found} == {("a", "0,1"), ("b", "0,1")}
        made = groups()
        assert [(row["strategy"], row["bundles"]) for row in made] == [
            ("STRICT_PACK", {0: {"CPU": 1.0, "GPU": 2.0}})
        ] * 2
    assert {row["placement_group_id"] for row in made} == {row["placement_group_id"] for row in groups()}
    placement.close()
    until("no placement group", lambda: not groups())


def test_a_group_that_is_held_is_not_given_away(racks: Racks) -> None:
    placement = Placement(Demand(cpus=1, gpus=2, labels={ACCELERATOR_LABEL: "H200"}), Terms(identify=identify))
    first, second = (placement.options(key)["scheduling_strategy"].placement_group for key in ("c000001", "c000002"))
    assert first.id != second.id
    placement.release("c000001")
    placement.release("c000001")
    assert placement.options("c000003")["scheduling_strategy"].placement_group.id == first.id
    placement.close()
