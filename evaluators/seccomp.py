"""Decides which system calls untrusted code may make: a classic BPF program built by hand, for any isolation tier.

What can widen the attack surface or undo the isolation is refused: namespaces, mounts, tracing of others, bpf, key
rings, io_uring, the system's clock, terminal injection, sockets of families that no network namespace holds back. What
serving needs (CUDA, NCCL, torch.compile) is left alone, pidfd_getfd and UNIX sockets among it.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass

from evaluators.bpf import (
    allow,
    case,
    fail,
    kill,
    load_architecture,
    load_argument,
    load_number,
    unless,
    when,
    when_any_bit,
    when_at_least,
)

_X32 = 0x40000000
_NEW_NAMESPACES = 0x7E020000
"""CLONE_NEWNS, -CGROUP, -UTS, -IPC, -USER, -PID, -NET; CLONE_NEWTIME exists for clone3 and unshare only."""
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
FAMILIES = (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, getattr(socket, "AF_NETLINK", 16))
"""Socket families that the network namespace confines; AF_VSOCK, say, would reach the hypervisor from any of them."""
_AFFINITY = {"sched_setaffinity": (203, 122)}
_SEGMENTS = {"shmget": (29, 194)}

_REFUSED = {
    # name: (x86_64, aarch64); -1 where the architecture has no such call
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41),
    "chroot": (161, 51), "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430),
    "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442),
    "open_tree_attr": (467, 467), "ptrace": (101, 117), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "perf_event_open": (298, 241), "bpf": (321, 280), "add_key": (248, 217), "request_key": (249, 218),
    "keyctl": (250, 219), "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "userfaultfd": (323, 282), "open_by_handle_at": (304, 265), "fanotify_init": (300, 262), "kexec_load": (246, 104),
    "kexec_file_load": (320, 294), "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106),
    "create_module": (174, -1), "settimeofday": (164, 170), "clock_settime": (227, 112), "adjtimex": (159, 171),
    "clock_adjtime": (305, 266), "reboot": (169, 142), "swapon": (167, 224), "swapoff": (168, 225), "acct": (163, 89),
    "quotactl": (179, 60), "quotactl_fd": (443, 443), "syslog": (103, 116), "sethostname": (170, 161),
    "setdomainname": (171, 162), "iopl": (172, -1), "ioperm": (173, -1), "uselib": (134, -1), "vhangup": (153, 58),
    "nfsservctl": (180, 42), "lookup_dcookie": (212, 18),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class _Architecture:
    audit: int
    column: int
    clone: int
    clone3: int
    ioctl: int
    socket: int
    socketpair: int


_ARCHITECTURES = {
    "x86_64": _Architecture(audit=0xC000003E, column=0, clone=56, clone3=435, ioctl=16, socket=41, socketpair=53),
    "aarch64": _Architecture(audit=0xC00000B7, column=1, clone=220, clone3=435, ioctl=29, socket=198, socketpair=199),
}


def supported(machine: str | None = None) -> bool:
    """Whether there is a program for this architecture (`os.uname().machine`)."""
    return (machine or os.uname().machine) in _ARCHITECTURES


def program(machine: str | None = None, *, pinned: bool = False, segments: bool = True) -> bytes:
    """The filter as an array of `struct sock_filter`, as bubblewrap and prctl take it.

    Args:
        machine: `os.uname().machine`.
        pinned: CPU affinity stays as it is, because nothing else keeps the command on its CPUs.
        segments: whether it may have System V shared memory, which only a control group counts.

    Raises:
        ValueError: an architecture without a program; ask `supported` first.
    """
    name = machine or os.uname().machine
    if name not in _ARCHITECTURES:
        raise ValueError(
            f"expected one of {', '.join(_ARCHITECTURES)}, got {name}: its system calls are not known here"
        )
    here = _ARCHITECTURES[name]
    rows = {**_REFUSED, **(_AFFINITY if pinned else {}), **({} if segments else _SEGMENTS)}
    refused = [row[here.column] for row in rows.values() if row[here.column] >= 0]
    return b"".join([
        *_check_architecture(here),
        *_check_arguments(here),
        *(when(number, fail(errno.EPERM)) for number in refused),
        # clone3 hides its flags behind a pointer; told that it does not exist, libc uses clone.
        when(here.clone3, fail(errno.ENOSYS)),
        allow(),
    ])  # fmt: skip


def _check_architecture(here: _Architecture) -> Iterator[bytes]:
    yield load_architecture()
    yield unless(here.audit, kill())
    yield load_number()
    if here.column == 0:  # the x32 calls are x86_64's with another number
        yield when_at_least(_X32, fail(errno.ENOSYS))


def _check_arguments(here: _Architecture) -> Iterator[bytes]:
    """Flags of clone, requests of ioctl, families of sockets."""
    body = [load_argument(0), when_any_bit(_NEW_NAMESPACES, fail(errno.EPERM)), allow()]
    yield from case(here.clone, body)
    requests = (when(request, fail(errno.EPERM)) for request in (_TIOCSTI, _TIOCLINUX))
    yield from case(here.ioctl, [load_argument(1), *requests, allow()])
    for number in (here.socket, here.socketpair):
        families = (when(family, allow()) for family in FAMILIES)
        yield from case(number, [load_argument(0), *families, fail(errno.EAFNOSUPPORT)])
