"""Decides which system calls untrusted code may make: a classic BPF program built by hand, for any isolation tier.

What can widen the attack surface or undo the isolation is refused: namespaces, mounts, tracing of others, bpf, key
rings, io_uring, the system's clock, terminal injection, sockets of families that no network namespace holds back. What
serving needs (CUDA, NCCL, torch.compile) is left alone, pidfd_getfd and UNIX sockets among it.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
_ALLOW, _ERROR, _KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000
_X32 = 0x40000000
_NEW_NAMESPACES = 0x7E020000
"""CLONE_NEWNS, -CGROUP, -UTS, -IPC, -USER, -PID, -NET; CLONE_NEWTIME exists for clone3 and unshare only."""
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
FAMILIES = (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, getattr(socket, "AF_NETLINK", 16))
"""Socket families that the network namespace confines; AF_VSOCK, say, would reach the hypervisor from any of them."""
TRACING = ("ptrace", "perf_event_open")
"""What a profiler needs."""
_AFFINITY = {"sched_setaffinity": (203, 122)}

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


def program(machine: str | None = None, *, tracing: bool = False, pinned: bool = False) -> bytes:
    """The filter as an array of `struct sock_filter`, as bubblewrap and prctl take it.

    Args:
        machine: `os.uname().machine`.
        tracing: for a profiler.
        pinned: CPU affinity stays as it is, because nothing else keeps the command on its CPUs.

    Raises:
        ValueError: an architecture without a program; ask `supported` first.
    """
    name = machine or os.uname().machine
    if name not in _ARCHITECTURES:
        raise ValueError(
            f"expected one of {', '.join(_ARCHITECTURES)}, got {name}: its system calls are not known here"
        )
    here = _ARCHITECTURES[name]
    allowed = TRACING if tracing else ()
    rows = {**_REFUSED, **(_AFFINITY if pinned else {})}
    refused = [row[here.column] for call, row in rows.items() if call not in allowed and row[here.column] >= 0]
    return b"".join([
        *_check_architecture(here),
        *_check_arguments(here),
        *(part for number in refused for part in _when_equal(number, _fail(errno.EPERM))),
        # clone3 hides its flags behind a pointer; told that it does not exist, libc uses clone.
        *_when_equal(here.clone3, _fail(errno.ENOSYS)),
        _return(_ALLOW),
    ])  # fmt: skip


def calls(program_bytes: bytes) -> list[tuple[int, int, int, int]]:
    """(code, jump if true, jump if false, operand) of each instruction, for whoever inspects or interprets one."""
    return list(struct.iter_unpack("=HBBI", program_bytes))


def _check_architecture(here: _Architecture) -> Iterator[bytes]:
    yield _load(_ARCHITECTURE)
    yield _instruction(_EQUAL, here.audit, 1, 0)
    yield _return(_KILL_PROCESS)
    yield _load(_NUMBER)
    if here.column == 0:  # the x32 calls are x86_64's with another number
        yield _instruction(_AT_LEAST, _X32, 0, 1)
        yield _fail(errno.ENOSYS)


def _check_arguments(here: _Architecture) -> Iterator[bytes]:
    """Flags, requests and families are 32 bits for the kernel, too: their upper halves hide nothing."""
    body = [_load(_ARGUMENTS), _instruction(_ANY_BIT, _NEW_NAMESPACES, 0, 1), _fail(errno.EPERM), _return(_ALLOW)]
    yield from _block(here.clone, body)
    body = [_load(_ARGUMENTS + 8)]
    body += [part for request in (_TIOCSTI, _TIOCLINUX) for part in _when_equal(request, _fail(errno.EPERM))]
    yield from _block(here.ioctl, [*body, _return(_ALLOW)])
    for number in (here.socket, here.socketpair):
        body = [_load(_ARGUMENTS)]
        body += [part for family in FAMILIES for part in _when_equal(family, _return(_ALLOW))]
        yield from _block(number, [*body, _fail(errno.EAFNOSUPPORT)])


def _block(number: int, body: list[bytes]) -> Iterator[bytes]:
    """`body` for one system call; it must return, because it overwrites the loaded number."""
    yield _instruction(_EQUAL, number, 0, len(body))
    yield from body


def _when_equal(value: int, action: bytes) -> Iterator[bytes]:
    yield _instruction(_EQUAL, value, 0, 1)
    yield action


def _load(offset: int) -> bytes:
    return _instruction(_LOAD, offset)


def _return(value: int) -> bytes:
    return _instruction(_RETURN, value)


def _fail(number: int) -> bytes:
    return _return(_ERROR | number)


def _instruction(code: int, operand: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, operand)
