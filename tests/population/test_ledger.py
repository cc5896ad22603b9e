"""Nothing acknowledged is lost: cuts, flips, zeroed sectors, full disks, failed syncs, zombies and rivals."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from population.disk import Disk
from population.errors import InfrastructureError, LedgerError
from population.evaluation import Rejected, Stage
from population.events import Ended, EpochStarted, Event, Faulted, Stopped
from population.ledger import Ledger, read_events
from tests.population.strategies import EVENT, STARTED, child, scored


class FaultyDisk(Disk):
    """Fails the n-th call of one operation, or writes short, and counts what came after."""

    def __init__(self, operation: str, nth: int, code: int = errno.EIO, short: bool = False) -> None:
        self.operation, self.left, self.code, self.short, self.failed = operation, nth, code, short, False

    def _due(self, operation: str) -> bool:
        if operation != self.operation:
            return False
        assert not self.failed, "a failed operation was tried again"
        self.left -= 1
        self.failed = self.left == 0
        return self.failed

    def write(self, fd: int, data: bytes) -> int:
        if self._due("write"):
            if self.short:
                return super().write(fd, data[: len(data) // 2])
            raise OSError(self.code, os.strerror(self.code))
        return super().write(fd, data)

    def sync(self, fd: int) -> None:
        if self._due("sync"):
            raise OSError(self.code, os.strerror(self.code))
        super().sync(fd)


class Fast(Disk):
    """Leaves durability out, where it is not what is tested."""

    def sync(self, fd: int) -> None:
        pass

    def sync_folder(self, path: Path) -> None:
        pass


def bare(events: object) -> list[Event]:
    """Without what the ledger writes itself."""
    return [e for e in events if not isinstance(e, EpochStarted)]  # type: ignore[attr-defined]


def fault(n: int) -> Faulted:
    return Faulted(key=f"c{n:06d}", reason="node lost " * 3, attempt=1)


def write_run(folder: Path, *events: Event) -> list[Event]:
    with Ledger.open(folder) as ledger:
        return [ledger.append(event) for event in events]


def keys(events: object) -> list[str]:
    return [e.key for e in bare(events)]  # type: ignore[attr-defined]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(EVENT, max_size=4), min_size=1, max_size=3))
def test_any_events_over_any_epochs_come_back(tmp_path: Path, epochs: list[list[Event]]) -> None:
    folder = tmp_path / str(time.monotonic_ns())
    written: list[Event] = []
    for number, epoch in enumerate(epochs, start=1):
        with Ledger.open(folder) as ledger:
            assert list(ledger.events())[:-1] == written
            first = list(ledger.events())[-1]
            assert isinstance(first, EpochStarted) and first.epoch == number
            written += [first, *(ledger.append(event) for event in epoch)]
    assert list(read_events(folder)) == written


def test_every_line_is_json_and_names_its_number(tmp_path: Path) -> None:
    write_run(tmp_path, STARTED, *child(0, scored(10.0, 5.0)))
    write_run(tmp_path, Stopped(reason="done"))
    lines = [json.loads(x) for p in sorted(tmp_path.glob("*.jsonl")) for x in p.read_text().splitlines()]
    assert [line["seq"] for line in lines] == list(range(7))
    assert lines[5]["seal"]["bytes"] == (tmp_path / "000001.jsonl").stat().st_size


def test_a_cut_at_any_byte_keeps_a_prefix_and_goes_on(tmp_path: Path) -> None:
    source = tmp_path / "source"
    write_run(source, fault(0))
    write_run(source, fault(1), fault(2), fault(3))
    last = source / "000002.jsonl"
    data = last.read_bytes()
    ends = [i + 1 for i, byte in enumerate(data) if byte == 10]
    folder = source
    for cut in range(len(data) + 1):
        (folder / "000003.jsonl").unlink(missing_ok=True)
        (folder / last.name).write_bytes(data[:cut])
        survivors = max(0, sum(end <= cut for end in ends) - 1)  # the first record is the epoch's own
        expected = [f"c{n:06d}" for n in range(1 + survivors)]
        assert keys(read_events(folder)) == expected
        with Ledger.open(folder, disk=Fast()) as ledger:
            assert keys(ledger.events()) == expected
            ledger.append(fault(9))
        assert keys(read_events(folder)) == [*expected, "c000009"]
        assert (folder / last.name).read_bytes() == data[:cut]  # the torn bytes stay as they are


def test_a_sector_that_never_reached_the_disk_is_torn_not_damaged(tmp_path: Path) -> None:
    source = tmp_path / "source"
    write_run(source, fault(0), Faulted(key="big", reason="x" * 3000, attempt=1))
    path = source / "000001.jsonl"
    data = path.read_bytes()
    start = data[:-1].rindex(b"\n") + 1
    for sector in range(start // 512, (len(data) - 1) // 512 + 1):
        low, high = max(start, sector * 512), min(len(data), (sector + 1) * 512)
        path.write_bytes(data[:low] + bytes(high - low) + data[high:])
        assert keys(read_events(source)) == ["c000000"]


def grouped_run(folder: Path) -> Path:
    with Ledger.open(folder) as ledger:
        ledger.append(fault(0))
        ledger.append_all([Faulted(key=f"c{n:06d}", reason="x" * 200 * n, attempt=1) for n in (1, 2, 3, 4)])
    return folder / "000001.jsonl"


def test_a_group_comes_back_as_it_was_returned_and_reads_as_if_appended_one_by_one(tmp_path: Path) -> None:
    with Ledger.open(tmp_path) as ledger:
        returned = [*ledger.append_all([fault(0), fault(1)]), ledger.append(fault(2)), *ledger.append_all([fault(3)])]
        assert ledger.append_all([]) == ()
    assert bare(read_events(tmp_path)) == returned
    lines = [json.loads(line) for line in (tmp_path / "000001.jsonl").read_text().splitlines()]
    assert [line["seq"] for line in lines] == [0, 1, 2, 3, 4]
    assert [line.get("first") for line in lines] == [None, None, 1, None, None]


def test_a_group_is_one_write_and_one_sync(tmp_path: Path) -> None:
    class Counting(Disk):
        calls: ClassVar[list[str]] = []

        def write(self, fd: int, data: bytes) -> int:
            self.calls.append("write")
            return super().write(fd, data)

        def sync(self, fd: int) -> None:
            self.calls.append("sync")
            super().sync(fd)

    with Ledger.open(tmp_path, disk=Counting()) as ledger:
        Counting.calls.clear()
        ledger.append_all([fault(n) for n in range(5)])
        assert Counting.calls == ["write", "sync"]


def test_of_a_group_that_was_cut_or_lost_sectors_a_prefix_counts(tmp_path: Path) -> None:
    path = grouped_run(tmp_path)
    data = path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(data) if byte == 10]
    group = ends[1]
    everything = [f"c{n:06d}" for n in range(5)]
    sectors = range(group // 512, len(data) // 512 + 1)
    for missing in [(a, b) for a in sectors for b in sectors if a <= b]:
        page = bytearray(data)
        for sector in missing:
            low, high = max(group, sector * 512), min(len(data), (sector + 1) * 512)
            page[low:high] = bytes(max(0, high - low))
        path.write_bytes(page)
        whole = sum(end <= max(group, min(missing) * 512) for end in ends) - 1
        assert keys(read_events(tmp_path)) == everything[:whole], missing
    path.write_bytes(data)
    assert keys(read_events(tmp_path)) == everything


def test_an_empty_sector_before_the_last_group_is_damage(tmp_path: Path) -> None:
    path = grouped_run(tmp_path)
    with Ledger.open(tmp_path) as ledger:
        ledger.append_all([fault(5), fault(6)])
    last = tmp_path / "000002.jsonl"
    for place in (path, last):
        data = place.read_bytes()
        start = data.index(b"\n") + 1 if place == last else data.index(b'"c000002"')
        place.write_bytes(data[:start] + bytes(600)[: 512 - start % 512] + data[start + 512 - start % 512 :])
        if place == path:
            with pytest.raises(LedgerError, match=rf"{place.name}.*damaged"):
                list(read_events(tmp_path))
        else:
            assert keys(read_events(tmp_path))[-1] == "c000004"
        place.write_bytes(data)
    data = path.read_bytes()
    last.unlink()
    with path.open("ab") as file:  # another append came after the one that lost a sector
        with Ledger.open(tmp_path / "twin") as twin:
            twin.append_all([fault(7), fault(8)])
        file.write((tmp_path / "twin" / "000001.jsonl").read_bytes().splitlines(keepends=True)[1])
    start = data.index(b'"c000002"')
    page = bytearray(path.read_bytes())
    page[start : start + 512 - start % 512] = bytes(512 - start % 512)
    path.write_bytes(page)
    with pytest.raises(LedgerError, match="damaged"):
        list(read_events(tmp_path))


def test_a_group_with_a_record_that_cannot_be_written_leaves_the_ledger_as_it_was(tmp_path: Path) -> None:
    with Ledger.open(tmp_path) as ledger:
        with pytest.raises(ValueError, match="NaN"):
            ledger.append_all([fault(0), Stopped(reason="x", elapsed_s=float("nan"))])
        ledger.append(fault(1))
    assert keys(read_events(tmp_path)) == ["c000001"]


def test_a_flipped_bit_is_damage_wherever_it_is(tmp_path: Path) -> None:
    with Ledger.open(tmp_path) as ledger:
        ledger.append_all([fault(0), fault(1)])
    with Ledger.open(tmp_path) as ledger:
        ledger.append_all([fault(2), fault(3)])
    for path in sorted(tmp_path.glob("*.jsonl")):
        data = path.read_bytes()
        for at in range(0, len(data), 3):
            path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
            with pytest.raises(LedgerError, match=rf"{path.name}.*expected.*got.*Restore"):
                list(read_events(tmp_path))
        path.write_bytes(data)
    assert keys(read_events(tmp_path)) == ["c000000", "c000001", "c000002", "c000003"]


def test_damage_names_file_and_line_and_is_not_written_on(tmp_path: Path) -> None:
    write_run(tmp_path, fault(0), fault(1), fault(2))
    path = tmp_path / "000001.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], lines[3]]))  # a line is missing
    with pytest.raises(LedgerError, match=r"000001\.jsonl: line 3: the ledger is damaged"):
        Ledger.open(tmp_path)
    assert [p.name for p in sorted(tmp_path.glob("*.jsonl"))] == ["000001.jsonl"]


@pytest.mark.parametrize("loss", ["missing", "short"])
def test_a_sealed_segment_that_lost_bytes_is_damage(tmp_path: Path, loss: str) -> None:
    write_run(tmp_path, fault(0))
    write_run(tmp_path, fault(1))
    path = tmp_path / "000001.jsonl"
    if loss == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
    with pytest.raises(LedgerError, match=r"000001\.jsonl"):
        list(read_events(tmp_path))


def test_a_rival_driver_is_turned_away(tmp_path: Path) -> None:
    with Ledger.open(tmp_path) as ledger:
        ledger.append(fault(0))
        with pytest.raises(LedgerError, match=rf"only driver, but pid {os.getpid()} on .* is running"):
            Ledger.open(tmp_path)
        ledger.append(fault(1))
    assert keys(read_events(tmp_path)) == ["c000000", "c000001"]


def test_a_zombie_is_fenced_and_what_it_writes_does_not_count(tmp_path: Path) -> None:
    zombie = Ledger.open(tmp_path)
    zombie.append(fault(0))
    with Ledger.open(tmp_path, take_over=True) as ledger:
        assert keys(ledger.events()) == ["c000000"]
        with pytest.raises(LedgerError, match=r"000002\.jsonl exists: another driver has taken this run over"):
            zombie.append(fault(1))
        with (tmp_path / "000001.jsonl").open("ab") as file:  # one that does not look
            file.write(b"whatever\nit likes\n")
        ledger.append(fault(2))
    assert zombie.failed
    zombie.close()
    assert keys(read_events(tmp_path)) == ["c000000", "c000002"]
    with Ledger.open(tmp_path) as third:
        assert keys(third.events()) == ["c000000", "c000002"]


class Interleaved(Disk):
    """Lets another driver act at the moment when this one has created its segment."""

    def __init__(self, act: object) -> None:
        self.act = act

    def create(self, path: Path) -> int:
        fd = super().create(path)
        if path.suffix == ".jsonl":
            self.act()  # type: ignore[operator]
        return fd


class RacingDisk(Disk):
    """Lets another driver take over between this one's write and its acknowledgement."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.armed, self.successor = folder, False, None

    def sync(self, fd: int) -> None:
        super().sync(fd)
        if self.armed:
            self.armed = False
            self.successor: Ledger | None = Ledger.open(self.folder, take_over=True)


def test_an_append_that_races_with_a_takeover_is_not_acknowledged(tmp_path: Path) -> None:
    disk = RacingDisk(tmp_path)
    loser = Ledger.open(tmp_path, disk=disk)
    disk.armed = True
    with pytest.raises(LedgerError, match="taken this run over"):
        loser.append(fault(0))
    assert disk.successor is not None
    disk.successor.append(fault(1))
    disk.successor.close()
    loser.close()
    assert keys(read_events(tmp_path)) == ["c000000", "c000001"]  # durable, so it counts; acknowledged it was not


def test_what_the_predecessor_acknowledged_before_the_new_segment_existed_is_kept(tmp_path: Path) -> None:
    first = Ledger.open(tmp_path)

    class Late(Disk):
        def create(self, path: Path) -> int:
            if path.suffix == ".jsonl":
                first.append(fault(0))  # after the successor has read, before its segment exists
            return super().create(path)

    with Ledger.open(tmp_path, take_over=True, disk=Late()) as second:
        assert keys(second.events()) == ["c000000"]
    first.close()


def test_an_epoch_that_died_before_its_first_record_is_void(tmp_path: Path) -> None:
    write_run(tmp_path, fault(0))
    (tmp_path / "000002.jsonl").write_bytes(b'{"hash":"12')
    with Ledger.open(tmp_path) as ledger:
        assert "000002.jsonl: ignored" in ledger.notes[0]
        ledger.append(fault(1))
    assert (tmp_path / "000003.jsonl").exists()
    assert keys(read_events(tmp_path)) == ["c000000", "c000001"]


def test_a_driver_that_was_overtaken_before_its_first_record_does_not_count(tmp_path: Path) -> None:
    write_run(tmp_path, fault(0))

    def overtake() -> None:
        with Ledger.open(tmp_path, take_over=True) as winner:
            winner.append(fault(1))

    with pytest.raises(LedgerError, match="taken this run over"):
        Ledger.open(tmp_path, disk=Interleaved(overtake))
    assert keys(read_events(tmp_path)) == ["c000000", "c000001"]


@pytest.mark.parametrize(
    ("disk", "cure"),
    [
        (FaultyDisk("write", 3, errno.ENOSPC), "No space left on device.*free some space, then `vibeserve resume`"),
        (FaultyDisk("write", 3, short=True), "No space left on device.*free some space"),
        (FaultyDisk("write", 3, errno.EIO), "Input/output error.*check the disk"),
        (FaultyDisk("sync", 3, errno.EIO), "Input/output error.*Everything acknowledged before is safe"),
        (FaultyDisk("sync", 3, errno.ENOSPC), "No space left on device"),
    ],
    ids=["enospc", "short-write", "eio-write", "eio-sync", "enospc-sync"],
)
def test_a_failed_append_is_never_retried_and_ends_the_ledger(tmp_path: Path, disk: FaultyDisk, cure: str) -> None:
    with Ledger.open(tmp_path, disk=disk) as ledger:
        ledger.append(fault(0))
        with pytest.raises(InfrastructureError, match=cure):
            ledger.append(fault(1))
        assert ledger.failed
        with pytest.raises(InfrastructureError, match="is closed"):
            ledger.append(fault(2))
        assert keys(ledger.events()) == ["c000000"]
    with Ledger.open(tmp_path) as again:
        assert keys(again.events()) in (["c000000"], ["c000000", "c000001"])  # a lost acknowledgement may go either way
        again.append(fault(3))
    assert keys(read_events(tmp_path))[-1] == "c000003"


@pytest.mark.parametrize("operation", ["write", "sync"])
def test_a_disk_that_fails_at_once_opens_nothing(tmp_path: Path, operation: str) -> None:
    write_run(tmp_path, fault(0))
    with pytest.raises(InfrastructureError, match="writing failed"):
        Ledger.open(tmp_path, disk=FaultyDisk(operation, 1, errno.ENOSPC))
    with Ledger.open(tmp_path) as ledger:
        assert keys(ledger.events()) == ["c000000"]


def test_a_record_that_cannot_be_written_leaves_the_ledger_usable(tmp_path: Path) -> None:
    with Ledger.open(tmp_path) as ledger:
        with pytest.raises(ValueError, match="NaN"):
            ledger.append(Stopped(reason="x", elapsed_s=float("nan")))
        ledger.append(fault(0))
    assert keys(read_events(tmp_path)) == ["c000000"]


def test_append_returns_what_a_replay_reads(tmp_path: Path) -> None:
    event = Ended(number=0, evaluation=Rejected(stage=Stage.BOOT, reason="\ud800"))
    (returned,) = write_run(tmp_path, event)
    assert bare(read_events(tmp_path)) == [returned]
    assert returned.time_s > 0 and returned.active_s > 0


def test_a_deleted_run_ends_its_driver(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "ledger") as ledger:
        shutil.rmtree(tmp_path / "ledger")
        with pytest.raises(InfrastructureError, match="was deleted"):
            ledger.append(fault(0))


def test_reading_while_the_driver_writes_sees_a_prefix(tmp_path: Path) -> None:
    with Ledger.open(tmp_path) as ledger:
        ledger.append(fault(0))
        with (tmp_path / "000001.jsonl").open("ab") as file:
            file.write(b'{"hash":"half')
        assert keys(read_events(tmp_path)) == ["c000000"]


def test_a_folder_without_segments_is_empty(tmp_path: Path) -> None:
    assert list(read_events(tmp_path / "none")) == []


def test_killed_writers_lose_nothing_they_acknowledged(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path\n"
        "from population.ledger import Ledger; from population.events import Faulted\n"
        "with Ledger.open(Path(sys.argv[1])) as ledger:\n"
        "    n = sum(e.kind == 'faulted' for e in ledger.events())\n"
        "    while True:\n"
        "        ledger.append(Faulted(key=str(n), reason='x' * 700, attempt=1)); print(n, flush=True); n += 1\n"
    )
    acknowledged = -1
    for kill in range(5):
        with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            for _ in range(5 + kill * 7):
                acknowledged = int(process.stdout.readline())
            process.kill()
            acknowledged = int((process.stdout.read().split() or [b"%d" % acknowledged])[-1])
        found = [int(k) for k in keys(read_events(tmp_path))]
        assert found == list(range(len(found))) and len(found) - 1 in (acknowledged, acknowledged + 1)


def test_ten_thousand_events_replay_within_two_seconds(tmp_path: Path) -> None:
    samples = {f"{metric}_{i}@{load}": (1.5, 2.5) for metric in "abcde" for i in range(6) for load in ("high", "low")}
    evaluation = Rejected(stage=Stage.CHECKER, reason="r", evidence="e" * 500)
    big = scored(10.0, 5.0)
    with Ledger.open(tmp_path, disk=Fast()) as ledger:
        ledger.append(STARTED)
        for number in range(3333):
            fine = type(big)(samples={**samples, **big.samples})
            for event in child(number, fine if number % 2 == 0 else evaluation):
                ledger.append(event)
    began = time.process_time()
    assert sum(1 for _ in read_events(tmp_path)) == 10_001
    assert time.process_time() - began < 2.0, "resume of 10,000 events takes at most 2 s"
