"""Decides how a system call is made that Python does not offer; runs inside the sandbox, standard library only."""

from __future__ import annotations

import ctypes
import errno
import os
import sys

from evaluators.hostile.attack import NotApplicable

_X86_64 = {
    "add_key": 248, "bpf": 321, "clock_adjtime": 305, "clone": 56, "clone3": 435, "delete_module": 176,
    "finit_module": 313, "fsopen": 430, "io_uring_setup": 425, "kexec_file_load": 320, "keyctl": 250, "mount": 165,
    "mq_open": 240, "mq_timedreceive": 243, "mq_timedsend": 242, "mq_unlink": 241, "msgctl": 71, "msgget": 68,
    "msgrcv": 70, "msgsnd": 69, "name_to_handle_at": 303, "open_by_handle_at": 304, "perf_event_open": 298,
    "pidfd_getfd": 438, "pidfd_open": 434, "pivot_root": 155, "process_vm_readv": 310, "process_vm_writev": 311,
    "ptrace": 101, "sethostname": 170, "setns": 308, "settimeofday": 164, "shmat": 30, "shmctl": 31, "shmget": 29,
    "swapoff": 168, "syslog": 103, "umount2": 166, "unshare": 272, "userfaultfd": 323,
}  # fmt: skip
_AARCH64 = {
    "add_key": 217, "bpf": 280, "clock_adjtime": 266, "clone": 220, "clone3": 435, "delete_module": 106,
    "finit_module": 273, "fsopen": 430, "io_uring_setup": 425, "kexec_file_load": 294, "keyctl": 219, "mount": 40,
    "mq_open": 180, "mq_timedreceive": 183, "mq_timedsend": 182, "mq_unlink": 181, "msgctl": 187, "msgget": 186,
    "msgrcv": 188, "msgsnd": 189, "name_to_handle_at": 264, "open_by_handle_at": 265, "perf_event_open": 241,
    "pidfd_getfd": 438, "pidfd_open": 434, "pivot_root": 41, "process_vm_readv": 270, "process_vm_writev": 271,
    "ptrace": 117, "sethostname": 161, "setns": 268, "settimeofday": 170, "shmat": 196, "shmctl": 195, "shmget": 194,
    "swapoff": 225, "syslog": 116, "umount2": 39, "unshare": 97, "userfaultfd": 282,
}  # fmt: skip
NUMBERS = {"x86_64": _X86_64, "aarch64": _AARCH64}.get(os.uname().machine, {}) if sys.platform == "linux" else {}
REFUSALS = frozenset({errno.EPERM, errno.EACCES, errno.ENOSYS})
"""What a kernel, a filter or a missing capability says to somebody who may not even ask."""

Argument = int | bytes | None | ctypes.Array[ctypes.c_char] | ctypes.Structure


def call(name: str, *arguments: Argument) -> int:
    """The result of a system call.

    Raises:
        OSError: it failed.
        NotApplicable: this machine has no such call.
    """
    if name not in NUMBERS:
        raise NotApplicable(f"no number of {name} is known for {sys.platform} on {os.uname().machine}")
    syscall = ctypes.CDLL(None, use_errno=True).syscall
    syscall.restype = ctypes.c_long
    result = int(syscall(ctypes.c_long(NUMBERS[name]), *(_word(argument) for argument in arguments)))
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


def permitted(name: str, *arguments: Argument) -> str:
    """What came of a call with arguments that can do no harm.

    A complaint about the arguments means that the caller may make the call: permission is checked before.

    Raises:
        OSError: the call is refused.
    """
    try:
        return f"{name} returned {call(name, *arguments)}"
    except OSError as error:
        if error.errno in REFUSALS:
            raise
        return f"{name} was refused for its arguments only ({errno.errorcode.get(error.errno or 0, '?')})"


def known(name: str) -> bool:
    """Whether the kernel has this call; asked outside the sandbox, with arguments that it must refuse."""
    try:
        call(name, -1, 0, 0, 0, 0, 0)
    except NotApplicable:
        return False
    except OSError as error:
        return error.errno != errno.ENOSYS
    return True


def _word(argument: Argument) -> object:
    if argument is None:
        return ctypes.c_void_p(None)
    if isinstance(argument, int):
        return ctypes.c_long(argument)
    if isinstance(argument, bytes):
        return ctypes.c_char_p(argument)
    return ctypes.byref(argument)
