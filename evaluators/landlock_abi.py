"""Decides what each version of the kernel's Landlock ABI can restrict: the names of linux/landlock.h.

https://docs.kernel.org/userspace-api/landlock.html
"""

from __future__ import annotations

from enum import IntFlag


class Fs(IntFlag):
    """Rights on files and folders (`LANDLOCK_ACCESS_FS_*`)."""

    EXECUTE = 1 << 0
    WRITE_FILE = 1 << 1
    READ_FILE = 1 << 2
    READ_DIR = 1 << 3
    REMOVE_DIR = 1 << 4
    REMOVE_FILE = 1 << 5
    MAKE_CHAR = 1 << 6
    MAKE_DIR = 1 << 7
    MAKE_REG = 1 << 8
    MAKE_SOCK = 1 << 9
    MAKE_FIFO = 1 << 10
    MAKE_BLOCK = 1 << 11
    MAKE_SYM = 1 << 12
    REFER = 1 << 13
    TRUNCATE = 1 << 14
    IOCTL_DEV = 1 << 15
    RESOLVE_UNIX = 1 << 16


class Net(IntFlag):
    """Rights on TCP ports (`LANDLOCK_ACCESS_NET_*`)."""

    BIND_TCP = 1 << 0
    CONNECT_TCP = 1 << 1


class Scope(IntFlag):
    """What ends at the border of the domain (`LANDLOCK_SCOPE_*`)."""

    ABSTRACT_UNIX_SOCKET = 1 << 0
    SIGNAL = 1 << 1


READ = Fs.READ_FILE | Fs.READ_DIR
RUN = READ | Fs.EXECUTE
WRITE = RUN | (
    Fs.WRITE_FILE | Fs.TRUNCATE | Fs.REMOVE_DIR | Fs.REMOVE_FILE | Fs.REFER
    | Fs.MAKE_DIR | Fs.MAKE_REG | Fs.MAKE_SOCK | Fs.MAKE_FIFO | Fs.MAKE_SYM
)  # fmt: skip
DEVICE = Fs.READ_FILE | Fs.WRITE_FILE | Fs.IOCTL_DEV

_FIRST_ABI = Fs((1 << 13) - 1)
_ADDED: dict[int, Fs | Net | Scope] = {
    2: Fs.REFER,
    3: Fs.TRUNCATE,
    4: Net.BIND_TCP | Net.CONNECT_TCP,
    5: Fs.IOCTL_DEV,
    6: Scope.ABSTRACT_UNIX_SOCKET | Scope.SIGNAL,
    9: Fs.RESOLVE_UNIX,
}
"""ABI → what it can restrict beyond the one before (7 and 8 are about logs and threads)."""


def handled(abi: int) -> tuple[Fs, Net, Scope]:
    """Everything that this ABI can restrict, which is everything that we restrict."""
    fs, net, scope = _FIRST_ABI, Net(0), Scope(0)
    for since, added in _ADDED.items():
        if abi >= since:
            if isinstance(added, Fs):
                fs |= added
            elif isinstance(added, Net):
                net |= added
            else:
                scope |= added
    return fs, net, scope
