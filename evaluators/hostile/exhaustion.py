"""Decides which attacks use something up, or stay behind: processes, memory, disks, the log.

Each takes little more than its scene allows and gives it back, so that it harms nobody where nothing holds it back.
"""

from __future__ import annotations

import json
import mmap
import os
import signal
import time
from contextlib import ExitStack, suppress
from pathlib import Path

from evaluators.hostile.attack import Attack, Blocked, Proof, Scene, first_success

_HOLD_S = 1.0
"""How long a watchdog may take."""
_STEP_BYTES = 8 << 20
_FLOOD_BYTES = 16 << 20
ANSI = "\x1b]0;owned\x07\x1b[2J\x1b[31mPASS"
"""Renames the terminal's window and clears its screen, where a log reaches one."""
DAEMON_LIFETIME_S = 20.0


def fork_bomb(scene: Scene) -> str:
    """Starts more processes than it may."""
    children: list[int] = []
    try:
        while len(children) <= scene.max_processes:
            pid = os.fork()
            if pid == 0:
                time.sleep(_HOLD_S * 5)
                os._exit(0)
            children.append(pid)
        time.sleep(_HOLD_S)
        return f"{len(children)} processes for {_HOLD_S:g} s"
    finally:
        for pid in children:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def fill_memory(scene: Scene) -> str:
    """Takes more memory than it may, and keeps it."""
    pages: list[mmap.mmap] = []
    while len(pages) * _STEP_BYTES <= scene.max_memory_bytes:
        page = mmap.mmap(-1, _STEP_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        page.write(b"\xff" * _STEP_BYTES)
        pages.append(page)
    time.sleep(_HOLD_S)
    return f"{len(pages) * _STEP_BYTES >> 20} MiB for {_HOLD_S:g} s"


def hide_memory(scene: Scene) -> str:
    """Takes more memory than it may, in files in memory that it does not map (memfd_create)."""
    held = [os.memfd_create(f"{scene.nonce}.{number}") for number in range(4)]
    written = 0
    while written <= scene.max_memory_bytes:
        written += sum(os.write(descriptor, b"\xff" * _STEP_BYTES) for descriptor in held)
    time.sleep(_HOLD_S)
    return f"{written >> 20} MiB for {_HOLD_S:g} s"


def share_memory(scene: Scene) -> str:
    """Takes more memory than it may, shared among its processes."""
    with mmap.mmap(-1, scene.max_memory_bytes + _STEP_BYTES) as shared:  # MAP_SHARED is the default
        while shared.tell() < len(shared):
            shared.write(b"\xff" * _STEP_BYTES)
        time.sleep(_HOLD_S)
        return f"{len(shared) >> 20} MiB for {_HOLD_S:g} s"


def fill_tmp(scene: Scene) -> str:
    """Fills /tmp."""
    return _fill(Path("/tmp"), scene)


def fill_shared_memory(scene: Scene) -> str:
    """Fills /dev/shm, which is memory."""
    return _fill(Path("/dev/shm"), scene)


def fill_home(scene: Scene) -> str:
    """Fills its own HOME and caches."""
    return first_success([lambda: _fill(Path(os.environ["HOME"]), scene), lambda: _fill(Path.cwd(), scene)])


def leave_daemon(scene: Scene) -> str:
    """Leaves daemons behind when it ends: own sessions, all signals ignored."""
    for _ in range(3):
        _daemon()
    return "left 3 daemons"


def outlive_kill(scene: Scene) -> str:
    """Leaves daemons behind when it is killed, and forks on while it is being killed."""
    for _ in range(3):
        _daemon(restless=True)
    print(json.dumps({"ready": True}), flush=True)
    time.sleep(DAEMON_LIFETIME_S)
    return "was not killed"


def flood_log(scene: Scene) -> str:
    """Fills the disk by its output."""
    line = b"x" * 1023 + b"\n"
    for _ in range(_FLOOD_BYTES // len(line)):
        os.write(1, line)
    return f"wrote {_FLOOD_BYTES >> 20} MiB"


def control_terminal(scene: Scene) -> str:
    """Controls the terminal of whoever reads its output (ANSI sequences)."""
    print(ANSI, flush=True)
    return "printed"


def _fill(folder: Path, scene: Scene) -> str:
    """In several files, one of which has no name any more, so that a limit on files is not enough."""
    paths = [folder / f"{scene.nonce}.{number}.fill" for number in range(3)]
    written = 0
    try:
        with ExitStack() as stack:
            files = [stack.enter_context(path.open("wb", buffering=0)) for path in paths]
            paths[0].unlink()
            while written <= scene.max_disk_bytes:
                written += sum(file.write(bytes(_STEP_BYTES)) for file in files)
            time.sleep(_HOLD_S)
        return f"wrote {written >> 20} MiB to {folder}, for {_HOLD_S:g} s"
    except OSError as error:
        raise Blocked(f"{error.strerror} after {written >> 20} MiB in {folder}") from error
    finally:
        for path in paths:
            path.unlink(missing_ok=True)


def _daemon(restless: bool = False) -> None:
    """A process that its starter no longer knows; it ends by itself after some time, whatever happens."""
    if pid := os.fork():
        os.waitpid(pid, 0)
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
        with suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_IGN)
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.closerange(3, 64)
    deadline = time.monotonic() + DAEMON_LIFETIME_S
    while time.monotonic() < deadline:
        time.sleep(0.005)
        if restless and os.fork():
            os._exit(0)
    os._exit(0)


ATTACKS = (
    *(Attack(run=run, proof=Proof.RESULT, alone=True) for run in (fork_bomb, fill_memory, hide_memory, share_memory)),
    *(Attack(run=run, proof=Proof.RESULT, alone=True) for run in (fill_tmp, fill_shared_memory, fill_home)),
    *(Attack(run=run, proof=Proof.EFFECT, alone=True) for run in (leave_daemon, outlive_kill)),
    *(Attack(run=run, proof=Proof.EFFECT, alone=True) for run in (flood_log, control_terminal)),
)
