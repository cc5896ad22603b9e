"""Decides when a process tree ends: runs one command, and kills all its descendants when it ends or its owner does.

Run by `process.py` in an isolated interpreter, standard library only, detached by a double fork, so that nobody who
kills the owner's children kills it too. It is a subreaper: daemons that the command leaves behind become its children
and die with the rest.

Control (stdin), one line each: first the spec as JSON, then `stop SECONDS` (SIGTERM, later SIGKILL) or `kill`. End of
file, or the owner's death, means `kill`. Status (stdout), one JSON object per line: {"supervisor": pid}, then
{"started": pid}, or {"failed": text, "machine": whether it is the machine's fault}, which may follow {"started"} where
a wrapper such as bubblewrap executes the command, and at last {"exited": code} once no descendant is left (negative
code: the signal, as in subprocess).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import select
import signal
import sys
import time
from typing import Any

from evaluators.birth import affinity, set_affinity
from evaluators.bounded_log import Log
from evaluators.cradle import Cradle
from evaluators.disk import disk_above
from evaluators.groups import Groups
from evaluators.lineage import descendants, send, threads
from evaluators.memory import memory_above

_PR_SET_CHILD_SUBREAPER = 36
_SWEEP_S = 0.002
_WATCH_S = 0.05
_WATCH_SHARE = 0.05
"""Most of one CPU's time that looking at the tree may take, as long as a look comes every `_LONGEST_WATCH_S`."""
_LONGEST_WATCH_S = 0.25
_READ_BYTES = 1 << 16
_SHELL_SIGNAL = 128


def supervise(cradle: Cradle) -> None:
    """Run the command of the spec in `cradle`; return when its whole tree is gone."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    control = Control()
    report({"supervisor": os.getpid()})
    Supervisor(control.spec(), control, cradle).run()


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

    def __init__(self, spec: dict[str, Any], control: Control, cradle: Cradle) -> None:
        self._spec = spec
        self._control = control
        self._cradle = cradle
        self._log = Log(spec["log"], spec["log_limit_bytes"])
        self._groups = Groups(spec["groups"])
        self._child = cradle.pid
        self._wake = -1
        self._code: int | None = None
        self._kill_at: float | None = None
        self._look_at = time.monotonic() + _WATCH_S if spec["watch"] else None

    def run(self) -> None:
        self._wake, wake_write = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(number, signal.SIG_IGN)
        failure = self._cradle.start(self._spec)
        if failure is not None:
            os.waitpid(self._child, 0)
            self._groups.remove()
            report(failure)
            return
        report({"started": self._child})
        own_cpus = affinity()
        set_affinity(self._spec["cpus"] or own_cpus)  # pumping the log must not disturb the client's CPU
        self._watch(self._cradle.output)
        set_affinity(own_cpus)  # nor may the command's CPU load delay the kill
        self._sweep()
        self._log.drain(self._cradle.output)
        report(self._end())

    def _watch(self, output: int) -> None:
        """Return when the command has ended, or is to be killed."""
        sources = [0, self._wake, output]
        owner = open_pidfd(self._spec["owner"])
        if owner is not None:
            sources.append(owner)
        while True:
            ready, _, _ = select.select(sources, [], [], self._wait_s())
            if output in ready and not self._log.pump(output):
                sources.remove(output)
            if self._wake in ready:
                drain(self._wake)
                self._reap()
            if 0 in ready:
                for line in self._control.receive():
                    self._obey(line)
            overdue = self._kill_at is not None and time.monotonic() >= self._kill_at
            if self._code is not None or overdue or self._control.closed or (owner is not None and owner in ready):
                return
            if self._exceeded():
                return

    def _wait_s(self) -> float | None:
        times = [at for at in (self._kill_at, self._look_at) if at is not None]
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _exceeded(self) -> bool:
        """Whether the tree is above a limit that no control group keeps; looks now and then."""
        began = time.monotonic()
        if self._look_at is None or began < self._look_at:
            return False
        limits, pids = self._spec["watch"], descendants()
        words = ""
        if "pids" in limits and threads(pids) > limits["pids"]:
            words = f"more than {limits['pids']} processes and threads"
        elif "memory_bytes" in limits and memory_above(pids, limits["memory_bytes"]):
            words = f"more than {limits['memory_bytes'] >> 20} MiB of memory"
        elif "disk_bytes" in limits and disk_above(self._spec["bounded"], pids, limits["disk_bytes"]):
            words = f"more than {limits['disk_bytes'] >> 20} MiB of disk"
        now = time.monotonic()
        self._look_at = now + min(max(_WATCH_S, (now - began) / _WATCH_SHARE), _LONGEST_WATCH_S)
        if words:
            self._log.note(f"killed: {words}")
        return bool(words)

    def _obey(self, line: str) -> None:
        verb, _, argument = line.partition(" ")
        grace_s = float(argument) if verb == "stop" else 0.0
        self._kill_at = time.monotonic() + grace_s
        if grace_s > 0:
            # A wrapper that dies takes the command with it, before the command could say goodbye.
            wrapper = {self._child} if self._spec["status_fd"] is not None else set()
            send([pid for pid in descendants() if pid not in wrapper], signal.SIGTERM)

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
            select.select([self._wake], [], [], _SWEEP_S)  # a death ends the wait
            drain(self._wake)

    def _end(self) -> dict[str, Any]:
        """The last status, when nothing is left but control groups, which go now."""
        for words in self._groups.complaints():
            self._log.note(words)
        self._groups.remove()
        code = self._code if self._code is not None else -signal.SIGKILL
        if self._spec["status_fd"] is None:
            return {"exited": code}
        executed = b'"exit-code"' in drain(self._cradle.status)
        if not executed and code > 0 and self._kill_at is None:
            # The command never ran, so these are bubblewrap's own words.
            words = self._log.tail()
            return {"failed": words.strip(), "machine": ": execvp " not in words}
        if executed and code > _SHELL_SIGNAL:
            code = _SHELL_SIGNAL - code
        return {"exited": code}


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


def drain(descriptor: int) -> bytes:
    """Everything that is in a pipe now."""
    os.set_blocking(descriptor, False)
    found = b""
    with contextlib.suppress(BlockingIOError):
        while chunk := os.read(descriptor, _READ_BYTES):
            found += chunk
    return found
