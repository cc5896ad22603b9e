"""Decides which attacks go for more rights: namespaces of its own, another user, priority, limits, CPUs."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from evaluators.hostile.attack import Attack, Blocked, Proof, Scene, first_success
from evaluators.hostile.syscalls import call

_CLONE_NEWNS, _CLONE_NEWUSER, _CLONE_NEWNET = 0x00020000, 0x10000000, 0x40000000


class _CloneArguments(ctypes.Structure):
    """struct clone_args, as of Linux 5.3."""

    _fields_ = tuple(
        (name, ctypes.c_uint64)
        for name in ("flags", "pidfd", "child_tid", "parent_tid", "exit_signal", "stack", "stack_size", "tls")
    )


def leave_cpus(scene: Scene) -> str:
    """Leaves the CPUs that it was given."""
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    now = os.sched_getaffinity(0)
    if now <= set(scene.cpus):
        raise Blocked(f"still on CPUs {sorted(now)}")
    return f"now on CPUs {sorted(now)}"


def unshare_user(scene: Scene) -> str:
    """Makes a nested user namespace (unshare)."""
    call("unshare", _CLONE_NEWUSER)
    return "a new user namespace"


def clone_user(scene: Scene) -> str:
    """Makes a nested user namespace (clone)."""
    return _await_child(lambda: call("clone", _CLONE_NEWUSER | signal.SIGCHLD, 0, 0, 0, 0))


def clone3_user(scene: Scene) -> str:
    """Makes a nested user namespace (clone3, whose flags a filter cannot see)."""
    arguments = _CloneArguments(flags=_CLONE_NEWUSER, exit_signal=signal.SIGCHLD)
    return _await_child(lambda: call("clone3", arguments, ctypes.sizeof(arguments)))


def unshare_others(scene: Scene) -> str:
    """Makes other nested namespaces: mounts, network (unshare)."""
    return first_success([partial(_unshare, kind) for kind in (_CLONE_NEWNS, _CLONE_NEWNET)])


def become_root(scene: Scene) -> str:
    """Runs as the machine's root, or becomes it (setuid)."""
    with suppress(OSError):
        os.setuid(0)
    outside = Path("/proc/self/uid_map").read_text().split()
    if os.getuid() != 0 or outside[:2] != ["0", "0"]:
        raise Blocked(f"is uid {os.getuid()}, map {' '.join(outside)}")
    return "is uid 0 of the machine"


def setuid_programs(scene: Scene) -> str:
    """Could gain rights by a set-uid program."""
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
    if status.get("NoNewPrivs") == "1":
        raise Blocked("no_new_privs is set")
    return "no_new_privs is not set"


def raise_priority(scene: Scene) -> str:
    """Raises its own priority (nice -20)."""
    os.setpriority(os.PRIO_PROCESS, 0, -20)
    return f"nice {os.getpriority(os.PRIO_PROCESS, 0)}"


def realtime_scheduling(scene: Scene) -> str:
    """Runs before everybody else (SCHED_FIFO)."""
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    return "is a real-time process"


def lower_oom_score(scene: Scene) -> str:
    """Has others killed before it when memory runs out (oom_score_adj)."""
    Path("/proc/self/oom_score_adj").write_text(str(max(-1000, scene.oom_score_adj - 1)))
    return "oom_score_adj is below the harness's"


def raise_limits(scene: Scene) -> str:
    """Raises a hard resource limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    if hard == resource.RLIM_INFINITY:
        return "RLIMIT_CORE is unlimited"
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (hard, hard + 1))
    except ValueError as error:  # Python's word for EPERM here
        raise Blocked(str(error)) from error
    return "RLIMIT_CORE is higher now"


def _unshare(kind: int) -> str:
    call("unshare", kind)
    return f"unshare({kind:#x}) worked"


def _await_child(clone: Callable[[], int]) -> str:
    pid = clone()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return "a child in a new user namespace"


ATTACKS = (
    Attack(run=clone3_user, proof=Proof.RESULT, needs=("clone3",)),
    *(Attack(run=run, proof=Proof.RESULT) for run in (unshare_user, clone_user, unshare_others, become_root)),
    *(Attack(run=run, proof=Proof.RESULT) for run in (setuid_programs, raise_priority, realtime_scheduling)),
    *(Attack(run=run, proof=Proof.RESULT) for run in (lower_oom_score, raise_limits, leave_cpus)),
)
