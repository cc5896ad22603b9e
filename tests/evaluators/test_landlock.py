"""Tier B: what each kernel can restrict, what is granted, and what a real command under it can still do."""

from __future__ import annotations

import base64
import errno
import json
import os
import socket
import struct
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from evaluators import bpf, seccomp
from evaluators.confine import landlock_abi
from evaluators.identity import Identity
from evaluators.isolation import choose, facts, why_not_b
from evaluators.landlock import LandlockSandbox, plan_of
from evaluators.landlock_abi import DEVICE, READ, RUN, WRITE, Fs, Net, Scope, handled
from evaluators.launch import Launch
from evaluators.reduced_filter import reduced_program
from evaluators.sandbox import clean_environment
from population.errors import InfrastructureError, IsolationError

ROOT_IDENTITY = Identity(root=True, keep=2)
PLAIN_IDENTITY = Identity(root=False)
ALLOW, KILL = 0x7FFF0000, 0x80000000


@pytest.fixture
def launch(tmp_path: Path) -> Launch:
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    return Launch(
        command=(sys.executable, "-c", "pass"),
        workspace=workspace,
        env=clean_environment(tmp_path / "home"),
        log=tmp_path / "log",
        readable=(tmp_path / "artifacts",),
        ports=(45671,),
    )


# --- what a kernel can restrict ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("abi", "fs", "net", "scope"),
    [
        (1, (1 << 13) - 1, 0, 0),
        (2, (1 << 14) - 1, 0, 0),
        (3, (1 << 15) - 1, 0, 0),
        (4, (1 << 15) - 1, 3, 0),
        (5, (1 << 16) - 1, 3, 0),
        (6, (1 << 16) - 1, 3, 3),
        (7, (1 << 16) - 1, 3, 3),
        (8, (1 << 16) - 1, 3, 3),
        (9, (1 << 17) - 1, 3, 3),
        (99, (1 << 17) - 1, 3, 3),
    ],
)
def test_every_abi_restricts_all_it_can(abi: int, fs: int, net: int, scope: int) -> None:
    assert handled(abi) == (Fs(fs), Net(net), Scope(scope))


def test_older_kernels_never_leave_more_open_in_silence() -> None:
    known = [set(LandlockSandbox(abi, ROOT_IDENTITY).gaps) for abi in range(1, 10)]
    for abi, (older, newer) in enumerate(pairwise(known), start=2):
        assert older >= newer
        lost = handled(abi) != handled(abi - 1)
        # Without REFER (2) more is forbidden; sockets with a path (9) are refused by seccomp before.
        assert (older > newer) == (lost and abi not in (2, 9)), abi
    assert any("TCP" in gap for gap in known[2]) and not any("TCP" in gap for gap in known[3])


def test_a_shared_user_is_a_gap() -> None:
    extra = set(LandlockSandbox(7, PLAIN_IDENTITY).gaps) - set(LandlockSandbox(7, ROOT_IDENTITY).gaps)
    assert len(extra) == 1 and "same user" in extra.pop()


# --- what is granted --------------------------------------------------------------------------------------------------


def rights(launch: Launch, path: str | Path, abi: int = 9) -> Fs:
    return Fs(dict(plan_of(launch, abi, ROOT_IDENTITY)["paths"]).get(str(path), 0))


def test_only_private_folders_can_be_written(launch: Launch, tmp_path: Path) -> None:
    writable = [path for path, mask in plan_of(launch, 9, ROOT_IDENTITY)["paths"] if mask & Fs.MAKE_REG]
    assert writable == [str(tmp_path / "home")]
    assert rights(launch, tmp_path / "home") == WRITE
    assert rights(launch, launch.workspace) == rights(launch, tmp_path / "artifacts") == RUN
    assert rights(launch, "/proc/cpuinfo") == READ
    assert rights(launch, "/dev/null") == DEVICE
    for path in ("/", "/etc", "/tmp", "/proc", "/dev", "/dev/shm", "/root", "/home"):
        assert rights(launch, path) == Fs(0), path
    everything = [*plan_of(launch, 9, ROOT_IDENTITY)["paths"]]
    assert not [path for path, mask in everything if mask & (Fs.MAKE_CHAR | Fs.MAKE_BLOCK)]
    assert not [path for path, mask in everything if mask & Fs.RESOLVE_UNIX]


def test_a_home_of_the_targets_own_choice_is_not_given_away(launch: Launch) -> None:
    elsewhere = replace(launch, env={**launch.env, "HOME": "/usr"})
    assert not rights(elsewhere, "/usr") & Fs.WRITE_FILE


def test_gpus_open_what_cuda_needs_and_more_of_them_what_nccl_needs(launch: Launch) -> None:
    one, two = replace(launch, gpus=("0",)), replace(launch, gpus=("0", "1"))
    assert rights(one, "/dev/nvidia0") & Fs.IOCTL_DEV and not rights(one, "/dev/nvidia1")
    assert rights(one, "/proc") & Fs.WRITE_FILE and not rights(one, "/dev/shm")
    assert rights(two, "/dev/shm") == WRITE


def test_its_own_port_is_all_it_may_listen_on_and_it_connects_nowhere(launch: Launch) -> None:
    assert plan_of(launch, 4, ROOT_IDENTITY)["ports"] == [(45671, Net.BIND_TCP)]


def test_root_becomes_somebody_else_each_time(launch: Launch) -> None:
    uids = {plan_of(launch, 7, ROOT_IDENTITY)["uid"] for _ in range(20)}
    assert len(uids) > 10 and all(uid is not None and uid >= 60000 for uid in uids)
    assert plan_of(launch, 7, PLAIN_IDENTITY)["uid"] is None


def test_plans_are_json(launch: Launch) -> None:
    plan = plan_of(launch, 7, ROOT_IDENTITY)
    assert json.loads(json.dumps(plan))["ports"] == [[45671, 1]]
    assert base64.b64decode(plan["filters"][0]) == seccomp.program()


# --- the second filter ------------------------------------------------------------------------------------------------

NUMBERS = {
    "x86_64": {"socket": 41, "sendto": 44, "sendmsg": 46, "sendmmsg": 307, "prlimit64": 302, "setpriority": 141,
               "ioprio_set": 251, "shmget": 29, "mq_open": 240, "truncate": 76, "fchmodat": 268, "fchownat": 260,
               "utimensat": 280, "read": 0, "inotify_add_watch": 254, "setxattr": 188},
    "aarch64": {"socket": 198, "sendto": 206, "sendmsg": 211, "sendmmsg": 269, "prlimit64": 261, "setpriority": 140,
                "ioprio_set": 30, "shmget": 194, "mq_open": 180, "truncate": 45, "fchmodat": 53, "fchownat": 54,
                "utimensat": 88, "read": 63, "inotify_add_watch": 27, "setxattr": 5},
}  # fmt: skip


def verdict(program: bytes, number: int, *arguments: int) -> int:
    """What the kernel would do: an interpreter of the few instructions that filters are made of."""
    data = struct.pack("=IIQ6Q", number, 0, 0, *(*arguments, *[0] * (6 - len(arguments))))
    code, at, value = bpf.calls(program), 0, 0
    while True:
        operation, if_true, if_false, operand = code[at]
        at += 1
        if operation == 0x20:
            (value,) = struct.unpack_from("=I", data, operand)
        elif operation == 0x54:
            value &= operand
        elif operation in (0x15, 0x45):
            hit = value == operand if operation == 0x15 else bool(value & operand)
            at += if_true if hit else if_false
        else:
            assert operation == 0x06, hex(operation)
            return operand


def outcome(program: bytes, number: int, *arguments: int) -> str:
    result = verdict(program, number, *arguments)
    if result == ALLOW:
        return "allowed"
    return "pretended" if result == 0x50000 else errno.errorcode[result & 0xFFFF]


CASES = [
    ("read", (3,), "allowed"),
    ("socket", (socket.AF_INET, socket.SOCK_STREAM, 0), "allowed"),
    ("socket", (socket.AF_INET6, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, 6), "allowed"),
    ("socket", (socket.AF_INET, socket.SOCK_STREAM, 262), "EACCES"),  # MPTCP
    ("socket", (socket.AF_INET, socket.SOCK_DGRAM, 0), "EACCES"),
    ("socket", (socket.AF_INET, socket.SOCK_RAW, 1), "EACCES"),
    ("socket", (socket.AF_NETLINK, socket.SOCK_RAW, 0), "allowed"),
    ("socket", (socket.AF_NETLINK, socket.SOCK_RAW, 4), "EACCES"),  # sock_diag
    ("socket", (socket.AF_UNIX, socket.SOCK_STREAM, 0), "EACCES"),
    ("sendto", (3, 0, 0, 0x20000000), "EPERM"),  # TCP Fast Open
    ("sendto", (3, 0, 0, 0x4000), "allowed"),
    ("sendmsg", (3, 0, 0x20000000), "EPERM"),
    ("sendmmsg", (3, 0, 1, 0x20000000), "EPERM"),
    ("prlimit64", (0, 7), "allowed"),
    ("prlimit64", (4711, 7), "EPERM"),
    ("setpriority", (0, 0, 5), "allowed"),
    ("setpriority", (0, 4711, 5), "EPERM"),
    ("setpriority", (2, 0, 5), "EPERM"),  # everything of this user
    ("ioprio_set", (1, 0), "allowed"),
    ("ioprio_set", (3, 0), "EPERM"),
    ("shmget", (), "EPERM"),
    ("mq_open", (), "EPERM"),
    ("inotify_add_watch", (), "EPERM"),
    ("truncate", (), "allowed"),
    ("fchmodat", (), "pretended"),
    ("utimensat", (), "pretended"),
    ("fchownat", (), "EPERM"),
    ("setxattr", (), "EPERM"),
]


@pytest.mark.parametrize("machine", list(NUMBERS))
@pytest.mark.parametrize(("call", "arguments", "expected"), CASES)
def test_the_second_filter(machine: str, call: str, arguments: tuple[int, ...], expected: str) -> None:
    code = reduced_program(unix_sockets=False, truncate=True, same_user=True, machine=machine)
    assert outcome(code, NUMBERS[machine][call], *arguments) == expected


@pytest.mark.parametrize("machine", list(NUMBERS))
def test_the_second_filter_yields_to_what_protects_already(machine: str) -> None:
    numbers = NUMBERS[machine]
    code = reduced_program(unix_sockets=True, truncate=False, same_user=False, machine=machine)
    assert outcome(code, numbers["socket"], socket.AF_UNIX, socket.SOCK_STREAM) == "allowed"
    assert outcome(code, numbers["truncate"]) == "EPERM"
    for call in ("fchmodat", "fchownat", "setxattr", "utimensat"):
        assert outcome(code, numbers[call]) == "allowed"


# --- a real command ---------------------------------------------------------------------------------------------------

_ATTEMPTS = r"""
import ctypes, errno, json, os, signal, socket, subprocess, sys
secret, foreign_port, victim, artifact, abstract = sys.argv[1:]
home, results, name = os.environ["HOME"], {}, "vibeserve-test-tier-b"
def attempt(what):
    def run(function):
        try:
            results[what] = repr(function())
        except OSError as error:
            results[what] = errno.errorcode[error.errno]
    return run
def bind(port):
    with socket.socket() as server:
        server.bind(("127.0.0.1", port)); server.listen(); return server.getsockname()[1] > 0
def connect(kind, address):
    with socket.socket(kind) as client:
        client.connect(address); return True
def abstract_socket():
    # The filter refuses sockets with a path by their family; a pair shows that others of it are left.
    return bool(socket.socketpair())
def call(number, *arguments):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(number, *arguments) < 0:
        raise OSError(ctypes.get_errno(), "")
    return True
attempt("write home")(lambda: open(home + "/file", "w").write("x"))
attempt("rename in home")(lambda: (os.mkdir(home + "/d"), os.rename(home + "/file", home + "/d/file")) and True)
attempt("read workspace")(lambda: open("data.txt").read())
attempt("write workspace")(lambda: open("data.txt", "w"))
attempt("create in workspace")(lambda: open("new", "w"))
attempt("read artifact")(lambda: open(artifact).read())
attempt("write artifact")(lambda: open(artifact, "w"))
attempt("truncate artifact")(lambda: os.truncate(artifact, 0))
attempt("remove artifact")(lambda: os.unlink(artifact))
attempt("read secret")(lambda: open(secret).read())
attempt("list secrets")(lambda: os.listdir(os.path.dirname(secret)))
attempt("link secret")(lambda: os.link(secret, home + "/link"))
attempt("read through a symlink")(lambda: (os.symlink(secret, home + "/s"), open(home + "/s").read())[1])
attempt("read shadow")(lambda: open("/etc/shadow").read())
attempt("write tmp")(lambda: open(f"/tmp/{name}", "w"))
attempt("write shared memory")(lambda: open(f"/dev/shm/{name}", "w"))
attempt("environment of another")(lambda: open(f"/proc/{victim}/environ").read())
attempt("command line of another")(lambda: open(f"/proc/{victim}/cmdline").read())
attempt("processes")(lambda: os.listdir("/proc"))
attempt("signal")(lambda: os.kill(int(victim), 0))
attempt("priority of another")(lambda: os.setpriority(os.PRIO_PROCESS, int(victim), 19))
attempt("write a sysctl")(lambda: open("/proc/sys/kernel/core_pattern", "w"))
attempt("own port")(lambda: bind(45671))
attempt("another port")(lambda: bind(45672))
attempt("any port")(lambda: bind(0))
attempt("loopback")(lambda: connect(socket.AF_INET, ("127.0.0.1", int(foreign_port))))
attempt("udp")(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).fileno() >= 0)
attempt("mptcp")(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262).fileno() >= 0)
attempt("unix socket")(lambda: connect(socket.AF_UNIX, abstract))
attempt("socket pair")(abstract_socket)
attempt("namespace")(lambda: call(272 if os.uname().machine == "x86_64" else 97, 0x10000000))
attempt("system v")(lambda: call(29 if os.uname().machine == "x86_64" else 194, 0, 4096, 0o1600))
attempt("own process")(lambda: len(open("/proc/self/status").read()) > 0)
attempt("child")(lambda: subprocess.run([sys.executable, "-c", "print('hi')"], capture_output=True).stdout)
attempt("user")(lambda: os.getuid())
attempt("capabilities")(lambda: [l.split()[1] for l in open("/proc/self/status") if l.startswith("CapEff")][0])
attempt("stat of a secret")(lambda: os.stat(secret).st_size)
print(json.dumps(results))
"""
_WORKS = {
    "write home", "rename in home", "read workspace", "read artifact", "own port", "socket pair", "own process",
    "child", "user", "capabilities", "stat of a secret",
}  # fmt: skip


def tried(launch: Launch, tmp_path: Path, identity: Identity) -> dict[str, str]:
    """Each attempt → what it returned, or the error's name."""
    (launch.workspace / "data.txt").write_text("data")
    vault, artifacts = tmp_path / "vault", tmp_path / "artifacts"
    for folder, name in ((vault, "secret"), (artifacts, "weights")):
        folder.mkdir()
        (folder / name).write_text("treasure")
    with (
        socket.create_server(("127.0.0.1", 0)) as foreign,
        socket.socket(socket.AF_UNIX) as listener,
        subprocess.Popen(["sleep", "60"], env={"TOKEN": "hidden"}) as victim,
    ):
        listener.bind(f"{tmp_path}/socket")
        listener.listen()
        script = tmp_path / "workspace" / "attempts.py"
        script.write_text(_ATTEMPTS)
        port = foreign.getsockname()[1]
        arguments = (vault / "secret", port, victim.pid, artifacts / "weights", tmp_path / "socket")
        command = (sys.executable, str(script), *map(str, arguments))
        with LandlockSandbox(landlock_abi(), identity).launch(replace(launch, command=command)) as process:
            code = process.wait(20)
        victim.kill()
    assert code == 0, launch.log.read_text()
    assert (vault / "secret").read_text() == (artifacts / "weights").read_text() == "treasure"
    found: dict[str, str] = json.loads(launch.log.read_text().splitlines()[-1])
    return found


@pytest.mark.parametrize("identity", [None, PLAIN_IDENTITY], ids=["as we are", "without another user"])
def test_a_real_command_keeps_what_it_needs_and_nothing_else(
    launch: Launch, tmp_path: Path, identity: Identity | None
) -> None:
    problem = why_not_b(facts())
    if problem is not None:  # a machine without Landlock must say so
        with pytest.raises(IsolationError, match="tier B") as refusal:
            choose(allow_reduced=True, first_party=False, given=replace(facts(), bubblewrap=problem))
        assert problem.cause in str(refusal.value)
        return
    who = identity or Identity.of_this_process()
    found = tried(launch, tmp_path, who)
    failed = {name for name, result in found.items() if result in errno.errorcode.values()}
    abi = landlock_abi()
    open_here = {"loopback", "another port", "any port"} if abi < 4 else set()
    open_here |= {"signal"} if abi < 6 and not who.root else set()
    works = _WORKS - ({"rename in home"} if abi < 2 else set())
    assert set(found) - failed == works | open_here
    assert found["stat of a secret"] == "8"  # the gap that every kernel has
    if who.root:
        assert int(found["user"]) >= 60000
    else:
        assert found["capabilities"].strip("'") == "0" * 16
        assert int(found["user"]) == os.getuid()


@pytest.mark.parametrize("identity", [None, PLAIN_IDENTITY], ids=["as we are", "without another user"])
def test_modes_of_others_files_cannot_be_changed(launch: Launch, tmp_path: Path, identity: Identity | None) -> None:
    """Landlock lets chmod pass: the second filter swallows it, or another user is not allowed to."""
    victim = tmp_path / "victim"
    victim.write_text("x")
    victim.chmod(0o640)
    script = f"import os, shutil; shutil.copy(__file__, os.environ['HOME'] + '/copy'); os.chmod({str(victim)!r}, 0o777)"
    (launch.workspace / "change.py").write_text(script)
    command = (sys.executable, "change.py")
    if why_not_b(facts()) is None:
        who = identity or Identity.of_this_process()
        with LandlockSandbox(landlock_abi(), who).launch(replace(launch, command=command)) as process:
            code = process.wait(20)
        assert code == (1 if who.root else 0), launch.log.read_text()
        assert (tmp_path / "home" / "copy").exists()
    assert victim.stat().st_mode & 0o777 == 0o640


def test_a_plan_that_the_kernel_refuses_is_the_machines_fault(launch: Launch) -> None:
    """Nothing may run with less isolation than was asked for."""
    impossible, command = Identity(root=True, keep=63), (sys.executable, "-c", "print('escaped')")
    with pytest.raises(InfrastructureError):
        LandlockSandbox(1, impossible).launch(replace(launch, command=command))
    assert not launch.log.exists() or "escaped" not in launch.log.read_text()
