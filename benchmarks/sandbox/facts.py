"""Decides what results say of the machine that they come from: what decides the times, and nothing that names it."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess

from evaluators.limits import usable_controllers


def machine() -> str:
    """Kernel, CPUs, bubblewrap, user and control groups."""
    kernel = re.match(r"[\d.]*\d", platform.release())
    bwrap = shutil.which("bwrap")
    version = (
        subprocess.run([bwrap, "--version"], capture_output=True, text=True).stdout.strip() if bwrap else "no bwrap"
    )
    groups = ", ".join(f"{each.resource} (v{each.version})" for each in usable_controllers()) or "none"
    return (
        f"Linux {kernel[0] if kernel else '?'} {platform.machine()}, {len(os.sched_getaffinity(0))} CPUs, "
        f"Python {platform.python_version()}, {version}, {'root' if os.geteuid() == 0 else 'an ordinary user'}, "
        f"control groups: {groups}"
    )
