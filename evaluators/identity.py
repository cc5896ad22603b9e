"""Decides as which user a command runs where we are root: one of its own, which nobody else is."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from dataclasses import dataclass

_UIDS = range(61184, 65520)
"""systemd's range for users that exist for a while only."""
_CAP_CHOWN, _CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH, _CAP_KILL, _CAP_SETGID, _CAP_SETUID = 0, 1, 2, 5, 6, 7


def passing_uid() -> int:
    """A user for one command: different ones for candidates that run at the same time."""
    return secrets.choice(_UIDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """As whom commands run where no user namespace can be made (isolation tier B)."""

    root: bool
    """Whether we may become somebody else: then every command is a user of its own."""
    keep: int | None = None
    """The capability that lets that user read what only root could; Landlock decides what that is."""

    @classmethod
    def of_this_process(cls) -> Identity:
        """Root with the usual capabilities drops to another user; anybody else, and a crippled root, stays."""
        held = _effective_capabilities()
        needed = (_CAP_CHOWN, _CAP_KILL, _CAP_SETGID, _CAP_SETUID)
        if os.geteuid() != 0 or not all(held >> bit & 1 for bit in needed):
            return cls(root=False)
        keep = next((bit for bit in (_CAP_DAC_READ_SEARCH, _CAP_DAC_OVERRIDE) if held >> bit & 1), None)
        return cls(root=True, keep=keep)

    def uid(self) -> int | None:
        """A user for the next command; None: our own."""
        return passing_uid() if self.root else None


def _effective_capabilities() -> int:
    with suppress(OSError), open("/proc/self/status", encoding="ascii") as status:
        return next((int(line.split()[1], 16) for line in status if line.startswith("CapEff:")), 0)
    return 0
