"""Whether a process still exists, asked of /proc."""

from __future__ import annotations

import time
from pathlib import Path


def alive(pid: int) -> bool:
    """Whether a process exists and is not a zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def await_death(pid: int, timeout_s: float = 5.0) -> float:
    """Seconds until the process was gone; fails the test after `timeout_s`."""
    start_s = time.monotonic()
    while alive(pid):
        assert time.monotonic() - start_s < timeout_s, f"process {pid} survived"
        time.sleep(0.002)
    return time.monotonic() - start_s
