"""Decides how a command is started and ended, so that nothing of ours reaches it and nothing of it outlives us.

Every command runs below a detached supervisor (`supervisor.py`), which kills the whole tree when it is told to, when
the command's main process ends, and when our own process dies in whatever way.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from evaluators.launch import CHECKOUT, Enclosure, Launch
from population.errors import InfrastructureError

__all__ = ["LOST", "Enclosure", "Launch", "NotExecutable", "RunningProcess", "printable", "tail"]

_SUPERVISOR = "import sys; sys.path.append(sys.argv[1]); from evaluators.cradle import main; main()"
"""With -I nothing of ours is found by itself; appended, our packages can shadow none of the standard library's."""
_START_TIMEOUT_S = 20.0
_SWEEP_TIMEOUT_S = 10.0
# The kernel's out-of-memory killer takes the command before anything of ours.
_OOM_SCORE_ADJ = 1000
LOST = -signal.SIGKILL
"""Exit code of a command whose supervisor was killed."""


class NotExecutable(Exception):
    """The command itself could not be executed (no such file, permission denied); the message says which."""


class RunningProcess:
    """A command below its supervisor; a context manager that kills the tree on exit.

    Attributes:
        pid: the command's main process.
        supervisor_pid: the parent of everything that the command leaves behind.
        log: the file with stdout and stderr.
    """

    def __init__(self, launch: Launch) -> None:
        self.log = launch.log
        self.pid = 0
        self.supervisor_pid = 0
        self._code: int | None = None
        self._buffer = b""
        self._control, self._status = _spawn(() if launch.enclosure is None else launch.enclosure.groups)
        self._tell(json.dumps(launch.to_json() | {"owner": os.getpid(), "oom_score_adj": _OOM_SCORE_ADJ}))
        self._await_start(launch)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def poll(self) -> int | None:
        """The exit code once the whole tree is gone (negative: the signal), None while the command runs."""
        self._receive(0.0)
        return self._code

    def wait(self, timeout_s: float) -> int | None:
        """The exit code, or None if the command still runs after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while self._code is None:
            left_s = deadline - time.monotonic()
            self._receive(max(0.0, left_s))
            if left_s <= 0:
                break
        return self._code

    def stop(self, grace_s: float) -> int:
        """SIGTERM to the tree, SIGKILL to what is left after `grace_s`; returns when nothing is left."""
        if self._code is None:
            self._tell(f"stop {grace_s}" if grace_s > 0 else "kill")
            if self.wait(grace_s + _SWEEP_TIMEOUT_S) is None:
                raise InfrastructureError(
                    f"process tree of pid {self.pid} could not be killed within {_SWEEP_TIMEOUT_S:g} s"
                )
        self._close()
        assert self._code is not None
        return self._code

    def kill(self) -> int:
        """SIGKILL to the whole tree; returns when nothing is left."""
        return self.stop(0.0)

    def log_tail(self, lines: int = 20) -> str:
        """The last `lines` lines of output, control characters removed."""
        return tail(self.log, lines)

    def _await_start(self, launch: Launch) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_S
        try:
            while not self.pid and self._code is None:
                if time.monotonic() > deadline:
                    raise InfrastructureError(
                        f"the supervisor of {launch.command[0]} did not answer in {_START_TIMEOUT_S:g} s"
                    )
                self._receive(0.5)
            if not self.pid:
                raise InfrastructureError(
                    f"the supervisor of {launch.command[0]} died; is the disk of {launch.log} full?"
                )
        except BaseException:
            self._close()
            raise

    def _tell(self, line: str) -> None:
        with contextlib.suppress(BrokenPipeError, ValueError):
            os.write(self._control.fileno(), line.encode() + b"\n")

    def _receive(self, timeout_s: float) -> None:
        if self._code is not None:
            return
        poll = select.poll()  # unlike select.select it takes descriptors above 1023
        poll.register(self._status, select.POLLIN)
        if not poll.poll(timeout_s * 1000):
            return
        chunk = os.read(self._status.fileno(), 1 << 16)
        if not chunk:
            self._lose()
        *lines, self._buffer = (self._buffer + chunk).split(b"\n")
        for line in lines:
            self._note(json.loads(line))

    def _note(self, status: dict[str, Any]) -> None:
        match status:
            case {"supervisor": pid}:
                self.supervisor_pid = pid
            case {"started": pid}:
                self.pid = pid
            case {"failed": text, "machine": machine}:
                self._code = 127
                self._close()
                if machine:
                    raise InfrastructureError(f"the sandbox could not be set up: {text}")
                raise NotExecutable(text)
            case {"exited": code}:
                self._code = code

    def _lose(self) -> None:
        """The supervisor died: its child got SIGKILL from the kernel; end the rest of the command's session as well."""
        self._code = LOST
        if self.pid:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    def _close(self) -> None:
        self._control.close()
        self._status.close()


def _spawn(groups: tuple[Path, ...]) -> tuple[Any, Any]:
    """Start a detached supervisor; its control pipe (for writing) and status pipe (for reading)."""
    argv = [sys.executable, "-I", "-S", "-c", _SUPERVISOR, str(CHECKOUT), *map(str, groups)]
    control_read, control_write = os.pipe()
    status_read, status_write = os.pipe()
    control, status = os.fdopen(control_write, "wb", buffering=0), os.fdopen(status_read, "rb", buffering=0)
    try:
        subprocess.run(
            argv, stdin=control_read, stdout=status_write, stderr=subprocess.DEVNULL, env={}, check=True, cwd="/"
        )
    except (OSError, subprocess.CalledProcessError) as error:
        control.close()
        status.close()
        raise InfrastructureError(f"cannot start the process supervisor: {error}") from error
    finally:
        os.close(control_read)
        os.close(status_write)
    return control, status


def tail(path: Path, lines: int = 20, limit_bytes: int = 4000) -> str:
    """The last `lines` lines of a text file (at most `limit_bytes`); empty if there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - limit_bytes))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return printable("\n".join(text.splitlines()[-lines:]))


def printable(text: str) -> str:
    """`text` without control characters, so that a candidate's output cannot drive a terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)
