"""Decides whether a run is running, stopped, finished or killed, and asks a running one to stop."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

from population.events import EpochStarted, Event, Stopped
from vibeserve.runs import STOP_MARKER


class RunState(StrEnum):
    """Where a run is in its life."""

    RUNNING = "running"
    STOPPED = "stopped"
    """Ended in an orderly way before its budget did (interrupted, failed)."""
    FINISHED = "finished"
    """A budget ended it."""
    KILLED = "killed"
    """Its driver is gone without a word; `vibeserve resume` continues."""
    REMOTE = "remote"
    """Its driver belongs to another host, so this one cannot tell whether it lives."""


def run_state(events: Sequence[Event]) -> RunState:
    """The state that the last epoch of a ledger is in."""
    epoch: EpochStarted | None = None
    stopped: Stopped | None = None
    for event in events:
        if isinstance(event, EpochStarted):
            epoch, stopped = event, None
        elif isinstance(event, Stopped):
            stopped = event
    if stopped is not None:
        return RunState.STOPPED if stopped.reason in ("interrupted", "failed") else RunState.FINISHED
    if epoch is None:
        return RunState.KILLED
    if epoch.host and epoch.host != socket.gethostname():
        return RunState.REMOTE
    return RunState.RUNNING if _alive(epoch.pid) else RunState.KILLED


def request_stop(run_dir: Path) -> str:
    """Ask the driver to drain; says in words what was done.

    A driver on this host gets SIGTERM (like Ctrl-C); one on another host finds a marker file.
    """
    from population.ledger import read_events

    events = list(read_events(run_dir / "ledger"))
    state = run_state(events)
    if state is RunState.REMOTE:
        (run_dir / STOP_MARKER).touch()
        return "its driver runs on another host and was asked to drain by a file in the run folder"
    if state is not RunState.RUNNING:
        return f"nothing to stop, the run is {state}"
    epoch = [event for event in events if isinstance(event, EpochStarted)][-1]
    os.kill(epoch.pid, signal.SIGTERM)
    return f"its driver (pid {epoch.pid}) was asked to drain"


def _alive(pid: int) -> bool:
    """Whether `pid` is a live Python process; a number that was given to another program since is not the driver."""
    if pid <= 0:
        return False
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return False if Path("/proc/self").exists() else _signalled(pid)
    except OSError:
        return _signalled(pid)
    return any(word in command for word in (b"python", b"vibeserve"))


def _signalled(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
