"""Decides what is kept of a command's output: the beginning and the end, in a file of bounded size.

Standard library only: the supervisor runs it without site-packages.
"""

from __future__ import annotations

import contextlib
import os

_READ_BYTES = 1 << 16


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

    def note(self, words: str) -> None:
        """A line of our own, for whoever reads why the command ended."""
        with contextlib.suppress(OSError):
            self._size += os.write(self._fd, f"[vibeserve] {words}\n".encode())

    def tail(self) -> str:
        """The last 2,000 bytes."""
        return os.pread(self._fd, 2000, max(0, self._size - 2000)).decode(errors="replace")

    def _compact(self) -> None:
        quarter = self._limit // 4
        head = os.pread(self._fd, quarter, 0)
        tail = os.pread(self._fd, quarter, self._size - quarter)
        self._dropped += self._size - 2 * quarter
        text = head + f"\n[... about {self._dropped} bytes of output dropped ...]\n".encode() + tail
        os.ftruncate(self._fd, 0)
        os.lseek(self._fd, 0, os.SEEK_SET)
        self._size = os.write(self._fd, text)
