"""Decides what a command keeps under Landlock and seccomp: isolation tier B, for machines without namespaces.

Default Docker and Kubernetes allow no namespaces, but every process may give up rights. What each version of the
kernel's Landlock ABI can restrict is used, and what it cannot is listed in `LandlockSandbox.gaps`.
https://docs.kernel.org/userspace-api/landlock.html
"""

from __future__ import annotations

import base64
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

from evaluators.confine import Plan
from evaluators.identity import Identity
from evaluators.landlock_abi import DEVICE, READ, RUN, WRITE, Fs, Net, handled
from evaluators.launch import Enclosure, Launch
from evaluators.limits import (
    Controller,
    Limits,
    gaps,
    limits_of,
    make_groups,
    pinned_by_affinity,
    remove,
    usable_controllers,
    watched,
)
from evaluators.process import RunningProcess
from evaluators.reduced_filter import reduced_program
from evaluators.sandbox import Tier
from evaluators.seccomp import program
from evaluators.view import gpu_nodes
from population.errors import InfrastructureError

_ALWAYS_OPEN = (
    "files: name, size, owner and times of every file can be read (stat)",
    "network: the host's; its addresses and listening ports can be seen",
    "processes: their ids can be guessed",
    "disk: a watchdog ends a tree some 50 ms after its private folder passed its limit",
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
    "with several GPUs, NCCL needs /dev/shm, without a size limit, and unix sockets with a path, as far as permissions "
    "allow",
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


class LandlockSandbox:
    """Tier B."""

    tier: Tier = "B"

    def __init__(
        self,
        abi: int,
        identity: Identity | None = None,
        limits: Limits | None = None,
        controllers: tuple[Controller, ...] | None = None,
    ) -> None:
        """`limits` and `controllers` as for `BubblewrapSandbox`.

        Args:
            abi: what `confine.landlock_abi` says of this kernel.
            identity: None: the best that this process can give.
        """
        self._abi = abi
        self._identity = identity or Identity.of_this_process()
        self._limits = limits
        self._controllers = usable_controllers() if controllers is None else controllers

    @property
    def gaps(self) -> tuple[str, ...]:
        """What stays open on this kernel, for this user, and with this machine's devices."""
        found = [*_ALWAYS_OPEN, *(text for abi, text in _OPEN_BELOW.items() if self._abi < abi)]
        found += gaps(self._controllers)
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
        limits = limits_of(self._limits, launch.cpus, launch.gpus)
        plan = plan_of(launch, self._abi, self._identity, pinned=pinned_by_affinity(self._controllers, limits))
        rlimits = dict(launch.limits)
        if plan["uid"] is not None:
            _give(_writable(launch), plan["uid"])
            rlimits["RLIMIT_NPROC"] = limits.pids
        enclosure = self._enclosure(launch, limits)
        try:
            return RunningProcess(replace(launch, confine=plan, limits=rlimits, enclosure=enclosure))
        except BaseException:
            remove(enclosure.groups)
            raise

    def _enclosure(self, launch: Launch, limits: Limits) -> Enclosure:
        try:
            groups = make_groups(self._controllers, limits)
        except OSError as error:
            raise InfrastructureError(f"cannot make a control group: {error}") from error
        watch = {**watched(self._controllers, limits), "disk_bytes": limits.temporary_bytes}
        return Enclosure(groups=groups, watch=watch, bounded=_private_home(launch))


def plan_of(launch: Launch, abi: int, identity: Identity, pinned: bool = False) -> Plan:
    """What `launch` gives up; `pinned`: the choice of its CPUs, too."""
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
        filters=[base64.b64encode(code).decode("ascii") for code in (program(pinned=pinned), reduced)],
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
    return (*launch.writable, *_private_home(launch))


def _private_home(launch: Launch) -> tuple[Path, ...]:
    """The home, if it is the one that `clean_environment` made for this command."""
    env = launch.env
    home = env.get("HOME", "")
    private = home and env.get("TMPDIR") == f"{home}/tmp" and env.get("XDG_CACHE_HOME") == f"{home}/.cache"
    return (Path(home),) if private else ()


def _give(folders: tuple[Path, ...], uid: int) -> None:
    """Private folders belong to the user who is to write there.

    Raises:
        InfrastructureError: we may not give them away.
    """
    for top in folders:
        for folder, names, files in os.walk(top):
            for path in (folder, *(os.path.join(folder, name) for name in (*names, *files))):
                try:
                    os.chown(path, uid, uid, follow_symlinks=False)
                except FileNotFoundError:
                    continue
                except PermissionError as error:
                    raise InfrastructureError(f"cannot give {path} to user {uid}: {error.strerror}") from error
