"""Decides what a signal does to a driver: the first drains, the second stops hard, and none cuts a record in two."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupts:
    """How often a driver was asked to stop."""

    def __init__(self) -> None:
        self.count = 0
        self._waiting = False

    @contextmanager
    def installed(self) -> Iterator[None]:
        """SIGINT and SIGTERM are heard. To be entered after Ray has started, which installs its own handlers."""
        try:
            before = {s: signal.signal(s, self._handle) for s in (signal.SIGINT, signal.SIGTERM)}
        except ValueError:  # not the main thread (tests, notebooks): the caller owns the signals
            yield
            return
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Nothing is being recorded inside, so a second signal may end it."""
        self._waiting = True
        try:
            yield
        finally:
            self._waiting = False

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        self.count += 1
        if self.count > 1 and self._waiting:
            raise KeyboardInterrupt
