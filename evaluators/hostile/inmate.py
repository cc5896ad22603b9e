"""Decides how attackers and canaries are started, and what is believed of what they print."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluators.hostile.attack import Other
from evaluators.hostile.stage import Room, Stage, forget, other
from evaluators.process import Launch, NotExecutable, RunningProcess
from evaluators.sandbox import Sandbox
from evaluators.server import describe_exit
from population.errors import InfrastructureError

_START_TIMEOUT_S, _BEAT_TIMEOUT_S, _KILL_TIMEOUT_S = 20.0, 5.0, 10.0
_POLL_S = 0.005
_GRACE_S = 1.0
_LOG_SLACK = 1.1
"""The log's own note about what it dropped."""


class Inmate:
    """One program of ours in a sandbox, started as a candidate's server is."""

    def __init__(self, sandbox: Sandbox, stage: Stage, room: Room, cpus: tuple[int, ...] = ()) -> None:
        self._sandbox, self._stage, self._room, self._cpus = sandbox, stage, room, cpus
        self._limit_bytes = 0
        self._process: RunningProcess | None = None

    @contextmanager
    def start(self, *arguments: str, env: dict[str, str] | None = None, port: int = 0) -> Iterator[Inmate]:
        """Run it until the end of the block; it has begun to work when the block does.

        Raises:
            InfrastructureError: it could not be started in this sandbox.
        """
        with self._sandbox.pod() as pod:
            launch = Launch(
                command=(sys.executable, "-I", "-S", "-B", self._room.program, *arguments),
                workspace=self._room.workspace,
                env=self._room.environment(env),
                log=self._room.log,
                cpus=self._cpus,
                readable=(self._stage.artifact.parent,),
                ports=(port,) if port else (),
                pod=None if pod is None else pod.holder_pid,
            )
            self._limit_bytes = launch.log_limit_bytes
            try:
                self._process = self._sandbox.launch(launch)
            except NotExecutable as error:
                raise InfrastructureError(f"{sys.executable} cannot be executed in the sandbox: {error}") from error
            with self._process as process:
                self.await_word("begun")
                yield self
                process.stop(_GRACE_S if arguments[0] == "canary" else 0.0)

    @contextmanager
    def canary(self, role: str, folder: Path) -> Iterator[Watched]:
        """Run it as a canary whose socket lies in `folder`."""
        settings = self._stage.canary_settings(self._room, folder)
        key = {"API_KEY": self._stage.secret(f"{role}: environment")}
        argument = self._stage.secret(f"{role}: command line")
        try:
            with self.start("canary", "settings.json", argument, env=key, port=settings["tcp_port"]):
                told = next(line["scene"] for line in self._lines() if "scene" in line)
                yield Watched(inmate=self, known=other(role, self._pid(), told))
        finally:
            forget(settings)

    def wait(self, timeout_s: float) -> str:
        """How it ended, in words."""
        assert self._process is not None
        code = self._process.wait(timeout_s)
        return f"not ended after {timeout_s:g} s" if code is None else describe_exit(code)

    def await_word(self, word: str) -> None:
        """Wait until it has printed an object with this key.

        Raises:
            InfrastructureError: it did not, or ended before.
        """
        assert self._process is not None
        process = self._process
        in_time = await_true(lambda: self._has_said(word) or process.poll() is not None, _START_TIMEOUT_S)
        # Asked twice of the final log only: one that is flooded is rewritten, and may be empty for a moment.
        if not in_time or (process.poll() is not None and not self._has_said(word)):
            raise InfrastructureError(
                f"expected a program of the hostile probe to start in isolation tier {self._sandbox.tier}, "
                f"got: {process.log_tail(5) or 'no output'}"
            )

    def answers(self) -> dict[str, dict[str, str]]:
        """Attack → what it says of itself."""
        return {line["attack"]: line for line in self._lines() if "attack" in line}

    def last_beat(self) -> dict[str, Any]:
        """A canary's latest report."""
        return next((line for line in reversed(self._lines()) if "beat" in line), {"beat": 0})

    def log_effects(self) -> set[str]:
        """Attacks on the log that worked."""
        assert self._process is not None
        found = set()
        if self._room.log.stat().st_size > self._limit_bytes * _LOG_SLACK:
            found.add("flood-log")
        if "\x1b" in self._process.log_tail(100):
            found.add("control-terminal")
        return found

    def _has_said(self, word: str) -> bool:
        return any(word in line for line in self._lines())

    def _lines(self) -> list[dict[str, Any]]:
        found = []
        for line in self._room.log.read_text(errors="replace").splitlines():
            with suppress(json.JSONDecodeError):
                value = json.loads(line)
                if isinstance(value, dict):
                    found.append(value)
        return found

    def _pid(self) -> int:
        """Of the program itself: wrappers have it in their command line as well, but do not begin with it."""
        for pid in self._room.live_pids():
            with suppress(OSError):
                if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(os.fsencode(sys.executable)):
                    return pid
        raise InfrastructureError("a program of the hostile probe ended at once; run `vibeserve doctor` again")


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """A canary, and what it notices."""

    inmate: Inmate
    known: Other

    def noticed(self) -> set[str]:
        """Attacks that reached it; it is left running even if one of them had stopped it."""
        found = set()
        if _state(self.known.pid) in "TtXZ":
            found.add("stop-others")
            with suppress(ProcessLookupError):
                os.kill(self.known.pid, signal.SIGCONT)
        before = self.inmate.last_beat()["beat"]
        await_true(lambda: self.inmate.last_beat()["beat"] > before + 1, _BEAT_TIMEOUT_S)
        beat = self.inmate.last_beat()
        return found | set(beat.get("contacts", ())) | set(beat.get("boards", ()))


def kill_all(room: Room) -> int:
    """End what is left of a room's processes; how many there were."""
    first = len(room.live_pids())

    def none_left() -> bool:
        pids = room.live_pids()
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in pids:
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, number)
        return not pids

    await_true(none_left, _KILL_TIMEOUT_S)
    return first


def await_true(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Whether `condition` came true in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True


def _state(pid: int) -> str:
    """One letter as in /proc/PID/stat; X for a process that is gone."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return "X"
