"""Decides which attacks cannot be tried on this machine: what they go for is not there without a sandbox, either."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from evaluators.hostile.attack import Attack
from evaluators.hostile.channels import NOWHERE, ask_name_server, route
from evaluators.hostile.syscalls import known

_ABI_TIMEOUT_S = 20.0
_LOADERS = ("finit_module", "delete_module", "kexec_file_load")


def name_server() -> str:
    """The first of this machine's name servers that answers us; empty if none does."""
    with suppress(OSError):
        for line in Path("/etc/resolv.conf").read_text().splitlines():
            words = line.split()
            if words[:1] == ["nameserver"] and len(words) > 1:
                with suppress(OSError):
                    ask_name_server(words[1])
                    return words[1]
    return ""


def missing(attacks: tuple[Attack, ...], program: Path, home: bool) -> dict[str, str]:
    """Attack → why it does not apply here. `program`: the attackers' archive; `home`: whether HOME holds a secret."""
    found = {}
    for attack in attacks:
        lacking = [name for name in attack.needs if not known(name)]
        if lacking:
            found[attack.name] = f"this kernel has no {', '.join(lacking)}"
    for name, (present, reason) in _conditions(program, home).items():
        if name not in found and not present():
            found[name] = reason
    return found


def _conditions(program: Path, home: bool) -> dict[str, tuple[Callable[[], bool], str]]:
    """Attack → (whether its object exists, what to say if not)."""
    return {
        "read-home": (lambda: home, "HOME cannot be written, so there is no secret in it"),
        "read-shadow": (lambda: Path("/etc/shadow").exists(), "there is no /etc/shadow"),
        "open-unassigned-gpus": (lambda: any(Path("/dev").glob("nvidia[0-9]*")), "there are no GPUs"),
        "outside-network": (_has_route, "the harness has no route out, either"),
        "packet-socket": (lambda: hasattr(socket, "AF_PACKET"), "this system has no packet sockets"),
        "hypervisor-socket": (_has_vsock, "this kernel has no vsock"),
        "kernel-modules": (lambda: any(map(known, _LOADERS)), "this kernel loads no modules and no other kernel"),
        "leave-cpus": (lambda: (os.cpu_count() or 1) > 1, "there is one CPU only"),
        "leave-cgroup": (lambda: Path("/sys/fs/cgroup").is_dir(), "there are no control groups"),
        "i386-calls": (lambda: _abi_works(program, "i386"), "this kernel has no 32-bit entry"),
        "x32-calls": (lambda: _abi_works(program, "x32"), "this kernel has no x32 calls"),
    }


def _has_route() -> bool:
    for family, address in NOWHERE:
        with suppress(OSError):
            route(family, address)
            return True
    return False


def _has_vsock() -> bool:
    with suppress(OSError, AttributeError):
        socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM).close()
        return True
    return False


def _abi_works(program: Path, abi: str) -> bool:
    """Tried in a process of its own, which a kernel without the ABI kills."""
    command = [sys.executable, "-I", "-S", str(program), abi]
    return subprocess.run(command, capture_output=True, timeout=_ABI_TIMEOUT_S, check=False).returncode == 0
