"""Decides which system calls tier B refuses beyond those of `seccomp.py`, because no namespace stands behind it.

Landlock knows neither UDP nor System V IPC nor a file's mode, and TCP Fast Open connects without asking it.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator

from evaluators.bpf import allow, case, fail, load_argument, load_number, mask, unless, when, when_any_bit

_SYSTEM_V = {
    # name: (x86_64, aarch64); -1 where the architecture has no such call
    "shmget": (29, 194), "shmat": (30, 196), "shmctl": (31, 195), "semget": (64, 190), "semop": (65, 193),
    "semctl": (66, 191), "semtimedop": (220, 192), "msgget": (68, 186), "msgsnd": (69, 189), "msgrcv": (70, 188),
    "msgctl": (71, 187), "mq_open": (240, 180),
}  # fmt: skip
"""Outlives its process, and is shared with everybody of the same user."""
_WATCHING = {"inotify_add_watch": (254, 27)}
"""Says when others use a file that must not be read, the grader's among them."""
_OWNERSHIP = {
    "chown": (92, -1), "fchown": (93, 55), "lchown": (94, -1), "fchownat": (260, 54), "setxattr": (188, 5),
    "lsetxattr": (189, 6), "fsetxattr": (190, 7), "removexattr": (197, 14), "lremovexattr": (198, 15),
    "fremovexattr": (199, 16), "setxattrat": (463, 463), "removexattrat": (466, 466), "file_setattr": (469, 469),
}  # fmt: skip
_MODES = {
    "chmod": (90, -1), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452), "utime": (132, -1),
    "utimes": (235, -1), "futimesat": (261, -1), "utimensat": (280, 88),
}  # fmt: skip
"""Succeed without doing anything: a copy of a file sets its mode and times, and an error there ends honest programs."""
_TRUNCATE = {"truncate": (76, 45)}
_PRLIMIT, _SETPRIORITY, _IOPRIO_SET = (302, 261), (141, 140), (251, 30)
_PRIO_PROCESS, _IOPRIO_WHO_PROCESS = 0, 1
_SOCKET, _SENDTO, _SENDMSG, _SENDMMSG = (41, 198), (44, 206), (46, 211), (307, 269)
_MSG_FASTOPEN, _SOCKET_TYPE_BITS, _AF_NETLINK = 0x20000000, 0xF, 16


def reduced_program(*, unix_sockets: bool, truncate: bool, same_user: bool, machine: str | None = None) -> bytes:
    """A filter to be loaded beside that of `seccomp.program`, which checks the architecture.

    Args:
        unix_sockets: whether sockets with a path may be made.
        truncate: whether Landlock knows about truncation; else the call that needs no open file is refused.
        same_user: whether files and processes of others belong to the command's user, too.
        machine: `os.uname().machine`.
    """
    column = 0 if (machine or os.uname().machine) == "x86_64" else 1
    refused = {**_SYSTEM_V, **_WATCHING, **({} if truncate else _TRUNCATE), **(_OWNERSHIP if same_user else {})}
    pretended = _MODES if same_user else {}
    return b"".join([
        load_number(),
        *_sockets(_SOCKET[column], unix_sockets),
        *_fast_open(column),
        *case(_PRLIMIT[column], [load_argument(0), when(0, allow()), fail(errno.EPERM)]),
        *_only_itself(_SETPRIORITY[column], _PRIO_PROCESS),
        *_only_itself(_IOPRIO_SET[column], _IOPRIO_WHO_PROCESS),
        *(when(row[column], fail(errno.EPERM)) for row in refused.values() if row[column] >= 0),
        *(when(row[column], fail(0)) for row in pretended.values() if row[column] >= 0),
        allow(),
    ])  # fmt: skip


def _sockets(number: int, unix_sockets: bool) -> Iterator[bytes]:
    """TCP, which Landlock confines to a port, and the kernel's list of addresses; nothing that Landlock cannot see."""
    body = [
        load_argument(0),
        when(socket.AF_UNIX, allow() if unix_sockets else fail(errno.EACCES)),
        *case(_AF_NETLINK, [load_argument(2), when(0, allow()), fail(errno.EACCES)]),
        load_argument(1),
        mask(_SOCKET_TYPE_BITS),
        unless(socket.SOCK_STREAM, fail(errno.EACCES)),
        load_argument(2),
        when(0, allow()),
        when(socket.IPPROTO_TCP, allow()),  # MPTCP, SCTP and SMC are streams, but not TCP for Landlock
        fail(errno.EACCES),
    ]
    yield from case(number, body)


def _fast_open(column: int) -> Iterator[bytes]:
    """TCP Fast Open connects inside of a send, past Landlock's check of connect."""
    for call, flags in ((_SENDTO, 3), (_SENDMSG, 2), (_SENDMMSG, 3)):
        body = [load_argument(flags), when_any_bit(_MSG_FASTOPEN, fail(errno.EPERM)), allow()]
        yield from case(call[column], body)


def _only_itself(number: int, process: int) -> Iterator[bytes]:
    """Calls of the form (kind, whose, …): the calling process, not another, a group or a user."""
    body = [load_argument(0), unless(process, fail(errno.EPERM)), load_argument(1), when(0, allow()), fail(errno.EPERM)]
    yield from case(number, body)
