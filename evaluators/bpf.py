"""Decides how a seccomp filter is spelled: classic BPF instructions over the number and the arguments of a system call.

A program is a sequence of `struct sock_filter`; what is loaded last is what the next comparison looks at. The arguments
compared here are 32 bits for the kernel, too, so their upper halves hide nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _AND, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_NUMBER_OFFSET, _ARCHITECTURE_OFFSET, _ARGUMENTS_OFFSET = 0, 4, 16
_ALLOW, _ERROR, _KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000


def load_number() -> bytes:
    """Load the number of the system call."""
    return instruction(_LOAD, _NUMBER_OFFSET)


def load_architecture() -> bytes:
    """Load which architecture's numbers the call uses (AUDIT_ARCH_*)."""
    return instruction(_LOAD, _ARCHITECTURE_OFFSET)


def load_argument(index: int) -> bytes:
    """Load the lower half of an argument, counted from 0."""
    return instruction(_LOAD, _ARGUMENTS_OFFSET + 8 * index)


def mask(value: int) -> bytes:
    """Keep these bits of what is loaded."""
    return instruction(_AND, value)


def allow() -> bytes:
    """The call goes on to the kernel."""
    return instruction(_RETURN, _ALLOW)


def fail(number: int) -> bytes:
    """The call is not made and returns this errno; 0: it is not made and claims success."""
    return instruction(_RETURN, _ERROR | number)


def kill() -> bytes:
    """The whole process dies."""
    return instruction(_RETURN, _KILL_PROCESS)


def when(value: int, action: bytes) -> bytes:
    """`action` (one instruction) if `value` is loaded."""
    return instruction(_EQUAL, value, 0, 1) + action


def unless(value: int, action: bytes) -> bytes:
    """`action` (one instruction) if anything but `value` is loaded."""
    return instruction(_EQUAL, value, 1, 0) + action


def when_at_least(value: int, action: bytes) -> bytes:
    """`action` (one instruction) if this value or a greater one is loaded."""
    return instruction(_AT_LEAST, value, 0, 1) + action


def when_any_bit(value: int, action: bytes) -> bytes:
    """`action` (one instruction) if one of these bits is loaded."""
    return instruction(_ANY_BIT, value, 0, 1) + action


def case(value: int, body: Iterable[bytes]) -> Iterator[bytes]:
    """`body` if `value` is loaded; it must end the program, because it overwrites what is loaded."""
    code = b"".join(body)
    yield instruction(_EQUAL, value, 0, len(code) // 8)
    yield code


def instruction(code: int, operand: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """One `struct sock_filter`; jumps count instructions from the next one."""
    return struct.pack("=HBBI", code, if_true, if_false, operand)


def calls(program: bytes) -> list[tuple[int, int, int, int]]:
    """(code, jump if true, jump if false, operand) of each instruction, for whoever inspects or interprets one."""
    return list(struct.iter_unpack("=HBBI", program))
