"""Whatever a run loses on its cluster, its population is the same: real kills of workers, nodes, drivers, networks."""

from __future__ import annotations

import os
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from population.events import Faulted
from population.ledger import read_events
from tests.cluster.faults.ground import Ground, Note, born
from tests.cluster.faults.machines import Machines
from tests.cluster.faults.world import DEADLINE_S, World, until
from vibeserve.retries import ATTEMPTS


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Machines, Path]]:
    folder = tmp_path_factory.mktemp("ground")
    machines = Machines(folder)
    yield machines, folder
    machines.close()


@pytest.fixture
def machines(shared: tuple[Machines, Path]) -> Machines:
    shared[0].restore()
    return shared[0]


@pytest.fixture
def world(shared: tuple[Machines, Path], tmp_path: Path) -> Iterator[World]:
    ground = Ground(shared[1])
    yield World(folder=tmp_path / "world", ground=ground)
    for path in ground.folder.iterdir():
        if path.is_file():
            path.unlink()


def caught(world: World, driver: subprocess.Popen[str], records: int = 2) -> Note:
    """The first child that begins on b after so many results are on record; it is held until the ground is cleared."""
    until(lambda: sum(n.what == "record" for n in world.ground.notes()) >= records, "results are on record", driver)
    was_held = world.ground.now("hold-a")
    # What begins on a waits meanwhile, or b might come too late for any of the children.
    for what in ("hold-a", "hold-b"):
        world.ground.set(what)
    # A re-measurement that is held first gives way to a child, and is no loss.
    until(lambda: _children(world.ground.held("b")), "a child is held on b", driver)
    (held,) = _children(world.ground.held("b"))
    if not was_held:
        world.ground.clear("hold-a")
    return held


def _children(notes: list[Note]) -> list[Note]:
    return [note for note in notes if note.key.startswith("c")]


def test_a_worker_is_killed(machines: Machines, world: World) -> None:
    with world.driver(machines.address) as driver:
        held = caught(world, driver)
        os.kill(held.processes[0][0], signal.SIGKILL)
        until(lambda: not any(born(pid) == since for pid, since in held.processes), "its whole tree is gone")
        world.ground.clear("hold-b")
        world.finish(driver)
    assert world.faulted() == [held.key]
    world.require_intact()


def test_a_node_is_killed_and_another_joins(machines: Machines, world: World) -> None:
    with world.driver(machines.address) as driver:
        held = caught(world, driver)
        machines.kill("b")
        until(lambda: not any(born(pid) == since for pid, since in held.processes), "its whole tree is gone")
        until(lambda: held.key in world.faulted(), "the driver knows", driver)
        world.ground.clear("hold-b")
        machines.add("b")
        world.finish(driver)
    assert set(world.faulted()) == {held.key}
    world.require_intact()


def test_a_driver_is_killed_and_the_run_resumed(machines: Machines, world: World) -> None:
    with world.driver(machines.address) as driver:
        held = caught(world, driver)
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    until(lambda: not any(born(pid) == since for pid, since in held.processes), "its evaluation ends with it")
    world.ground.clear("hold-b")
    unrecorded = world.unrecorded()
    with world.driver(machines.address) as driver:
        world.finish(driver)
    world.require_intact(lost=unrecorded)
    assert len(unrecorded) <= 1, "at most the evaluation that ended while the driver died is repeated"


def test_a_node_is_cut_off_and_its_late_result_does_not_count(machines: Machines, world: World) -> None:
    with world.driver(machines.address) as driver:
        held = caught(world, driver)
        machines.split("b")
        until(lambda: held.key in world.faulted(), "the driver has given the node up", driver)
        world.ground.clear("hold-b")
        late = Note(what="end", key=held.key, node="b")
        until(lambda: late in world.ground.notes(), "the evaluation on the lost node has its result")
        machines.heal("b")
        world.finish(driver)
    until(lambda: born(machines.raylet("b")) is None, "the node that was given up ends itself")
    machines.restore()  # as long as nobody has reaped its raylet, Ray's workers take it for alive
    assert Note(what="end", key=held.key, node="a") in world.ground.notes()
    world.require_intact(lost=(held.key,))


def test_what_the_driver_put_into_the_object_store_is_lost(machines: Machines, world: World) -> None:
    """A node that joins afterwards needs all of it: the target, and every commit that leads to a candidate."""
    world = replace(world, lossy=True, children=16)
    with world.driver(machines.address) as driver:
        until(lambda: any(n.what == "record" for n in world.ground.notes()), "a result is on record", driver)
        world.ground.set("hold-a")  # so that there is work left for the new node
        held = caught(world, driver, records=1)
        world.ground.set("lose-objects")
        until(lambda: not world.ground.now("lose-objects"), "every object is gone", driver)
        machines.kill("b")
        machines.add("c")
        until(lambda: held.key in world.faulted(), "the driver knows", driver)
        world.ground.clear("hold-b")
        until(lambda: any(n.what == "begin" and n.node == "c" for n in world.ground.notes()), "c measures", driver)
        world.ground.clear("hold-a")
        world.finish(driver)
    assert "an object that it needs was lost" in (world.run_dir / "ledger" / "000001.jsonl").read_text()
    assert any(note.what == "end" and note.node == "c" for note in world.ground.notes())
    world.require_intact()


FINE = "<nvidia_smi_log><gpu><fb_memory_usage><total>81559 MiB</total><used>4 MiB</used></fb_memory_usage></gpu>"
FELL_OFF = f"""
test -e $ground/fell || {{ touch $ground/fell; echo "{FINE}</nvidia_smi_log>"; exit 0; }}
echo "Unable to determine the device handle for GPU0000:18:00.0: GPU is lost. Reboot the system"
exit 15
"""
"""XID 79 in the middle of the first evaluation."""
HELD = f"""echo "{FINE.replace("4 MiB", "79000 MiB")}</nvidia_smi_log>" """
"""Another's process has the memory, so every server fails with CUDA's `out of memory`."""


SENT_AHEAD = 3
"""Evaluations that Ray may still have when one has failed: two per slot (`Flow.prefetch`), minus that one."""


@pytest.mark.parametrize(
    ("smi", "said"),
    [(FELL_OFF, ("no longer answers", "did not answer before")), (HELD, ("79,000 of 81,559 MiB in use",) * 2)],
    ids=["XID", "out of memory"],
)
def test_a_node_with_a_broken_gpu_fails_twice_and_gets_no_more_work(
    machines: Machines, world: World, smi: str, said: tuple[str, str]
) -> None:
    world.ground.program("nvidia-smi-b", smi)
    world.ground.set("broken-b")
    with world.driver(machines.address) as driver:
        until(lambda: len(world.faulted()) >= 2, "the node has failed twice", driver)
        quarantined = len(world.ground.notes())
        world.finish(driver)
    world.ground.clear("broken-b")
    faults = Counter(world.faulted())
    assert max(faults.values()) <= 2, "a third failure would have been charged"
    later = [note for note in world.ground.notes()[quarantined:] if note.what == "begin" and note.node == "b"]
    assert len(later) <= SENT_AHEAD, "only what had been given to Ray before"
    assert {note.node for note in world.ground.notes() if note.what == "end"} == {"a"}
    reasons = [event.reason for event in read_events(world.run_dir / "ledger") if isinstance(event, Faulted)]
    assert [reason for reason in reasons if not any(what in reason for what in said)] == []
    assert any(said[-1] in reason for reason in reasons), "the second failure was none of the GPU's"
    assert sum("no more work for node" in reason for reason in reasons) == 1
    world.require_intact()


def test_the_disk_of_a_worker_is_full(machines: Machines, world: World) -> None:
    world.ground.set("full-a")
    with world.driver(machines.address) as driver:
        world.finish(driver)
    world.ground.clear("full-a")
    assert world.faulted()
    assert "No space left on device" in (world.run_dir / "ledger" / "000001.jsonl").read_text()
    assert {note.node for note in world.ground.notes() if note.what == "end"} == {"b"}
    world.require_intact()


def test_the_disk_of_the_driver_is_full(machines: Machines, world: World) -> None:
    with world.driver(machines.address) as driver:
        held = caught(world, driver)
        world.ground.set("full-driver")
        assert driver.wait(DEADLINE_S) == 1
    assert "No space left on device" in world.said()
    assert "resume" in world.said()
    until(lambda: not any(born(pid) == since for pid, since in held.processes), "its evaluation ends with it")
    for what in ("hold-b", "full-driver"):
        world.ground.clear(what)
    unrecorded = world.unrecorded()
    with world.driver(machines.address) as driver:
        world.finish(driver)
    world.require_intact(lost=unrecorded)


def test_the_provider_is_out_for_a_while(machines: Machines, world: World) -> None:
    world.ground.set("outage")
    with world.driver(machines.address) as driver:
        until(
            lambda: any(n > ATTEMPTS for n in refusals(world.ground).values()),
            "more than an evaluation's attempts",
            driver,
        )
        world.ground.clear("outage")
        world.finish(driver)
    assert Counter(world.faulted()) == refusals(world.ground)
    world.require_intact()


def refusals(ground: Ground) -> Counter[str]:
    """How often the provider refused each child's mutation."""
    return Counter(note.key for note in ground.notes() if note.what == "refuse")


def test_the_head_is_lost_and_the_run_goes_on_elsewhere(machines: Machines, world: World) -> None:
    doomed = Machines(world.ground.folder, names=("x",))
    try:
        with world.driver(doomed.address) as driver:
            until(lambda: sum(n.what == "record" for n in world.ground.notes()) >= 3, "three results are on record")
            doomed.kill_head()
            assert driver.wait(DEADLINE_S) != 0, "a driver without a head does not say that all is well"
    finally:
        doomed.close()
    until(lambda: not world.ground.survivors(), "every evaluation ends with its cluster")
    unrecorded = world.unrecorded()
    with world.driver(machines.address) as driver:
        world.finish(driver)
    world.require_intact(lost=unrecorded)
