"""Decides what a command keeps under Landlock and seccomp: isolation tier B, for machines without namespaces.

Default Docker and Kubernetes allow no namespaces, but every process may give up rights. What each version of the
kernel's Landlock ABI can restrict is used, and what it cannot is listed in `LandlockSandbox.gaps`.
https://docs.kernel.org/userspace-api/landlock.html
"""

from __future__ import annotations

import base64
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from enum import IntFlag
from pathlib import Path

from evaluators.confine import Plan
from evaluators.launch import Launch
from evaluators.process import RunningProcess
from evaluators.reduced_filter import reduced_program
from evaluators.sandbox import Tier
from evaluators.seccomp import program
from evaluators.view import gpu_nodes


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

_ALWAYS_OPEN = (
    "files: name, size, owner and times of every file can be read (stat)",
    "network: the host's; its addresses and listening ports can be seen",
    "processes: their ids can be guessed",
    "disk: private folders have no size limit",
)
_OPEN_BELOW: dict[int, str] = {
    3: "files: what may be read may also be emptied, as far as its permissions allow (kernel below 6.2)",
    4: "network: TCP to and from anywhere (kernel below 6.7)",
    5: "devices: any ioctl on the devices it may open (kernel below 6.10)",
    6: "processes: signals to others of the same user (kernel below 6.12)",
}
"""ABI → what stays open on kernels below it. REFER (2) is not here: without it more is forbidden, not less."""
_SAME_USER = "processes: CPU affinity and scheduling of others of the same user can be changed"
_WITH_GPUS = (
    "with several GPUs, NCCL needs /dev/shm and unix sockets with a path, as far as permissions allow",
    "with GPUs, CUDA needs all of /proc: command lines and counters of other processes can be read",
)

_SYSTEM_FOLDERS = ("/usr", "/lib", "/lib64", "/lib32", "/libx32", "/bin", "/sbin")
_SETTINGS = (
    "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives", "/etc/localtime",
    "/etc/ssl/certs", "/etc/ssl/openssl.cnf", "/etc/hosts", "/etc/host.conf", "/etc/nsswitch.conf",
    "/sys/devices/system", "/sys/kernel/mm/transparent_hugepage",
)  # fmt: skip
_PROC = (
    "/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/loadavg", "/proc/uptime", "/proc/version",
    "/proc/filesystems", "/proc/devices", "/proc/sys/kernel", "/proc/sys/vm", "/proc/sys/net/core",
)  # fmt: skip
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_GPU_FOLDERS = ("/sys/bus/pci", "/sys/class", "/sys/devices", "/sys/module", "/proc/driver/nvidia")
_GPU_CONTROL = "/dev/nvidiactl"

_FIRST_UID, _UIDS = 61184, 4096
"""Users for candidates when we are root; the range is that of systemd's dynamic users, which nobody else has."""
_CAP_CHOWN, _CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH, _CAP_KILL, _CAP_SETGID, _CAP_SETUID = 0, 1, 2, 5, 6, 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """As whom commands run."""

    root: bool
    """Whether we may become somebody else: then every command is a user of its own."""
    keep: int | None = None
    """The capability that lets that user read what only root could; Landlock decides what that is."""

    @classmethod
    def of_this_process(cls) -> Identity:
        """Root with the usual capabilities drops to another user; anybody else, and a crippled root, stays."""
        held = _effective_capabilities()
        needed = (_CAP_CHOWN, _CAP_KILL, _CAP_SETGID, _CAP_SETUID)
        if os.geteuid() != 0 or not all(held >> bit & 1 for bit in needed):
            return cls(root=False)
        keep = next((bit for bit in (_CAP_DAC_READ_SEARCH, _CAP_DAC_OVERRIDE) if held >> bit & 1), None)
        return cls(root=True, keep=keep)

    def uid(self) -> int | None:
        """A user for the next command: different ones for candidates that run at the same time."""
        if not self.root:
            return None
        return _FIRST_UID + secrets.randbelow(_UIDS)


class LandlockSandbox:
    """Tier B."""

    tier: Tier = "B"

    def __init__(self, abi: int, identity: Identity | None = None) -> None:
        """`abi`: what `confine.landlock_abi` says of this kernel."""
        self._abi = abi
        self._identity = identity or Identity.of_this_process()

    @property
    def gaps(self) -> tuple[str, ...]:
        """What stays open on this kernel, for this user, and with this machine's devices."""
        found = [*_ALWAYS_OPEN, *(text for abi, text in _OPEN_BELOW.items() if self._abi < abi)]
        if not self._identity.root:
            found.append(_SAME_USER)
        if os.path.exists(_GPU_CONTROL):
            found += _WITH_GPUS
        return tuple(found)

    def pod(self) -> AbstractContextManager[None]:
        """There is none: the host's network, of which the command may listen on its own port and nothing else."""
        return nullcontext()

    def launch(self, launch: Launch) -> RunningProcess:
        """See `Sandbox.launch`."""
        plan = plan_of(launch, self._abi, self._identity)
        if plan["uid"] is not None:
            _give(_writable(launch), plan["uid"])
        return RunningProcess(replace(launch, confine=plan))


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


def plan_of(launch: Launch, abi: int, identity: Identity) -> Plan:
    """What `launch` gives up."""
    fs, net, scope = handled(abi)
    # A socket with a path may be anybody's, Ray's or Docker's too; from ABI 9 on Landlock knows which are our own.
    unix_sockets = abi >= 9 or len(launch.gpus) > 1
    reduced = reduced_program(unix_sockets=unix_sockets, truncate=abi >= 3, same_user=not identity.root)
    return Plan(
        handled_fs=int(fs),
        handled_net=int(net),
        scoped=int(scope),
        paths=[(str(path), int(rights)) for path, rights in _paths(launch)],
        ports=[(port, int(Net.BIND_TCP)) for port in launch.ports],
        uid=identity.uid(),
        keep=identity.keep,
        filters=[base64.b64encode(code).decode("ascii") for code in (program(), reduced)],
    )


def _paths(launch: Launch) -> Iterator[tuple[str | Path, Fs]]:
    for folder in (*_SYSTEM_FOLDERS, sys.prefix, sys.base_prefix, launch.workspace):
        yield folder, RUN
    for path in (*_SETTINGS, *_PROC):
        yield path, READ
    for folder in launch.readable:
        yield folder, RUN
    for folder in _writable(launch):
        yield folder, WRITE
    for device in _DEVICES:
        yield device, DEVICE
    if launch.gpus:
        for path in (*gpu_nodes(launch.gpus), *_GPU_FOLDERS):
            yield path, DEVICE | READ
        yield "/proc", READ | Fs.WRITE_FILE  # CUDA names its threads there
    if len(launch.gpus) > 1:
        yield "/dev/shm", WRITE


def _writable(launch: Launch) -> tuple[Path, ...]:
    """What was granted, and the home if it is the private one that `clean_environment` made for this command."""
    env = launch.env
    home = env.get("HOME", "")
    private = home and env.get("TMPDIR") == f"{home}/tmp" and env.get("XDG_CACHE_HOME") == f"{home}/.cache"
    return (*launch.writable, Path(home)) if private else launch.writable


def _give(folders: tuple[Path, ...], uid: int) -> None:
    """Private folders belong to the user who is to write there."""
    for top in folders:
        for folder, names, files in os.walk(top):
            for path in (folder, *(os.path.join(folder, name) for name in (*names, *files))):
                with suppress(FileNotFoundError):
                    os.chown(path, uid, uid, follow_symlinks=False)


def _effective_capabilities() -> int:
    with suppress(OSError), open("/proc/self/status", encoding="ascii") as status:
        return next((int(line.split()[1], 16) for line in status if line.startswith("CapEff:")), 0)
    return 0
