"""Decides how a profiler gets into a server without its help: our `sitecustomize`, told by files when to begin and end.

Two folders: one that the server can only read, with the hook and the orders, and one that it can write, with what came
of it. The second is the candidate's word: read without following links, bounded, and never executed.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from evaluators.profiling import hook
from evaluators.server import ServerCommand

_POLL_S = 0.05
_SETTLE_S = 0.5
"""Within which all processes that are to answer have seen the order."""
_START_S = 60.0
"""The first start of CUPTI takes some ten seconds."""
_WRITE_S = 90.0
"""A second of small kernels is a million events, which Python adds up."""
_MOST_REPORTS = 16
_MOST_BYTES = 1 << 18


class Silent(Exception):
    """No process of the server answered; the message says what was waited for."""


class Injection:
    """One profiled stretch of a server that `around` prepared."""

    def __init__(self, folder: Path, mode: str, most_s: float) -> None:
        """`mode`: what the hook does, `trace` or `range`; `most_s`: for how long at most."""
        self._orders, self.output = folder / "orders", folder / "reports"
        for place in (self._orders, self.output):
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(parents=True)
            place.chmod(0o755)  # whoever the server runs as must read it, whatever our umask is
        source = Path(hook.__file__).read_text(encoding="utf-8")
        settings = {"mode": mode, "output": str(self.output), "most_s": most_s}
        self._order("sitecustomize.py", source)
        self._order("settings.json", json.dumps(settings))

    def around(self, command: ServerCommand) -> ServerCommand:
        """The same server, with the hook in every Python process of it."""
        path = [str(self._orders), *filter(None, [command.env.get("PYTHONPATH")])]
        return replace(
            command,
            env={**command.env, "PYTHONPATH": os.pathsep.join(path)},
            readable=(*command.readable, self._orders),
            writable=(*command.writable, self.output),
        )

    def begin(self, timeout_s: float = _START_S) -> None:
        """Return when the processes of the server are being profiled: one with a GPU needs seconds longer than others.

        Raises:
            Silent: none is after `timeout_s`, or one has begun to and is not.
        """
        self._order("start", "")
        if not _wait(lambda: bool(self._marked(".seen")), timeout_s):
            raise Silent(f"no process of the server that imports torch answered the hook in {timeout_s:g} s")
        time.sleep(_SETTLE_S)
        if not _wait(lambda: self._marked(".started") >= self._marked(".seen"), timeout_s):
            raise Silent(f"the profiler did not start in {timeout_s:g} s")

    def end(self, timeout_s: float = _WRITE_S) -> None:
        """Return when every process that began has reported.

        Raises:
            Silent: one has not after `timeout_s`.
        """
        self._order("stop", "")
        if not _wait(lambda: self._marked(".json") >= self._marked(".started"), timeout_s):
            raise Silent(f"the server did not write its profile in {timeout_s:g} s")

    def reports(self) -> list[bytes]:
        """What was written, as it is."""
        names = sorted(f"{name}.json" for name in self._marked(".json"))
        texts = (untrusted(self.output / name) for name in names[:_MOST_REPORTS])
        return [text for text in texts if text is not None]

    def _marked(self, suffix: str) -> set[str]:
        return {name.removesuffix(suffix) for name in os.listdir(self.output) if name.endswith(suffix)}

    def _order(self, name: str, text: str) -> None:
        written = self._orders / f"{name}.part"
        written.write_text(text, encoding="utf-8")
        written.chmod(0o644)
        written.replace(self._orders / name)


def _wait(ready: Callable[[], bool], timeout_s: float) -> bool:
    deadline_s = time.monotonic() + timeout_s
    while not ready():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(_POLL_S)
    return True


def untrusted(path: Path, most_bytes: int = _MOST_BYTES) -> bytes | None:
    """A plain file of bounded size, or nothing."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > most_bytes:
            return None
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(most_bytes)
    finally:
        os.close(descriptor)
