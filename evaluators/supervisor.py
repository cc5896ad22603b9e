"""Decides when a process tree ends: runs one command, and kills all its descendants when it ends or its owner does.

Run as `python -I -S supervisor.py`, standard library only, detached by a double fork, so that nobody who kills the
owner's children kills it too. It is a subreaper: daemons that the command leaves behind become its children and die
with the rest.

Control (stdin), one line each: first the spec as JSON, then `stop SECONDS` (SIGTERM, later SIGKILL) or `kill`. End of
file, or the owner's death, means `kill`. Status (stdout), one JSON object per line: {"supervisor": pid}, then
{"started": pid} or {"failed": text}, and at last {"exited": code} once no descendant is left (negative code: the
signal, as in subprocess).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import resource
import select
import signal
import sys
import time
from typing import Any

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_SWEEP_S = 0.002
_READ_BYTES = 1 << 16


def main() -> int:
    """Detach, run the command of the spec, return when its whole tree is gone."""
    if os.fork():
        return 0  # the owner waits for this half only
    os.setsid()
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    control = Control()
    report({"supervisor": os.getpid()})
    Supervisor(control.spec(), control).run()
    os._exit(0)  # the tree is gone: nothing is worth the interpreter's clean-up


def report(status: dict[str, Any]) -> None:
    """Tell the owner; an owner that is gone already will not miss it."""
    with contextlib.suppress(BrokenPipeError):
        os.write(1, json.dumps(status).encode() + b"\n")


class Control:
    """Lines from the owner; `closed` once it is gone."""

    def __init__(self) -> None:
        self._buffer = b""
        self.closed = False

    def spec(self) -> dict[str, Any]:
        while b"\n" not in self._buffer and not self.closed:
            self._read()
        lines = self.lines()
        if not lines:
            raise SystemExit(0)
        spec: dict[str, Any] = json.loads(lines[0])
        return spec

    def lines(self) -> list[str]:
        """Complete lines received so far, each once."""
        *lines, self._buffer = self._buffer.split(b"\n")
        return [line.decode() for line in lines]

    def receive(self) -> list[str]:
        self._read()
        return self.lines()

    def _read(self) -> None:
        chunk = os.read(0, _READ_BYTES)
        self.closed = self.closed or not chunk
        self._buffer += chunk


class Supervisor:
    """One command and everything that descends from it."""

    def __init__(self, spec: dict[str, Any], control: Control) -> None:
        self._spec = spec
        self._control = control
        self._log = Log(spec["log"], spec["log_limit_bytes"])
        self._child = 0
        self._code: int | None = None
        self._kill_at: float | None = None

    def run(self) -> None:
        wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC) if hasattr(os, "pipe2") else os.pipe()
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(number, signal.SIG_IGN)
        self._child, output, failure = start(self._spec)
        if failure:
            report({"failed": failure})
            os.waitpid(self._child, 0)
            return
        report({"started": self._child})
        own_cpus = affinity()
        set_affinity(self._spec["cpus"] or own_cpus)  # pumping the log must not disturb the client's CPU
        self._watch(wake_read, output)
        set_affinity(own_cpus)  # nor may the command's CPU load delay the kill
        self._sweep()
        self._log.drain(output)
        report({"exited": self._code if self._code is not None else -signal.SIGKILL})

    def _watch(self, wake: int, output: int) -> None:
        """Return when the command has ended, or is to be killed."""
        sources = [0, wake, output]
        owner = open_pidfd(self._spec["owner"])
        if owner is not None:
            sources.append(owner)
        while True:
            wait_s = None if self._kill_at is None else max(0.0, self._kill_at - time.monotonic())
            ready, _, _ = select.select(sources, [], [], wait_s)
            if output in ready and not self._log.pump(output):
                sources.remove(output)
            if wake in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(wake, _READ_BYTES)
                self._reap()
            if 0 in ready:
                for line in self._control.receive():
                    self._obey(line)
            overdue = self._kill_at is not None and time.monotonic() >= self._kill_at
            if self._code is not None or overdue or self._control.closed or (owner is not None and owner in ready):
                return

    def _obey(self, line: str) -> None:
        verb, _, argument = line.partition(" ")
        grace_s = float(argument) if verb == "stop" else 0.0
        self._kill_at = time.monotonic() + grace_s
        if grace_s > 0:
            send(descendants(), signal.SIGTERM)

    def _reap(self) -> bool:
        """Collect the dead; False when no child is left at all."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self._child:
                self._code = os.waitstatus_to_exitcode(status)

    def _sweep(self) -> None:
        """Kill until waitpid knows of no child: a subreaper is the parent of every orphan, so none can be left."""
        while self._reap():
            pids = descendants()
            send(pids, signal.SIGSTOP)  # a stopped tree cannot fork away from under the sweep
            send(pids, signal.SIGKILL)
            if sys.platform != "linux":
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self._child, signal.SIGKILL)
            time.sleep(_SWEEP_S)


class Log:
    """The command's output in a file of bounded size: the beginning and the end survive."""

    def __init__(self, path: str, limit_bytes: int) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self._limit = limit_bytes
        self._size = 0
        self._dropped = 0

    def pump(self, output: int) -> bool:
        """Copy what is there; False at end of file."""
        try:
            chunk = os.read(output, _READ_BYTES)
        except BlockingIOError:
            return True
        with contextlib.suppress(OSError):  # a full disk loses log lines, not the evaluation
            self._size += os.write(self._fd, chunk)
            if self._size > self._limit:
                self._compact()
        return bool(chunk)

    def drain(self, output: int) -> None:
        """Copy the rest; at most a pipe's capacity is left when nobody writes any more."""
        for _ in range(64):
            before = self._size
            if not self.pump(output) or self._size == before:
                return

    def _compact(self) -> None:
        quarter = self._limit // 4
        head = os.pread(self._fd, quarter, 0)
        tail = os.pread(self._fd, quarter, self._size - quarter)
        self._dropped += self._size - 2 * quarter
        text = head + f"\n[... about {self._dropped} bytes of output dropped ...]\n".encode() + tail
        os.ftruncate(self._fd, 0)
        os.lseek(self._fd, 0, os.SEEK_SET)
        self._size = os.write(self._fd, text)


def start(spec: dict[str, Any]) -> tuple[int, int, str]:
    """Fork and exec the command; (pid, its output, why it could not be executed or an empty string)."""
    output, output_write = os.pipe()
    trouble, trouble_write = os.pipe()
    supervisor = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            prepare(spec, output_write, supervisor)
            os.execvpe(spec["argv"][0], spec["argv"], spec["env"])
        except OSError as error:
            os.write(trouble_write, f"{error.strerror}: {spec['argv'][0]}".encode())
        finally:
            os._exit(127)
    os.close(output_write)
    os.close(trouble_write)
    os.set_blocking(output, False)
    failure = os.read(trouble, 4096).decode(errors="replace")
    os.close(trouble)
    return pid, output, failure


def prepare(spec: dict[str, Any], output: int, supervisor: int) -> None:
    """In the child, before exec: nothing of the owner's process state may reach the command."""
    os.setsid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != supervisor:
            os._exit(127)
    for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
    signal.set_wakeup_fd(-1)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    os.umask(0o022)
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, 0)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write(str(spec["oom_score_adj"]))
    for name, limit in spec["limits"].items():
        number = getattr(resource, name)
        _, hard = resource.getrlimit(number)
        value = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(number, (value, value))
    set_affinity(spec["cpus"])
    os.chdir(spec["cwd"])
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    for fd in spec["fds"]:
        fcntl.fcntl(fd, fcntl.F_SETFD, 0)


def affinity() -> list[int]:
    """CPUs that this process may use; empty where the system does not tell."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def set_affinity(cpus: list[int]) -> None:
    """Restrict this process to `cpus`; empty or forbidden: leave it where it is."""
    if cpus and hasattr(os, "sched_setaffinity"):
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, cpus)


def open_pidfd(pid: int) -> int | None:
    """A descriptor that becomes readable when `pid` dies; None where the kernel has none (the control pipe remains)."""
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        if error.errno == errno.ESRCH:
            raise SystemExit(0) from error
        return None


def descendants() -> list[int]:
    """All live processes below this one."""
    children: dict[int, list[int]] = {}
    for pid, parent in parents():
        children.setdefault(parent, []).append(pid)
    found: list[int] = []
    queue = [os.getpid()]
    while queue:
        below = children.get(queue.pop(), [])
        found += below
        queue += below
    return found


def parents() -> list[tuple[int, int]]:
    """(pid, parent pid) of every process of the machine."""
    if not os.path.isdir("/proc/self"):
        with os.popen("ps -axo pid=,ppid=") as lines:
            pairs = [line.split() for line in lines]
        return [(int(pid), int(parent)) for pid, parent in pairs]
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                found.append((int(name), int(file.read().rpartition(b")")[2].split()[1])))
    return found


def send(pids: list[int], number: signal.Signals) -> None:
    """Signal each process that still exists; ours are unreaped until we reap them, so no pid can have been reused."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


if __name__ == "__main__":
    sys.exit(main())
