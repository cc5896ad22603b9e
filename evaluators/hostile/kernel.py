"""Decides which attacks go for the kernel: its risky calls, clocks, settings, terminals and log."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import pty
import socket
import sys
import termios
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from evaluators.hostile.attack import Attack, Blocked, Proof, Scene, first_success
from evaluators.hostile.syscalls import call, permitted

_KEYCTL_GET_KEYRING_ID, _KEY_SPEC_USER_KEYRING = 0, -4
_BPF_MAP_CREATE, _BPF_MAP_TYPE_ARRAY = 0, 2
_PERF_COUNT_SW_TASK_CLOCK, _PERF_EXCLUDE_KERNEL = 1, 1 << 5
_ADJ_TICK = 0x4000
_TICK_OFFSET = 88
"""Of `tick` in struct timex on 64-bit Linux."""
_SYSLOG_READ_ALL = 3
_I386_GETPID = b"\xb8\x14\x00\x00\x00\xcd\x80\xc3"
"""mov eax, 20; int 0x80; ret."""
_X32_GETPID = 0x40000000 + 39


def keyrings(scene: Scene) -> str:
    """Uses kernel keyrings, which users share (keyctl)."""
    return f"keyring {call('keyctl', _KEYCTL_GET_KEYRING_ID, _KEY_SPEC_USER_KEYRING, 1, 0, 0)}"


def add_key(scene: Scene) -> str:
    """Puts a key into a kernel keyring (add_key)."""
    return permitted("add_key", b"user", b"", None, 0, 0)


def bpf(scene: Scene) -> str:
    """Loads something into the kernel (bpf)."""
    attributes = ctypes.create_string_buffer(b"".join(n.to_bytes(4, sys.byteorder) for n in (2, 4, 4, 1)), 128)
    assert attributes.raw[0] == _BPF_MAP_TYPE_ARRAY or sys.byteorder == "big"
    return permitted("bpf", _BPF_MAP_CREATE, attributes, 128)


def io_uring(scene: Scene) -> str:
    """Opens an io_uring, whose operations a filter cannot see."""
    return permitted("io_uring_setup", 1, ctypes.create_string_buffer(120))


def perf_events(scene: Scene) -> str:
    """Watches processes and CPUs by performance counters (perf_event_open)."""
    words = (1, 112, _PERF_COUNT_SW_TASK_CLOCK)  # PERF_TYPE_SOFTWARE, size, config
    head = words[0].to_bytes(4, sys.byteorder) + words[1].to_bytes(4, sys.byteorder) + words[2].to_bytes(8, "little")
    attributes = ctypes.create_string_buffer(head + bytes(24) + _PERF_EXCLUDE_KERNEL.to_bytes(8, "little"), 112)
    return permitted("perf_event_open", attributes, 0, -1, -1, 0)


def userfaultfd(scene: Scene) -> str:
    """Handles page faults itself, which eases kernel exploits (userfaultfd)."""
    return first_success([partial(permitted, "userfaultfd", 0), partial(permitted, "userfaultfd", 1)])


def kernel_modules(scene: Scene) -> str:
    """Loads or removes kernel modules, or boots another kernel."""
    return first_success(
        [
            partial(permitted, "finit_module", -1, b"", 0),
            partial(permitted, "delete_module", b"no_such_module", os.O_NONBLOCK),
            partial(permitted, "kexec_file_load", -1, -1, 0, None, 0),
        ]
    )


def swap(scene: Scene) -> str:
    """Turns swapping off (swapoff)."""
    return permitted("swapoff", b"/nowhere")


def set_clock(scene: Scene) -> str:
    """Sets the clock (settimeofday)."""
    zone = ctypes.create_string_buffer(8)  # the time zone as it nearly always is: the same call, and no effect
    call("settimeofday", None, zone)
    return "settimeofday worked"


def adjust_clock(scene: Scene) -> str:
    """Changes the clock's speed (clock_adjtime)."""
    timex = ctypes.create_string_buffer(208)
    call("clock_adjtime", 0, timex)
    tick = timex.raw[_TICK_OFFSET : _TICK_OFFSET + 8]
    change = bytearray(208)
    change[:4] = _ADJ_TICK.to_bytes(4, sys.byteorder)
    change[_TICK_OFFSET : _TICK_OFFSET + 8] = tick  # the speed that it has
    call("clock_adjtime", 0, ctypes.create_string_buffer(bytes(change), len(change)))
    return "clock_adjtime worked"


def change_hostname(scene: Scene) -> str:
    """Renames the machine."""
    name = socket.gethostname().encode()
    call("sethostname", name, len(name))
    if os.readlink("/proc/self/ns/uts") != scene.uts:
        raise Blocked("renamed its own namespace only")
    return "sethostname worked"


def push_terminal_input(scene: Scene) -> str:
    """Types into a terminal (TIOCSTI): the harness's, or one of its own."""
    return first_success([_type_into_controlling, _type_into_own])


def write_core_pattern(scene: Scene) -> str:
    """Has the kernel run a program at the next crash (core_pattern)."""
    return _open_for_writing("/proc/sys/kernel/core_pattern")


def write_sysctl(scene: Scene) -> str:
    """Changes kernel settings, or pulls the emergency lever (sysctl, sysrq)."""
    names = ("sys/kernel/printk", "sys/vm/overcommit_memory", "sys/net/ipv4/ip_forward", "sysrq-trigger")
    return first_success([partial(_open_for_writing, f"/proc/{name}") for name in names])


def leave_cgroup(scene: Scene) -> str:
    """Moves itself to a control group without limits."""
    ways: list[Callable[[], str]] = [partial(_open_for_writing, path) for path in _cgroup_doors()]
    return first_success(ways)


def kernel_log(scene: Scene) -> str:
    """Reads the kernel's log (syslog)."""
    return f"{call('syslog', _SYSLOG_READ_ALL, ctypes.create_string_buffer(256), 256)} bytes"


def i386_calls(scene: Scene) -> str:
    """Makes system calls by the 32-bit entry, past a filter for 64 bits (int 0x80)."""
    if not works("i386"):
        raise Blocked("int 0x80 is refused")
    return "int 0x80 works"


def x32_calls(scene: Scene) -> str:
    """Makes system calls by the x32 numbers, past a filter for the plain ones."""
    if not works("x32"):
        raise Blocked("x32 numbers are refused")
    return "x32 numbers work"


def works(abi: str) -> bool:
    """Whether `i386` or `x32` calls work here; the process dies if there are none, or a filter forbids them."""
    if os.uname().machine != "x86_64":
        return False
    return (_i386_getpid() if abi == "i386" else _x32_getpid()) == os.getpid()


def _x32_getpid() -> int:
    return int(ctypes.CDLL(None).syscall(ctypes.c_long(_X32_GETPID)))


def _i386_getpid() -> int:
    with mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC) as page:
        page.write(_I386_GETPID)
        start = ctypes.c_char.from_buffer(page)
        answer = int(ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(start))())
        del start
    return answer


def _open_for_writing(path: str) -> str:
    os.close(os.open(path, os.O_WRONLY))
    return f"{path} is writable"


def _cgroup_doors() -> Iterator[str]:
    """`cgroup.procs` of the upper groups; all of them have one."""
    for root, folders, names in os.walk("/sys/fs/cgroup"):
        if "cgroup.procs" in names:
            yield str(Path(root) / "cgroup.procs")
        if root.count("/") > 5:
            folders.clear()


def _type_into_controlling() -> str:
    terminal = os.open("/dev/tty", os.O_RDWR | os.O_NONBLOCK)
    return f"has the harness's terminal, descriptor {terminal}"


def _type_into_own() -> str:
    os.setsid() if os.getpgid(0) != os.getpid() else None
    _, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
    fcntl.ioctl(terminal, termios.TIOCSTI, b"x")
    return "TIOCSTI works on a terminal of its own"


ATTACKS = (
    Attack(run=keyrings, proof=Proof.RESULT, needs=("keyctl",)),
    Attack(run=add_key, proof=Proof.RESULT, needs=("add_key",)),
    Attack(run=bpf, proof=Proof.RESULT, needs=("bpf",)),
    Attack(run=io_uring, proof=Proof.RESULT, needs=("io_uring_setup",)),
    Attack(run=perf_events, proof=Proof.RESULT, needs=("perf_event_open",)),
    Attack(run=userfaultfd, proof=Proof.RESULT, needs=("userfaultfd",)),
    *(Attack(run=run, proof=Proof.RESULT) for run in (kernel_modules, swap, set_clock, adjust_clock)),
    *(Attack(run=run, proof=Proof.RESULT) for run in (change_hostname, push_terminal_input, write_core_pattern)),
    *(Attack(run=run, proof=Proof.RESULT) for run in (write_sysctl, leave_cgroup, kernel_log, i386_calls, x32_calls)),
)
