"""Decides what of a killed driver, or of its git, is in the way: lock files and files without a name yet."""

from __future__ import annotations

import time
from pathlib import Path

from population.drafts import PREFIX

_LOCK_PATIENCE_S = 2.0
"""How long a git that outlived its driver may still hold a lock file."""
_POLL_S = 0.05


def break_locks(home: Path) -> None:
    """Remove the lock files of a repository that nobody lets go."""
    deadline = time.monotonic() + _LOCK_PATIENCE_S
    for lock in [*home.glob("*.lock"), *(home / "refs").rglob("*.lock")]:
        while lock.exists() and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        lock.unlink(missing_ok=True)


def remove_drafts(folder: Path) -> None:
    """Remove what never got its name."""
    for draft in folder.glob(f"{PREFIX}*"):
        draft.unlink(missing_ok=True)
