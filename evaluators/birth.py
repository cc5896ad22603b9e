"""Decides what a command's process is when it begins: limits, network, mounts, user, and nothing inherited.

Standard library only: the supervisor runs it without site-packages, between fork and exec in a process with one thread,
which is what entering namespaces takes.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import os
import resource
import signal
import sys
from typing import Any

_PR_SET_PDEATHSIG = 1
_CLONE_NEWNS, _CLONE_NEWUSER, _CLONE_NEWNET = 0x20000, 0x10000000, 0x40000000
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_BIND, _MS_REC, _MS_PRIVATE = 1, 2, 4, 4096, 16384, 1 << 18


class Refused(Exception):
    """The machine did not let us prepare the process; the message says what."""


def become(spec: dict[str, Any], output: int, status: int, supervisor: int) -> bytes:
    """Execute the command; returns only if that failed: `1` (the machine's fault) or `0`, and why, in words."""
    try:
        prepare(spec, output, status, supervisor)
        if spec["confine"]:
            from evaluators.confine import confine

            confine(spec["confine"])
            die_with(supervisor)  # once more: a change of user forgets it
        os.execvpe(spec["argv"][0], spec["argv"], spec["env"])
    except Refused as refusal:
        return b"1" + str(refusal).encode()
    except OSError as error:
        return b"0" + f"{error.strerror}: {spec['argv'][0]}".encode()


def prepare(spec: dict[str, Any], output: int, status: int, supervisor: int) -> None:
    """In the child, before exec: nothing of the owner's process state may reach the command."""
    os.setsid()
    die_with(supervisor)
    for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
    signal.set_wakeup_fd(-1)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    os.umask(0o022)
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, 0)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write(str(spec["oom_score_adj"]))
    set_affinity(spec["cpus"])
    enter_pod(spec["pod"])
    limit(spec["limits"])  # in the pod's user namespace a limit on processes counts those in it alone
    if spec["hidden"] or spec["stages"]:
        own_mounts()
        hide(spec["hidden"])
        stage(spec["stage"], spec["stages"])
    os.chdir(spec["cwd"])
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    if spec["status_fd"] is not None:
        os.dup2(status, spec["status_fd"])
    for number, content in spec["files"].items():
        provide(int(number), base64.b64decode(content))
    drop_to(spec["uid"])
    die_with(supervisor)  # once more: a change of user forgets it


def die_with(supervisor: int) -> None:
    """SIGKILL when the supervisor ends, however it ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != supervisor:
            os._exit(127)


def limit(limits: dict[str, int]) -> None:
    """Names of `resource.RLIMIT_*` → limit, or what is left of it."""
    for name, wanted in limits.items():
        number = getattr(resource, name)
        _, hard = resource.getrlimit(number)
        value = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(number, (value, value))


def enter_pod(holder: int | None) -> None:
    """Join the network of the pod that `holder` keeps, as an ordinary user through its user namespace."""
    if holder is None:
        return
    if os.getuid() != 0:
        _enter(f"/proc/{holder}/ns/user", _CLONE_NEWUSER)
    _enter(f"/proc/{holder}/ns/net", _CLONE_NEWNET)


def own_mounts() -> None:
    """From here on mounts are this process's own business."""
    if _libc().unshare(_CLONE_NEWNS) != 0:
        raise Refused(f"cannot make a mount namespace: {os.strerror(ctypes.get_errno())}")
    _mount(None, "/", _MS_REC | _MS_PRIVATE)


def hide(folders: list[str]) -> None:
    """An empty read-only folder in the place of each of these."""
    for folder in folders:
        _mount("tmpfs", folder, _MS_RDONLY | _MS_NOSUID | _MS_NODEV, kind="tmpfs", options="size=4k,mode=755")


def stage(folder: str, sources: list[str]) -> None:
    """`folder`/0, /1, … become the sources: reachable for every user, whatever the folders above them permit."""
    if not sources:
        return
    # Opened first: the folder may hide them.
    opened = [_open_path(source) for source in sources]
    _mount("tmpfs", folder, _MS_NOSUID | _MS_NODEV, kind="tmpfs", options="size=1m,mode=755")
    for number, (descriptor, source) in enumerate(zip(opened, sources, strict=True)):
        place = f"{folder}/{number}"
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            os.mkdir(place, 0o755)
        else:
            os.close(os.open(place, os.O_CREAT | os.O_WRONLY, 0o644))
        try:
            _mount(f"/proc/self/fd/{descriptor}", place, _MS_BIND | _MS_REC)
        except Refused as refusal:
            raise Refused(f"{refusal} (for {source})") from refusal
        os.close(descriptor)


def provide(number: int, content: bytes) -> None:
    """Descriptor `number` reads `content`."""
    memory = os.memfd_create("vibeserve", 0)
    os.write(memory, content)
    os.lseek(memory, 0, os.SEEK_SET)
    os.dup2(memory, number)
    os.close(memory)


def drop_to(uid: int | None) -> None:
    """Become an ordinary user without groups, for good."""
    if uid is None:
        return
    try:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    except OSError as error:
        raise Refused(f"cannot become user {uid}: {error.strerror}") from error


def affinity() -> list[int]:
    """CPUs that this process may use; empty where the system does not tell."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def set_affinity(cpus: list[int]) -> None:
    """Restrict this process to `cpus`; empty or forbidden: leave it where it is."""
    if cpus and hasattr(os, "sched_setaffinity"):
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, cpus)


def _enter(path: str, kind: int) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise Refused(f"the pod is gone ({path}: {error.strerror})") from error
    code = _libc().setns(descriptor, kind)
    os.close(descriptor)
    if code != 0:
        raise Refused(f"cannot enter {path}: {os.strerror(ctypes.get_errno())}")


def _open_path(path: str) -> int:
    try:
        return os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        raise Refused(f"cannot stage {path}: {error.strerror}") from error


def _mount(source: str | None, target: str, flags: int, kind: str | None = None, options: str | None = None) -> None:
    texts = [None if text is None else os.fsencode(text) for text in (source, target, kind, options)]
    if _libc().mount(texts[0], texts[1], texts[2], ctypes.c_ulong(flags), texts[3]) != 0:
        raise Refused(f"cannot mount on {target}: {os.strerror(ctypes.get_errno())}")


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
