"""The hostile probe: what it finds, that it can fail, and that it leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from evaluators.bubblewrap import BubblewrapSandbox
from evaluators.confine import landlock_abi
from evaluators.hostile import attacker
from evaluators.hostile.archive import write_archive
from evaluators.hostile.attack import Attack, Blocked, Proof, Scene, canaries
from evaluators.hostile.catalogue import ATTACKS
from evaluators.hostile.findings import ALLOWED, Finding, Outcome, Probe, reason
from evaluators.hostile.inmate import await_true, kill_all
from evaluators.hostile.probe import LIMITS, attack
from evaluators.hostile.stage import Stage, staged
from evaluators.landlock import LandlockSandbox
from evaluators.launch import Launch
from evaluators.node import small
from evaluators.process import RunningProcess
from evaluators.sandbox import PlainSandbox, Sandbox
from population.errors import InfrastructureError

NAMES = {each.name for each in ATTACKS}
UNDONE_BY_ROOT = {
    "read-home", "read-checker-data", "read-other-candidate", "read-ray-folder", "follow-symlink", "stat-secret",
    "escape-through-proc", "write-artifact", "write-workspace", "write-log", "host-loopback", "pathname-socket",
    "abstract-socket", "sysv-shared-memory", "sysv-messages", "posix-shared-memory", "posix-semaphore",
    "environ-of-others", "cmdline-of-others", "stop-others", "reschedule-others", "setuid-programs", "fork-bomb",
    "hide-memory", "share-memory", "fill-memory", "fill-tmp", "fill-shared-memory", "fill-home",
}  # fmt: skip
"""What needs no privilege where nothing isolates: the probe must see all of it get through."""
KEPT_IN_TIER_C = {
    "environ-of-init", "inherited-descriptors", "leave-daemon", "outlive-kill", "flood-log", "control-terminal",
}  # fmt: skip
KEPT_BY_LIMITS = {"fork-bomb", "fill-memory", "hide-memory", "share-memory", "leave-cpus", "raise-limits"}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Probe:
    """Without any isolation."""
    return attack(PlainSandbox(), tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def tier_a(tmp_path_factory: pytest.TempPathFactory) -> Probe:
    return attack(small(BubblewrapSandbox()), tmp_path_factory.mktemp("a"))


def details(probe: Probe, names: tuple[str, ...]) -> dict[str, str]:
    """What pytest should show of a failure."""
    return {finding.name: finding.detail for finding in probe.findings if finding.name in names}


def test_there_are_enough_attacks_and_each_says_what_it_tries() -> None:
    assert len(NAMES) == len(ATTACKS) >= 31
    assert all(each.tries and "\n" not in each.tries for each in ATTACKS)
    assert set().union(*ALLOWED.values()) <= NAMES, "an exception for an attack that does not exist"
    assert KEPT_IN_TIER_C | UNDONE_BY_ROOT <= NAMES


@pytest.mark.tier("A")
def test_tier_a_lets_nothing_through(tier_a: Probe) -> None:
    assert details(tier_a, tier_a.let_through) == {}
    assert tier_a.attacks >= 31
    assert not set(tier_a.not_applicable) & (UNDONE_BY_ROOT | KEPT_IN_TIER_C)


def test_without_isolation_the_probe_sees_them_come_through(plain: Probe) -> None:
    assert len(plain.let_through) >= 20
    assert set(plain.let_through) >= UNDONE_BY_ROOT
    assert plain.unexpected == ()


def test_even_tier_c_keeps_environment_log_and_lifetime(plain: Probe) -> None:
    assert not KEPT_IN_TIER_C & set(plain.let_through)
    assert not KEPT_IN_TIER_C & set(plain.not_applicable)


@pytest.mark.tier("B")
def test_tier_b_lets_through_what_is_declared_only(tmp_path: Path) -> None:
    probe = attack(small(LandlockSandbox(landlock_abi())), tmp_path)
    assert details(probe, probe.unexpected) == {}


@pytest.mark.parametrize("tier", [pytest.param(tier, marks=pytest.mark.tier(tier)) for tier in "AB"])
def test_limits_hold_without_control_groups(tmp_path: Path, tier: str) -> None:
    """As in default Docker and Kubernetes: rlimits, the watchdog and the filter are all there is."""
    sandbox: Sandbox = BubblewrapSandbox(limits=LIMITS, controllers=())
    if tier == "B":
        sandbox = LandlockSandbox(landlock_abi(), limits=LIMITS, controllers=())
    probe = attack(sandbox, tmp_path, tuple(each for each in ATTACKS if each.name in KEPT_BY_LIMITS))
    assert details(probe, probe.unexpected) == {}
    assert probe.attacks >= len(KEPT_BY_LIMITS) - 1  # a machine may have one CPU only


@pytest.mark.tier("A")
def test_nothing_is_left_behind(plain: Probe, tier_a: Probe, tmp_path_factory: pytest.TempPathFactory) -> None:
    top = tmp_path_factory.getbasetemp()
    assert not [path for path in top.rglob("*") if "vibeserve-doctor" in path.name or path.name.startswith("ray-")]
    assert not list(Path.home().glob(".vibeserve-doctor-*"))
    assert not [path for folder in ("/tmp", "/dev/shm") for path in Path(folder).glob("vs*.fill")]
    assert not [path for path in Path("/dev/shm").iterdir() if path.name.removeprefix("sem.").startswith("vs")]
    assert "VIBESERVE_DOCTOR_CANARY" not in os.environ
    assert left_below(top / "plain0") == left_below(top / "a0") == []


class Leaky:
    """Plain, with one hole of our making."""

    tier = "C"
    gaps = ()

    def __init__(self, **changes: object) -> None:
        self._changes = changes

    def pod(self) -> object:
        return PlainSandbox().pod()

    def launch(self, launch: Launch) -> RunningProcess:
        return RunningProcess(replace(launch, **self._changes))  # type: ignore[arg-type]


def only(sandbox: object, name: str, scratch: Path) -> Finding:
    """One attack's finding."""
    chosen = tuple(each for each in ATTACKS if each.name == name)
    assert len(chosen) == 1
    probe = attack(sandbox, scratch, chosen)  # type: ignore[arg-type]
    return probe.findings[0]


def test_an_inherited_environment_is_noticed(tmp_path: Path) -> None:
    class Inheriting(Leaky):
        def launch(self, launch: Launch) -> RunningProcess:
            return RunningProcess(replace(launch, env={**os.environ, **launch.env}))

    assert only(PlainSandbox(), "environ-of-init", tmp_path).outcome is Outcome.BLOCKED
    finding = only(Inheriting(), "environ-of-init", tmp_path)
    assert finding.outcome is Outcome.LET_THROUGH
    assert finding.detail == "found the secret of the harness's environment"


def test_an_unbounded_log_is_noticed(tmp_path: Path) -> None:
    assert only(PlainSandbox(), "flood-log", tmp_path).outcome is Outcome.BLOCKED
    assert only(Leaky(log_limit_bytes=1 << 30), "flood-log", tmp_path).outcome is Outcome.LET_THROUGH


def test_survivors_are_noticed_and_ended(tmp_path: Path) -> None:
    """`leave-daemon` started without our supervisor, which would have ended its daemons."""
    with staged(tmp_path) as stage:
        room = stage.lonely_room("leave-daemon")
        stage.write_scene(room, scene(stage))
        subprocess.run(
            [sys.executable, "-I", "-S", room.program, "attack", "scene.json", "leave-daemon"],
            cwd=room.workspace, check=True, capture_output=True,
        )  # fmt: skip
        assert kill_all(room) == 3
        assert room.live_pids() == []


def test_a_sandbox_that_cannot_run_the_attackers_is_a_fault_of_the_machine(tmp_path: Path) -> None:
    with pytest.raises(InfrastructureError, match="hostile probe to start in isolation tier C"):
        only(Leaky(command=(sys.executable, "-c", "raise SystemExit('no')")), "read-home", tmp_path)


def test_an_answer_alone_is_no_proof() -> None:
    """Secrets that are not ours are no loot."""
    with pytest.raises(Blocked):
        canaries("password")
    assert canaries(f"a canary-{'0' * 32} b") == f"canary-{'0' * 32}"


def test_an_attack_that_fails_in_an_unforeseen_way_is_not_blocked(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(scene: Scene) -> str:
        raise ValueError("a defect of the attack")

    def killed(scene: Scene) -> str:
        os.kill(os.getpid(), 31)
        return "still here"

    with staged(tmp_path) as stage:
        surroundings = scene(stage)
    answers = [attacker.carry_out(Attack(run=run, proof=Proof.RESULT), surroundings) for run in (broken, killed)]
    capfd.readouterr()
    assert [answer["outcome"] for answer in answers] == ["unclear", "blocked"]


def test_the_archive_needs_the_standard_library_only(tmp_path: Path) -> None:
    path = tmp_path / "probe.pyz"
    write_archive(path)
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(path), "i386"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert "Error" not in done.stderr


def test_exceptions_have_reasons() -> None:
    assert reason("A", "read-home") is None
    assert reason("B", "read-home") is None
    assert "metadata" in (reason("B", "stat-secret") or "")
    assert reason("C", "leave-daemon") is None
    assert reason("C", "read-home")


def scene(stage: Stage) -> Scene:
    """Surroundings without others."""
    return Scene(
        nonce=stage.attacker.nonce,
        secret_files={},
        artifact=str(stage.artifact),
        log="",
        handle="",
        uts="",
        nameserver="",
        cpus=(),
        oom_score_adj=0,
        max_processes=1,
        max_memory_bytes=1,
        max_disk_bytes=1,
        others=(),
    )


def left_below(top: Path) -> list[str]:
    """Command lines of live processes whose HOME is below `top`; the dying are waited for."""

    def running() -> list[str]:
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with suppress(OSError):
                if f"HOME={top}/".encode() in Path(f"/proc/{pid}/environ").read_bytes():
                    found.append(Path(f"/proc/{pid}/cmdline").read_text())
        return found

    await_true(lambda: not running(), 5.0)
    return running()
