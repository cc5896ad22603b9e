"""Decides which isolation tier this machine gives to which tree, or why none, with the cause and the cure.

Tier A (bubblewrap) wherever it works. Else tier B (Landlock + seccomp), if it was asked for. Else tier C, for
first-party trees only. Anything else is refused.
"""

from __future__ import annotations

import errno
import platform
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from evaluators import bubblewrap, seccomp
from evaluators.confine import landlock_abi
from evaluators.landlock import LandlockSandbox
from evaluators.sandbox import PlainSandbox, Problem, Sandbox
from population.errors import IsolationError

FLAG = "--allow-reduced-isolation"
_CONTAINER_MARKS = ("/.dockerenv", "/run/.containerenv", "/var/run/secrets/kubernetes.io")
_CONTAINER_CURE = (
    "start the container with --security-opt seccomp=unconfined --security-opt apparmor=unconfined "
    "--security-opt systempaths=unconfined (Kubernetes: seccompProfile and appArmorProfile Unconfined, "
    f"procMount Unmasked), or add {FLAG}"
)
_MACOS_CURE = "run on Linux, e.g. in a virtual machine, or join a Linux cluster with cluster.address"


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a machine says about itself; `None` where it says nothing."""

    system: str = "Linux"
    """`platform.system()`."""
    architecture: str = "x86_64"
    kernel: str = ""
    node: str = "this machine"
    container: bool = False
    bubblewrap: Problem | None = None
    """What `bubblewrap.available` says: None if tier A works."""
    bubblewrap_present: bool = True
    """Whether there is a bwrap on PATH."""
    apparmor_restricts_userns: bool = False
    """kernel.apparmor_restrict_unprivileged_userns."""
    userns_clone: bool = True
    """kernel.unprivileged_userns_clone; not every kernel has it."""
    max_user_namespaces: int | None = None
    seccomp_filtered: bool = False
    """Whether a seccomp filter is upon this process already, as Docker's profile is."""
    landlock: int | OSError = 0
    """ABI version, or what came instead."""


@cache
def facts() -> Facts:
    """Of this machine, asked once per process; bubblewrap is tried, not only looked for."""
    try:
        landlock: int | OSError = landlock_abi() if platform.system() == "Linux" else 0
    except OSError as error:
        landlock = error
    return Facts(
        system=platform.system(),
        architecture=platform.machine(),
        kernel=platform.release(),
        node=platform.node(),
        container=any(Path(mark).exists() for mark in _CONTAINER_MARKS),
        bubblewrap=bubblewrap.available(),
        bubblewrap_present=shutil.which("bwrap") is not None,
        apparmor_restricts_userns=_sysctl("kernel/apparmor_restrict_unprivileged_userns") == 1,
        userns_clone=_sysctl("kernel/unprivileged_userns_clone") != 0,
        max_user_namespaces=_sysctl("user/max_user_namespaces"),
        seccomp_filtered=_seccomp_filtered(),
        landlock=landlock,
    )


def choose(allow_reduced: bool, first_party: bool, given: Facts | None = None) -> Sandbox:
    """The best tier that this machine gives and that may run such a tree; `given`: of another machine than this.

    Raises:
        IsolationError: there is none.
    """
    found = given or facts()
    no_a, no_b = why_not_a(found), why_not_b(found)
    if no_a is None:
        return bubblewrap.BubblewrapSandbox()
    if allow_reduced and no_b is None:
        assert isinstance(found.landlock, int)
        return LandlockSandbox(found.landlock)
    if first_party:
        return PlainSandbox()
    raise IsolationError(_refusal(found, no_a, no_b, allow_reduced))


def why_not_a(found: Facts) -> Problem | None:
    """What stands between this machine and tier A."""
    if found.system != "Linux":
        return _macos(found.system)
    if found.bubblewrap is None:
        return None
    forbidden = _why_no_namespaces(found) if found.bubblewrap_present else None
    if forbidden is None:
        return found.bubblewrap
    return Problem(cause=f"{forbidden.cause}: {found.bubblewrap.cause}", cure=forbidden.cure)


def _why_no_namespaces(found: Facts) -> Problem | None:
    """Bubblewrap is there and does not work: who forbids user namespaces, if somebody says so."""
    if found.max_user_namespaces == 0:
        return Problem(
            cause="the kernel allows no user namespaces (user.max_user_namespaces is 0)",
            cure="sysctl -w user.max_user_namespaces=15000 (in /etc/sysctl.d to keep it)",
        )
    if not found.userns_clone:
        return Problem(
            cause="the kernel allows user namespaces to root only (kernel.unprivileged_userns_clone is 0)",
            cure="sysctl -w kernel.unprivileged_userns_clone=1 (in /etc/sysctl.d to keep it)",
        )
    if found.container and found.seccomp_filtered:
        cause = "the container's seccomp profile forbids namespaces and mounts (the default of Docker and Kubernetes)"
        return Problem(cause=cause, cure=_CONTAINER_CURE)
    if found.apparmor_restricts_userns:
        return Problem(
            cause="AppArmor keeps user namespaces from programs without a profile "
            "(kernel.apparmor_restrict_unprivileged_userns is 1, as in Ubuntu 23.10 and later)",
            cure="install the profile for bwrap (apt-get install apparmor-profiles; ln -s "
            "/usr/share/apparmor/extra-profiles/bwrap-userns-restrict /etc/apparmor.d/; apparmor_parser -r "
            "/etc/apparmor.d/bwrap-userns-restrict), or sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        )
    return None


def why_not_b(found: Facts) -> Problem | None:
    """What stands between this machine and tier B."""
    if found.system != "Linux":
        return _macos(found.system)
    if not seccomp.supported(found.architecture):
        return Problem(
            cause=f"the system calls of {found.architecture} are not known here",
            cure="use an x86_64 or aarch64 machine",
        )
    if isinstance(found.landlock, int) and found.landlock >= 1:
        return None
    if isinstance(found.landlock, OSError) and found.landlock.errno == errno.EOPNOTSUPP:
        return Problem(
            cause="Landlock is switched off in this kernel",
            cure="add landlock to the kernel's lsm= boot option (see /sys/kernel/security/lsm)",
        )
    if isinstance(found.landlock, OSError) and found.landlock.errno == errno.EPERM:
        return Problem(
            cause="the container's seccomp profile hides Landlock",
            cure="update the container engine: Docker 23.0 and containerd 1.6 let it through",
        )
    return Problem(
        cause=f"kernel {found.kernel} has no Landlock",
        cure="use a kernel of version 5.13 or newer that is built with it",
    )


def _refusal(found: Facts, no_a: Problem, no_b: Problem | None, allow_reduced: bool) -> str:
    if no_b is not None:
        tier_b = f"{no_b.cause}; {no_b.cure}"
    else:
        assert not allow_reduced
        tier_b = f"not asked for; add {FLAG} to accept what it leaves open (docs/trust.md)"
    return (
        f"expected an isolation for code that did not come with VibeServe, found none on {found.node}:\n"
        f"  tier A (bubblewrap): {no_a.cause}; {no_a.cure}\n"
        f"  tier B (Landlock + seccomp): {tier_b}\n"
        "  tier C (no isolation): only for the checkout's own targets, seeds and recipes, which this is not"
    )


def _macos(system: str = "Darwin") -> Problem:
    name = "macOS" if system == "Darwin" else system
    return Problem(cause=f"{name} has neither namespaces nor Landlock", cure=_MACOS_CURE)


def _sysctl(name: str) -> int | None:
    try:
        return int(Path("/proc/sys", name).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _seccomp_filtered() -> bool:
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    return any(line.split() == ["Seccomp:", "2"] for line in lines)
