"""Decides which attacks there are, and which of them an isolation tier may let through, and why."""

from __future__ import annotations

from evaluators.hostile import channels, devices, exhaustion, files, kernel, processes, rights
from evaluators.hostile.attack import Attack

ATTACKS: tuple[Attack, ...] = (
    *files.ATTACKS,
    *devices.ATTACKS,
    *channels.ATTACKS,
    *kernel.ATTACKS,
    *rights.ATTACKS,
    *processes.ATTACKS,
    *exhaustion.ATTACKS,
)
"""In this order: what stops other processes comes last of what shares a sandbox."""
