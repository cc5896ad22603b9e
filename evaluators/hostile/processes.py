"""Decides which attacks go for other processes: their memory, files, environment, namespaces and schedule."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from evaluators.hostile.attack import Attack, Blocked, Other, Proof, Scene, canaries, first_success, read
from evaluators.hostile.syscalls import call

_PTRACE_SEIZE = 0x4206
_SECRET_BYTES = 64


class _Span(ctypes.Structure):
    """struct iovec."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def environ_of_others(scene: Scene) -> str:
    """Reads other processes' environment variables through /proc."""
    return canaries(_of_all(scene, "environ"))


def environ_of_init(scene: Scene) -> str:
    """Looks for the harness's environment in its own, its parent's and that of process 1."""
    found = []
    for pid in ("self", scene.parent, 1):
        with suppress(OSError):
            found.append(read(f"/proc/{pid}/environ"))
    return canaries(" ".join(found))


def cmdline_of_others(scene: Scene) -> str:
    """Reads other processes' command lines."""
    return canaries(_of_all(scene, "cmdline"))


def memory_of_others(scene: Scene) -> str:
    """Reads another process's memory (process_vm_readv)."""
    return first_success([partial(_peek, other) for other in scene.others])


def write_memory_of_others(scene: Scene) -> str:
    """Writes into another process's memory (process_vm_writev)."""
    return first_success([partial(_poke, other) for other in scene.others])


def proc_mem_of_others(scene: Scene) -> str:
    """Reads another process's memory through /proc/PID/mem."""
    return first_success([partial(_read_mem, other) for other in scene.others])


def write_proc_mem_of_others(scene: Scene) -> str:
    """Writes into another process's memory through /proc/PID/mem."""
    return first_success([partial(_write_mem, other) for other in scene.others])


def steal_descriptor(scene: Scene) -> str:
    """Duplicates another process's open file (pidfd_getfd)."""
    return first_success([partial(_steal, other) for other in scene.others])


def ptrace_others(scene: Scene) -> str:
    """Traces a sibling or a process of the harness."""
    return first_success([partial(_trace, scene, other.pid) for other in scene.others])


def ptrace_parent(scene: Scene) -> str:
    """Traces the process that started it."""
    return first_success([partial(_trace, scene, pid) for pid in (scene.parent, 1)])


def stop_others(scene: Scene) -> str:
    """Stops a sibling or a process of the harness by a signal."""
    return first_success([partial(_stop, scene, other.pid) for other in scene.others])


def reschedule_others(scene: Scene) -> str:
    """Moves others to other CPUs, or changes their priority or limits."""
    ways: list[Callable[[], str]] = []
    for other in scene.others:
        ways += [partial(_move, scene, other.pid), partial(_limit, scene, other.pid)]
    return first_success(ways)


def join_namespaces(scene: Scene) -> str:
    """Enters the namespaces of process 1 and of others (setns)."""
    ways = [
        partial(_join, pid, kind)
        for pid in (1, *(other.pid for other in scene.others))
        for kind in ("mnt", "pid", "net", "ipc", "uts", "user")
    ]
    return first_success(list(ways))


def _of_all(scene: Scene, name: str) -> str:
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            if not _mine(scene, int(pid)):
                found.append(read(f"/proc/{pid}/{name}", 1 << 20))
    return " ".join(found)


def _mine(scene: Scene, pid: int) -> bool:
    """Inside a pid namespace the number of a process outside may be that of one of ours."""
    try:
        return scene.nonce in read(f"/proc/{pid}/cmdline")
    except OSError:
        return False


def _others_only(scene: Scene, pid: int) -> None:
    if pid <= 0 or _mine(scene, pid):
        raise Blocked("no such process in sight")


def _peek(other: Other) -> str:
    buffer = ctypes.create_string_buffer(_SECRET_BYTES)
    here = _Span(ctypes.addressof(buffer), _SECRET_BYTES)
    there = _Span(other.secret_address, _SECRET_BYTES)
    call("process_vm_readv", other.pid, here, 1, there, 1, 0)
    return canaries(buffer.raw.decode(errors="replace"))


def _poke(other: Other) -> str:
    buffer = ctypes.create_string_buffer(b"write-memory-of-others")
    here, there = (_Span(address, len(buffer)) for address in (ctypes.addressof(buffer), other.board_address))
    return f"{call('process_vm_writev', other.pid, here, 1, there, 1, 0)} bytes written"


def _read_mem(other: Other) -> str:
    with open(f"/proc/{other.pid}/mem", "rb", buffering=0) as memory:
        memory.seek(other.secret_address)
        return canaries(memory.read(_SECRET_BYTES).decode(errors="replace"))


def _write_mem(other: Other) -> str:
    with open(f"/proc/{other.pid}/mem", "r+b", buffering=0) as memory:
        memory.seek(other.board_address + _SECRET_BYTES)
        return f"{memory.write(b'write-proc-mem-of-others')} bytes written"


def _steal(other: Other) -> str:
    stolen = call("pidfd_getfd", call("pidfd_open", other.pid, 0), other.secret_fd, 0)
    return canaries(os.pread(stolen, 4096, 0).decode(errors="replace"))


def _trace(scene: Scene, pid: int) -> str:
    _others_only(scene, pid)
    call("ptrace", _PTRACE_SEIZE, pid, 0, 0)  # ends with this process, and stops nobody
    return f"traces process {pid}"


def _stop(scene: Scene, pid: int) -> str:
    _others_only(scene, pid)
    os.kill(pid, signal.SIGSTOP)
    return f"stopped process {pid}"


def _move(scene: Scene, pid: int) -> str:
    _others_only(scene, pid)
    os.sched_setaffinity(pid, os.sched_getaffinity(pid))
    os.setpriority(os.PRIO_PROCESS, pid, os.getpriority(os.PRIO_PROCESS, pid))
    return f"may reschedule process {pid}"


def _limit(scene: Scene, pid: int) -> str:
    _others_only(scene, pid)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, resource.prlimit(pid, resource.RLIMIT_NOFILE))
    return f"may limit process {pid}"


def _join(pid: int, kind: str) -> str:
    namespace = os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY)
    call("setns", namespace, 0)
    return f"entered the {kind} namespace of process {pid}"


ATTACKS = (
    *(Attack(run=run, proof=Proof.LOOT) for run in (environ_of_others, environ_of_init, cmdline_of_others)),
    Attack(run=memory_of_others, proof=Proof.LOOT, needs=("process_vm_readv",)),
    Attack(run=write_memory_of_others, proof=Proof.EFFECT, needs=("process_vm_writev",)),
    Attack(run=proc_mem_of_others, proof=Proof.LOOT),
    Attack(run=write_proc_mem_of_others, proof=Proof.EFFECT),
    Attack(run=steal_descriptor, proof=Proof.LOOT, needs=("pidfd_open", "pidfd_getfd")),
    *(Attack(run=run, proof=Proof.RESULT) for run in (ptrace_others, ptrace_parent, reschedule_others)),
    Attack(run=join_namespaces, proof=Proof.RESULT),
    Attack(run=stop_others, proof=Proof.EFFECT),
)
