"""Decides in which order a process gives up its rights for ever: capabilities, user, files and network, system calls.

Standard library only: `birth.py` calls `confine` between fork and exec. What is given up is decided elsewhere
(`landlock.py`) and comes as plain JSON, so that this file needs no judgement.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import os
from collections.abc import Sequence
from typing import TypedDict

from evaluators.birth import Refused, die_with, drop_to

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same numbers on every architecture
_RULE_PATH, _RULE_PORT = 1, 2
_VERSION_FLAG = 1
_PR_SET_KEEPCAPS, _PR_SET_SECCOMP, _PR_CAPBSET_DROP = 8, 22, 24
_PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _AMBIENT_RAISE = 38, 47, 2
_SECCOMP_MODE_FILTER = 2
_CAPABILITY_VERSION_3 = 0x20080522
_LAST_CAPABILITY = 63
# Rights of a rule on what is no folder: execute, write, read, truncate, ioctl.
_FILE_RIGHTS = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 14 | 1 << 15


class Plan(TypedDict):
    """What is given up; masks are those of linux/landlock.h."""

    handled_fs: int
    handled_net: int
    scoped: int
    paths: Sequence[tuple[str, int]]
    """Path → rights that remain below it; a path that does not exist grants nothing."""
    ports: Sequence[tuple[int, int]]
    """TCP port → rights that remain on it."""
    uid: int | None
    """User and group to become; None: stay who we are."""
    keep: int | None
    """The one capability to keep, None: none."""
    filters: Sequence[str]
    """seccomp programs, base64; every one of them has to agree to a call."""


class _RulesetAttr(ctypes.Structure):
    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathRule(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"  # asked for by Python 3.14 beside _pack_
    _fields_ = (("rights", ctypes.c_uint64), ("fd", ctypes.c_int32))


class _PortRule(ctypes.Structure):
    _fields_ = (("rights", ctypes.c_uint64), ("port", ctypes.c_uint64))


class _SeccompProgram(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_char_p))


class _CapabilityHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _CapabilityData(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def landlock_abi() -> int:
    """Version of the kernel's Landlock.

    Raises:
        OSError: ENOSYS (not in this kernel), EOPNOTSUPP (switched off at boot), EPERM (a seccomp filter hides it).
    """
    version: int = _LIBC.syscall(ctypes.c_long(_CREATE_RULESET), None, ctypes.c_size_t(0), ctypes.c_uint(_VERSION_FLAG))
    if version < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return version


def confine(plan: Plan) -> None:
    """Give up everything but what `plan` leaves; for this process and all its descendants, and for good.

    Raises:
        Refused: the kernel did not take it; nothing may be executed then.
    """
    supervisor = os.getppid()
    ruleset = _ruleset(plan)
    _become(plan["uid"], plan["keep"])
    die_with(supervisor)  # once more: a change of user forgets it
    _prctl("no_new_privs", _PR_SET_NO_NEW_PRIVS, 1)
    _call("landlock_restrict_self", _RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)
    for text in plan["filters"]:
        _load_filter(base64.b64decode(text))


def _ruleset(plan: Plan) -> int:
    """A ruleset with every rule of the plan, made while we may still open everything."""
    attr = _RulesetAttr(plan["handled_fs"], plan["handled_net"], plan["scoped"])
    # Older kernels know fewer fields, and take a longer structure as long as the rest is 0.
    ruleset = _call("landlock_create_ruleset", _CREATE_RULESET, ctypes.byref(attr), ctypes.sizeof(attr), 0)
    for path, rights in plan["paths"]:
        _allow_path(ruleset, path, rights & plan["handled_fs"])
    for port, rights in plan["ports"]:
        rule = _PortRule(rights & plan["handled_net"], port)
        if rule.rights:
            _call(f"landlock_add_rule for port {port}", _ADD_RULE, ruleset, _RULE_PORT, ctypes.byref(rule), 0)
    return ruleset


def _allow_path(ruleset: int, path: str, rights: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return
    if not os.path.isdir(path):
        rights &= _FILE_RIGHTS
    rule = _PathRule(rights, fd)
    if rights:
        _call(f"landlock_add_rule for {path}", _ADD_RULE, ruleset, _RULE_PATH, ctypes.byref(rule), 0)
    if path == "/proc/self":
        # The rule hangs on an inode of procfs, which the kernel forgets under memory pressure unless it is in use.
        os.set_inheritable(fd, True)
        return
    os.close(fd)


def _become(uid: int | None, keep: int | None) -> None:
    """User `uid` with nothing but the capability `keep`, which survives exec as an ambient one."""
    with contextlib.suppress(Refused):  # EINVAL ends the list; without CAP_SETPCAP no_new_privs has to do
        for capability in range(_LAST_CAPABILITY + 1):
            if capability != keep:
                _prctl("bounding set", _PR_CAPBSET_DROP, capability)
    _prctl("keep capabilities", _PR_SET_KEEPCAPS, 1)
    drop_to(uid)
    mask = 0 if keep is None else 1 << keep
    data = (_CapabilityData * 2)(*(_CapabilityData(word, word, word) for word in (mask & 0xFFFFFFFF, mask >> 32)))
    header = _CapabilityHeader(_CAPABILITY_VERSION_3, 0)
    if _LIBC.capset(ctypes.byref(header), ctypes.byref(data)) != 0:
        raise _refused("capset")
    if keep is not None:
        _prctl("ambient capability", _PR_CAP_AMBIENT, _AMBIENT_RAISE, keep)


def _load_filter(code: bytes) -> None:
    program = _SeccompProgram(len(code) // 8, code)
    _prctl("seccomp", _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(program))


_LIBC = ctypes.CDLL(None, use_errno=True)


def _prctl(what: str, option: int, first: int, second: int = 0) -> None:
    arguments = (ctypes.c_ulong(value) for value in (first, second, 0, 0))
    if _LIBC.prctl(option, *arguments) != 0:
        raise _refused(what)


def _call(what: str, number: int, *arguments: object) -> int:
    words = (ctypes.c_long(a) if isinstance(a, int) else a for a in arguments)
    result: int = _LIBC.syscall(ctypes.c_long(number), *words)
    if result < 0:
        raise _refused(what)
    return result


def _refused(what: str) -> Refused:
    return Refused(f"{what}: {os.strerror(ctypes.get_errno())}")
