"""Decides which attacks go for devices: disks, kernel memory, GPUs of others."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from evaluators.hostile.attack import Attack, Blocked, Proof, Scene, first_success, scratch_folder

_MEMORY_DEVICES = frozenset({1, 2, 4, 11})
"""Minor numbers below character device 1: mem, kmem, port, kmsg."""


def make_device(scene: Scene) -> str:
    """Makes a device node (mknod)."""
    path = Path(scratch_folder()) / "device"
    os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 5))
    path.unlink()
    return "mknod worked"


def open_raw_devices(scene: Scene) -> str:
    """Opens disks, kernel memory and the kernel log as devices."""
    found = []
    for path in ["/proc/kcore", *_raw_devices()]:
        with suppress(OSError):
            os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
            found.append(path)
    if not found:
        raise Blocked("no such device can be opened")
    return ", ".join(found[:8])


def open_unassigned_gpus(scene: Scene) -> str:
    """Opens GPUs that were not assigned to it."""
    nodes = [str(path) for path in Path("/dev").glob("nvidia[0-9]*")]
    return first_success([partial(_open, node) for node in nodes])


def _open(path: str) -> str:
    os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))
    return f"opened {path}"


def _raw_devices() -> Iterator[str]:
    for folder, _, names in os.walk("/dev"):
        for name in names:
            path = os.path.join(folder, name)
            with suppress(OSError):
                info = os.lstat(path)
                memory = os.major(info.st_rdev) == 1 and os.minor(info.st_rdev) in _MEMORY_DEVICES
                if stat.S_ISBLK(info.st_mode) or (stat.S_ISCHR(info.st_mode) and memory):
                    yield path


ATTACKS = tuple(Attack(run=run, proof=Proof.RESULT) for run in (make_device, open_raw_devices, open_unassigned_gpus))
