"""Tier A: what a command sees, may do and may use, asked from inside, one launch for most of it."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import socket
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evaluators import bpf, seccomp
from evaluators.bubblewrap import BubblewrapSandbox, available
from evaluators.evaluator import EvaluationTask, Lease
from evaluators.launch import Launch
from evaluators.limits import Limits, usable_controllers
from evaluators.pipeline import LocalEvaluator
from evaluators.process import NotExecutable
from evaluators.sandbox import clean_environment
from evaluators.view import build
from population.evaluation import Scored

pytestmark = pytest.mark.tier("A")

MEBIBYTE = 1 << 20
LIMITS = Limits(memory_bytes=256 * MEBIBYTE, temporary_bytes=4 * MEBIBYTE, pids=64)
INSIDE = r"""
import ctypes, errno, fcntl, json, os, socket, subprocess, sys
libc = ctypes.CDLL(None, use_errno=True)

def call(number, *arguments):
    code = libc.syscall(*map(ctypes.c_long, (number, *arguments)))
    return 0 if code >= 0 else ctypes.get_errno()

def attempt(action):
    try:
        action()
    except OSError as error:
        return error.errno
    return 0

def fill(place):
    with open(place + "/big", "wb") as file:
        for _ in range(8):
            file.write(bytes(1 << 20))
            file.flush()

def connect(port):
    socket.create_connection(("127.0.0.1", port), timeout=2).close()

secret, artifacts, port = sys.argv[1:]
x86 = os.uname().machine == "x86_64"
calls = {
    "unshare user": (272 if x86 else 97, 0x10000000), "unshare net": (272 if x86 else 97, 0x40000000),
    "clone user": (56 if x86 else 220, 0x10000000 | 17, 0, 0, 0, 0), "setns": (308 if x86 else 268, 0, 0),
    "mount": (165 if x86 else 40, 0, 0, 0, 0, 0), "umount2": (166 if x86 else 39, 0, 0),
    "pivot_root": (155 if x86 else 41, 0, 0), "open_tree": (428, 0, 0, 0), "chroot": (161 if x86 else 51, 0),
    "ptrace": (101 if x86 else 117, 0, 0, 0, 0), "process_vm_writev": (311 if x86 else 271, 0, 0, 0, 0, 0, 0),
    "bpf": (321 if x86 else 280, 0, 0, 0), "keyctl": (250 if x86 else 219, 0, 0, 0, 0, 0),
    "io_uring_setup": (425, 1, 0), "settimeofday": (164 if x86 else 170, 0, 0),
    "clock_settime": (227 if x86 else 112, 0, 0), "userfaultfd": (323 if x86 else 282, 0),
    "perf_event_open": (298 if x86 else 241, 0, 0, -1, -1, 0),
}
print(json.dumps({
    "uids": [os.getuid(), os.geteuid(), os.getgid()], "groups": os.getgroups(),
    "capabilities": [line.split()[1] for line in open("/proc/self/status") if line.startswith("Cap")],
    "status": {k: v.strip() for k, v in (line.split(":", 1) for line in open("/proc/self/status"))},
    "env": dict(os.environ), "init_env": open("/proc/1/environ").read(), "init": open("/proc/1/cmdline").read(),
    "pids": sorted(int(name) for name in os.listdir("/proc") if name.isdigit()), "pid": os.getpid(),
    "namespaces": {n: os.readlink(f"/proc/self/ns/{n}") for n in ("user", "pid", "net", "ipc", "uts", "mnt")},
    "hostname": socket.gethostname(), "interfaces": [name for _, name in socket.if_nameindex()],
    "root": sorted(os.listdir("/")), "dev": sorted(os.listdir("/dev")), "tmp": os.listdir("/tmp"),
    "seen": [p for p in (secret, "/root/.ssh", "/tmp/ray", "/var", "/run", "/etc/shadow") if os.path.exists(p)],
    "calls": {name: call(*arguments) for name, arguments in calls.items()},
    "clone3": call(435, 0, 0), "tiocsti": attempt(lambda: fcntl.ioctl(0, 0x5412, b"x")),
    "vsock": attempt(lambda: socket.socket(40, socket.SOCK_STREAM)),
    "host_port": attempt(lambda: connect(int(port))),
    "writes": {p: attempt(lambda p=p: open(p, "a").close()) for p in
               ("server.py", "new", artifacts + "/weights", artifacts + "/new", "/usr/new", "/new", "/dev/new")},
    "private": {p: attempt(lambda p=p: fill(p)) for p in ("/tmp", "/dev/shm", os.environ["HOME"])},
    "threads_ok": subprocess.run(["/bin/true"]).returncode,
}))
"""


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace, artifacts, and a secret beside them."""
    folder = tmp_path_factory.mktemp("ground")
    for name, text in (("workspace/server.py", "serve"), ("artifacts/weights", "0"), ("secret/key", "sk-1")):
        path = folder / name
        path.parent.mkdir()
        path.write_text(text)
    return folder


def launch(ground: Path, script: str, *arguments: str, **changes: Any) -> Launch:
    settings: dict[str, Any] = {
        "command": (sys.executable, "-c", script, *arguments), "workspace": ground / "workspace",
        "env": clean_environment(ground / "home", extra={"DECLARED": "yes"}), "log": ground / "log",
        "readable": (ground / "artifacts",),
    }  # fmt: skip
    return Launch(**{**settings, **changes})


def run(given: Launch, limits: Limits = LIMITS, timeout_s: float = 20.0) -> tuple[int | None, str]:
    """Exit code and output."""
    with BubblewrapSandbox(limits=limits).launch(given) as process:
        code = process.wait(timeout_s)
    return code, process.log_tail(50) if code else given.log.read_text()


@pytest.fixture(scope="module")
def inside(ground: Path) -> dict[str, Any]:
    """What a command in tier A says of its world."""
    before = os.environ.get("OPENAI_API_KEY")
    os.environ["OPENAI_API_KEY"] = "sk-of-the-host"
    try:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            port = str(listening.getsockname()[1])
            given = launch(ground, INSIDE, str(ground / "secret/key"), str(ground / "artifacts"), port)
            code, output = run(given)
    finally:
        os.environ.pop("OPENAI_API_KEY") if before is None else os.environ.update(OPENAI_API_KEY=before)
    assert code == 0, output
    found: dict[str, Any] = json.loads(output)
    return found


def test_it_can_be_had_here() -> None:
    assert available() is None


def test_nobody_special(inside: dict[str, Any]) -> None:
    assert 0 not in inside["uids"]
    assert set(inside["groups"]) <= {inside["uids"][2], 65534}
    assert {int(mask, 16) for mask in inside["capabilities"]} == {0}
    assert inside["status"]["NoNewPrivs"] == "1"
    assert inside["status"]["Seccomp"] == "2"


def test_the_environment_is_the_given_one_for_init_as_well(inside: dict[str, Any], ground: Path) -> None:
    given = set(clean_environment(ground / "home", extra={"DECLARED": "yes"}))
    assert set(inside["env"]) - {"LC_CTYPE", "PWD"} == given
    assert {entry.partition("=")[0] for entry in inside["init_env"].split("\0") if entry} - {"PWD"} <= given
    assert "sk-" not in inside["init_env"]
    assert "--ro-bind" not in inside["init"]  # options come on a descriptor


def test_namespaces_are_its_own(inside: dict[str, Any]) -> None:
    for name, link in inside["namespaces"].items():
        assert link != os.readlink(f"/proc/self/ns/{name}"), name
    assert inside["pids"] == [1, inside["pid"]]
    assert inside["hostname"] == "candidate"
    assert inside["interfaces"] == ["lo"]
    assert inside["host_port"] == errno.ECONNREFUSED


def test_the_root_is_minimal(inside: dict[str, Any]) -> None:
    assert inside["seen"] == []
    assert inside["tmp"] == [] or Path(inside["env"]["HOME"]).is_relative_to("/tmp")
    allowed = {"usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "etc", "proc", "dev", "tmp", "sys"}
    granted = {Path(path).parts[1] for path in (sys.prefix, sys.base_prefix, inside["env"]["HOME"])}
    assert set(inside["root"]) <= allowed | granted
    assert not [name for name in inside["dev"] if name.startswith(("nvidia", "sd", "vd", "kvm", "mem", "fuse"))]


def test_workspace_and_artifacts_are_read_only(inside: dict[str, Any]) -> None:
    assert set(inside["writes"].values()) <= {errno.EROFS, errno.EACCES}, inside["writes"]


def test_system_calls_that_undo_isolation_are_refused(inside: dict[str, Any]) -> None:
    assert {name: code for name, code in inside["calls"].items() if code != errno.EPERM} == {}
    assert inside["clone3"] == errno.ENOSYS
    assert inside["tiocsti"] == errno.EPERM
    assert inside["vsock"] == errno.EAFNOSUPPORT
    assert inside["threads_ok"] == 0


def test_without_the_filter_there_are_no_nested_user_namespaces_either(
    ground: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--disable-userns` by itself, should the filter ever miss a call; ENOSPC: no more of them are permitted."""
    monkeypatch.setattr(seccomp, "program", lambda **_: bpf.allow())
    script = (
        "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        "for flags in (0x10000000, 0x40000000): print(libc.unshare(flags), ctypes.get_errno())"
    )
    assert run(launch(ground, script)) == (0, f"-1 {errno.ENOSPC}\n-1 {errno.EPERM}\n")


def test_private_folders_are_there_and_sized(inside: dict[str, Any]) -> None:
    assert set(inside["private"].values()) == {errno.ENOSPC}


def test_what_is_writable_is_and_it_is_the_commands(ground: Path) -> None:
    scratch = ground / "scratch"
    scratch.mkdir(mode=0o700)
    script = f"open({str(scratch / 'made')!r}, 'w').write('x'); print(oct(__import__('os').umask(0)))"
    code, output = run(launch(ground, script, writable=(scratch,)))
    assert (code, output.strip()) == (0, "0o22")
    assert (scratch / "made").read_text() == "x"
    assert (scratch / "made").stat().st_uid != 0


def test_memory_above_the_limit_ends_it(ground: Path) -> None:
    code, output = run(launch(ground, "x = bytearray(400 << 20); print(len(x))"))
    assert code == -9, output
    assert "memory" in output


def test_processes_above_the_limit_are_refused(ground: Path) -> None:
    script = (
        "import os, time\nmade = 0\n"
        "try:\n    while made < 500:\n        if os.fork() == 0: time.sleep(30)\n        made += 1\n"
        "except OSError as error: print(error.errno, made, flush=True)"
    )
    with BubblewrapSandbox().pod() as pod:
        code, output = run(launch(ground, script, pod=pod.holder_pid))
    number, made = map(int, output.split()[:2])
    assert (code, number) == (0, errno.EAGAIN)
    assert made < LIMITS.pids


def test_without_control_groups_a_watchdog_ends_it_and_the_gaps_say_so(ground: Path) -> None:
    sandbox = BubblewrapSandbox(limits=LIMITS, controllers=())
    assert [gap.partition(":")[0] for gap in sandbox.gaps][:2] == ["memory", "processes"]
    assert {gap.partition(":")[0] for gap in BubblewrapSandbox().gaps}.isdisjoint(
        {"memory"} if any(each.resource == "memory" for each in usable_controllers()) else set()
    )
    with sandbox.launch(launch(ground, "import time\nx = bytearray(400 << 20)\ntime.sleep(30)")) as process:
        assert process.wait(10) == -9
        assert "more than 256 MiB of memory" in process.log_tail()


def test_a_missing_command_is_not_the_machines_fault(ground: Path) -> None:
    sandbox = BubblewrapSandbox(limits=LIMITS)
    given = replace(launch(ground, ""), command=("nothing-here",))
    with pytest.raises(NotExecutable, match="nothing-here"), sandbox.launch(given) as process:
        process.wait(10)


def test_exit_codes_and_signals_come_through(ground: Path) -> None:
    assert run(launch(ground, "raise SystemExit(3)"))[0] == 3
    assert run(launch(ground, "import os; os.kill(os.getpid(), 11)"))[0] == -11


def test_only_assigned_gpus_are_mounted(ground: Path) -> None:
    view = build(launch(ground, "", gpus=("3",)), staged=False, uid=1, temporary_bytes=1, first_fd=110)
    nodes = {option for option in view.options if option.startswith("/dev/nvidia")}
    assert nodes == {"/dev/nvidia3", "/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools"}
    none = build(launch(ground, ""), staged=False, uid=1, temporary_bytes=1, first_fd=110)
    assert not [option for option in none.options if "nvidia" in option]


def tree_hash(top: Path) -> str:
    """Over names, modes and contents."""
    parts = hashlib.sha256()
    for path in sorted(top.rglob("*")):
        content = path.read_bytes() if path.is_file() else b""
        parts.update(f"{path.relative_to(top)}\0{path.lstat().st_mode}\0".encode() + content)
    return parts.hexdigest()


def test_an_evaluation_leaves_artifacts_and_tree_as_they_were(
    task: EvaluationTask, lease: Lease, artifacts_cache: Path
) -> None:
    evaluator = LocalEvaluator(sandbox=BubblewrapSandbox(), cache=artifacts_cache, noise_retries=0)
    assert isinstance(evaluator.evaluate(task, lease, lambda _: None), Scored)  # builds the artifacts
    before = tree_hash(artifacts_cache)
    again = evaluator.evaluate(task, lease, lambda _: None)
    assert isinstance(again, Scored), again
    assert again.tier == "A"
    assert tree_hash(artifacts_cache) == before
