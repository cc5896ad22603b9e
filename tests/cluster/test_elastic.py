"""Nodes that come are used, nodes that go get nothing new, and two runs on one cluster keep their order."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from population.errors import InfrastructureError
from tests.cluster.racks import Racks, identify, names, until
from tests.cluster.test_placement import groups, seen
from vibeserve.cluster import connection
from vibeserve.cluster.placement import Placement
from vibeserve.cluster.selectors import Demand
from vibeserve.cluster.sharing import Claim, Sharing
from vibeserve.cluster.terms import Terms

GPU = Demand(cpus=1, gpus=1)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Racks]:
    racks = Racks()
    yield racks
    racks.close()


@pytest.fixture
def racks(cluster: Racks) -> Iterator[Racks]:
    """One node with one GPU, and a driver of its own; each test adds and removes its own nodes."""
    connection.connect(cluster.address)
    try:
        cluster.clear()
        cluster.add("a", gpus=1)
        yield cluster
    finally:
        connection.disconnect()


def start(placement: Placement, key: str, seconds: float = 0.0) -> Any:
    ray: Any = connection.ray
    return ray.remote(seen).options(**placement.options(key)).remote(seconds)


def busy(seconds: float, mark: Path) -> tuple[str, str, float, float]:
    """An evaluation that says when it has begun."""
    mark.touch()
    return seen(seconds)


def begin(placement: Placement, key: str, mark: Path) -> Any:
    """An evaluation that has begun, and goes on for some seconds."""
    ray: Any = connection.ray
    reference = ray.remote(busy).options(**placement.options(key)).remote(4.0, mark)
    until(f"{key} to begin", mark.exists)
    return reference


def result(reference: Any) -> str:
    """The node that it ran on."""
    ray: Any = connection.ray
    node: str = ray.get(reference, timeout=90)[0]
    return node


def test_nodes_come_drain_and_go(racks: Racks, tmp_path: Path) -> None:
    said: list[str] = []
    placement = Placement(GPU, Terms(identify=identify, say=said.append))
    assert placement.slots() == 1

    racks.add("b", gpus=1)
    racks.add("capped", gpus=4, power_w=500)
    until("b to be used, and the capped node to be named", lambda: placement.slots() == 2 and bool(said))
    assert names(placement.usable) == ["a", "b"]
    assert "GPU power limit 500 W, not 700 W" in said[0]
    running = [begin(placement, key, tmp_path / key) for key in ("c000001", "c000002")]

    racks.drain("b")
    until("b to be left out", lambda: placement.slots() == 1)
    after = start(placement, "c000003")
    assert {result(each) for each in running} == {"a", "b"}
    assert result(after) == "a"

    racks.remove("b")
    racks.add("d", gpus=2)
    until("d to be used", lambda: placement.slots() == 3)
    assert names(placement.usable) == ["a", "d"]
    placement.slots()
    assert len(said) == 1, "a node that is not used is named once"


def test_a_run_waits_for_its_first_node_as_long_as_it_was_told_to(racks: Racks) -> None:
    wanted = Demand(cpus=1, gpus=2)
    with pytest.raises(InfrastructureError, match="1 of 2 GPUs"):
        Placement(wanted, Terms(identify=identify))
    placement = Placement(
        wanted, Terms(identify=identify, nodes_timeout_s=90.0, say=lambda line: racks.add("late", gpus=2))
    )
    assert names(placement.usable) == ["late"]


def test_when_every_node_drains_there_is_no_slot_until_another_comes(racks: Racks) -> None:
    placement = Placement(GPU, Terms(identify=identify))
    racks.drain("a")
    until("no slot", lambda: placement.slots() == 0)
    assert not placement.queues
    racks.add("b", gpus=1)
    until("a slot", lambda: placement.slots() == 1)
    assert result(start(placement, "c000001")) == "b"


def test_a_group_on_a_draining_node_ends_with_its_evaluation_and_another_takes_its_place(
    racks: Racks, tmp_path: Path
) -> None:
    racks.add("b", gpus=2)
    placement = Placement(Demand(cpus=1, gpus=2), Terms(identify=identify))
    running = begin(placement, "c000001", tmp_path / "begun")
    assert placement.slots() == 1
    racks.drain("b")
    until("no slot", lambda: placement.slots() == 0)
    assert len(groups()) == 1, "its evaluation goes on"
    racks.add("d", gpus=2)
    until("a slot", lambda: placement.slots() == 1)
    assert result(start(placement, "c000002")) == "d"
    assert result(running) == "b"
    placement.release("c000001")
    until("the group on b to be removed", lambda: len(groups()) == 1)
    placement.close()


_OTHER_DRIVER = """
import sys
from tests.cluster.racks import identify
from vibeserve.cluster import connection
from vibeserve.cluster.placement import Placement
from vibeserve.cluster.selectors import Demand
from vibeserve.cluster.terms import Terms
connection.connect(sys.argv[1])
placement = Placement(Demand(cpus=1, gpus=1), Terms(identify=identify, driver="other", priority=int(sys.argv[2])))
for line in sys.stdin:
    match line.split():
        case ["hold", key]: placement.options(key)
        case ["release", key]: placement.release(key)
        case ["slots"]: pass
    print(placement.slots(), flush=True)
"""


class Other:
    """A second driver: it holds what it is told to, in a process of its own."""

    def __init__(self, address: str, priority: int) -> None:
        command = [sys.executable, "-c", _OTHER_DRIVER, address, str(priority)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def slots(self, *words: str) -> int:
        """Its slots, after it did what the words say."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{' '.join(words) or 'slots'}\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


def test_two_drivers_share_by_priority_and_a_dead_one_leaves_its_part(racks: Racks) -> None:
    racks.add("b", cpus=4, gpus=3)
    mine = Placement(GPU, Terms(identify=identify, driver="mine", priority=0))
    other = Other(racks.address, 5)
    try:
        until("all slots for each while neither holds any", lambda: (other.slots(), mine.slots()) == (4, 4))
        for key in ("c000001", "c000002", "c000003"):
            other.slots("hold", key)
        until("one slot beside three of higher priority", lambda: (other.slots(), mine.slots()) == (4, 1))
        other.slots("hold", "c000004")
        until("no slot", lambda: (other.slots(), mine.slots()) == (4, 0))
        other.slots("release", "c000004")
        until("one slot", lambda: (other.slots(), mine.slots()) == (4, 1))
        assert not mine.queues, "what waits in Ray's line would come before the higher priority"
    finally:
        other.kill()
    until("everything", lambda: mine.slots() == 4 and mine.queues)
    mine.close()


def test_the_registry_is_made_anew_when_its_maker_has_gone(racks: Racks) -> None:
    other = Other(racks.address, 5)
    try:
        other.slots("hold", "c000001")  # the first to speak, so the registry is its own
        mine = Placement(GPU, Terms(identify=identify, driver="mine"))
        until("no slot", lambda: (other.slots(), mine.slots()) == (1, 0))
    finally:
        other.kill()
    until("the slot", lambda: mine.slots() == 1)
    sharing, claim = Sharing(), Claim(run="third", priority=0, demand=GPU, holds=0)

    def heard() -> bool:
        mine.slots()  # a driver speaks whenever it asks for its slots
        return "mine" in [said.run for said in sharing.exchange(claim)[0]]

    until("mine to be heard by the new registry", heard)
    mine.close()
