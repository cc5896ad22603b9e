"""Decides what confines a command under bubblewrap: namespaces, view, system calls, user and limits; isolation tier A.

bubblewrap itself starts with the command's clean environment (or /proc/1/environ would tell ours), as a user that is
not root, with its options on a descriptor.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cache
from pathlib import Path

from evaluators import seccomp
from evaluators.identity import passing_uid
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
from evaluators.pod import Pod
from evaluators.process import Enclosure, Launch, NotExecutable, RunningProcess
from evaluators.sandbox import Problem, Tier
from evaluators.view import STAGE, View, build
from population.errors import InfrastructureError

_OPTIONS_FD, _SECCOMP_FD, _STATUS_FD, _FIRST_FD = 100, 101, 102, 103
_OLDEST = (0, 8)
_ISOLATION = (
    "--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try", "--disable-userns",
    "--die-with-parent", "--new-session", "--cap-drop", "ALL", "--hostname", "candidate",
    "--seccomp", str(_SECCOMP_FD), "--json-status-fd", str(_STATUS_FD),
)  # fmt: skip


class BubblewrapSandbox:
    """Tier A. Ask `available` first."""

    tier: Tier = "A"

    def __init__(
        self,
        program: str | None = None,
        limits: Limits | None = None,
        controllers: tuple[Controller, ...] | None = None,
    ) -> None:
        """Nothing is looked at yet: a sandbox may travel to another machine.

        Args:
            program: None: `bwrap` of PATH.
            limits: None: by each command's share of the CPUs and GPUs; the CPUs are always those of the command.
            controllers: None: those with which control groups can be made; (): leave everything to the watchdog.
        """
        self._program = program
        self._limits = limits
        self._controllers = controllers

    @property
    def gaps(self) -> tuple[str, ...]:
        """What this machine's control groups do not cover."""
        return gaps(self._usable())

    @contextmanager
    def pod(self) -> Iterator[Pod]:
        """See `Sandbox.pod`."""
        with Pod() as pod:
            yield pod

    def launch(self, launch: Launch) -> RunningProcess:
        """See `Sandbox.launch`; without a pod the command has a loopback of its own and no other network."""
        program = self._program or shutil.which("bwrap")
        if program is None:
            raise InfrastructureError("bubblewrap is gone: expected `bwrap` on PATH")
        limits = limits_of(self._limits, launch.cpus, launch.gpus)
        uid = passing_uid() if os.getuid() == 0 else None
        if uid is not None:
            _open_to(uid, launch)
        view = build(
            launch, staged=uid is not None, uid=os.getuid() if uid is None else uid,
            temporary_bytes=limits.temporary_bytes, first_fd=_FIRST_FD,
        )  # fmt: skip
        enclosure, rlimits = self._enclosure(launch, view, limits, uid)
        command = (program, "--args", str(_OPTIONS_FD), "--", *launch.command)
        confined = replace(
            launch, command=command, workspace=Path("/"), env=_environment(launch), limits=rlimits, enclosure=enclosure
        )
        try:
            return RunningProcess(confined)
        except BaseException:
            remove(enclosure.groups)
            raise

    def _enclosure(
        self, launch: Launch, view: View, limits: Limits, uid: int | None
    ) -> tuple[Enclosure, dict[str, int]]:
        controllers = self._usable()
        options = [*_ISOLATION, *(() if launch.pod is not None else ("--unshare-net",)), *view.options]
        rlimits = dict(launch.limits)
        if uid is not None or launch.pod is not None:  # a user of our own counts for what they run elsewhere, too
            rlimits["RLIMIT_NPROC"] = limits.pids
        watch = watched(controllers, limits)
        try:
            groups = make_groups(controllers, limits)
        except OSError as error:
            raise InfrastructureError(f"cannot make a control group: {error}") from error
        enclosure = Enclosure(
            files={
                _OPTIONS_FD: "".join(f"{option}\0" for option in options).encode(),
                _SECCOMP_FD: seccomp.program(
                    pinned=pinned_by_affinity(controllers, limits), segments="memory_bytes" not in watch
                ),
                **view.files,
            },
            status_fd=_STATUS_FD,
            stage=STAGE,
            stages=tuple(view.stages),
            uid=uid,
            groups=groups,
            watch=watch,
        )
        return enclosure, rlimits

    def _usable(self) -> tuple[Controller, ...]:
        return usable_controllers() if self._controllers is None else self._controllers


def available(program: str | None = None) -> Problem | None:
    """None if this machine can run tier A, decided by running it; else why not, and what would change that."""
    program = program or shutil.which("bwrap")
    problem = _program_problem(program)
    if problem is not None:
        return problem
    with tempfile.TemporaryDirectory(prefix="vibeserve-") as folder:
        try:
            words = _trial(BubblewrapSandbox(program), Path(folder))
        except (InfrastructureError, NotExecutable) as error:
            words = str(error)
    return Problem(cause=f"bubblewrap cannot isolate here: {words}", cure=_cure(words)) if words else None


def _program_problem(program: str | None) -> Problem | None:
    if sys.platform != "linux":
        return Problem(cause=f"bubblewrap needs Linux, this is {sys.platform}", cure="run on Linux")
    if not seccomp.supported():
        cause = f"no system call filter is known for {os.uname().machine}"
        return Problem(cause=cause, cure="use x86_64 or aarch64")
    cure = "install bubblewrap >= 0.8 (apt-get install bubblewrap, dnf install bubblewrap)"
    if program is None:
        return Problem(cause="bubblewrap is not installed (no `bwrap` on PATH)", cure=cure)
    try:
        answer = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        return Problem(cause=f"{program} does not run: {error}", cure=cure)
    version = re.search(r"(\d+)\.(\d+)", answer)
    if version is None or (int(version[1]), int(version[2])) < _OLDEST:
        cause = f"bubblewrap is too old: expected 0.8 or later, got {answer.strip() or 'no version'} at {program}"
        return Problem(cause=f"{cause}; it cannot switch nested user namespaces off", cure=cure)
    return None


def _trial(sandbox: BubblewrapSandbox, folder: Path) -> str:
    """What went wrong when our interpreter was to start in a pod; empty if nothing did."""
    home, workspace = folder / "home", folder / "workspace"
    workspace.mkdir()
    with sandbox.pod() as pod:
        launch = Launch(
            command=(sys.executable, "-I", "-S", "-c", "pass"), workspace=workspace, log=folder / "log",
            env={"HOME": str(home), "PATH": "/usr/bin:/bin"}, pod=pod.holder_pid,
        )  # fmt: skip
        with sandbox.launch(launch) as process:
            code = process.wait(20.0)
            return "" if code == 0 else process.log_tail(3) or f"exit code {code}"


def _cure(words: str) -> str:
    if "proc" in words and "mount" in words.lower():
        return "the container masks /proc: start it with `--security-opt systempaths=unconfined`"
    return "allow user namespaces here: see that `unshare -Urn true` works, as an ordinary user, too"


def _environment(launch: Launch) -> dict[str, str]:
    """With fewer device nodes the GPUs that are left count from 0."""
    if not launch.gpus or not all(gpu.isdigit() for gpu in launch.gpus):
        return dict(launch.env)
    return {**launch.env, "CUDA_VISIBLE_DEVICES": ",".join(str(number) for number in range(len(launch.gpus)))}


def _open_to(uid: int, launch: Launch) -> None:
    """What a command may write belongs to its user; the workspace, a private copy, may be read by everybody."""
    for top in launch.writable:
        for folder, _, files in os.walk(top):
            for path in (folder, *(os.path.join(folder, name) for name in files)):
                os.chown(path, uid, uid, follow_symlinks=False)
    for top in launch.readable:
        _check_readable(top)
    if launch.workspace in launch.writable:
        return
    for path, mode in _modes(launch.workspace):
        wanted = mode | (0o055 if mode & 0o100 else 0o044)
        if mode != wanted and not stat.S_ISLNK(mode):
            os.chmod(path, stat.S_IMODE(wanted))


@cache
def _check_readable(top: Path) -> None:
    """Read-only folders are shared and stay as they are; asked once per process.

    Raises:
        InfrastructureError: the command's user could not read something in it.
    """
    for path, mode in _modes(top):
        wanted = 0o005 if stat.S_ISDIR(mode) else 0o004
        if mode & wanted != wanted and not stat.S_ISLNK(mode):
            raise InfrastructureError(
                f"isolated commands run as a user who cannot read {path} (mode {stat.S_IMODE(mode):o}): "
                f"chmod -R o+rX {top}"
            )


def _modes(top: Path) -> Iterator[tuple[str, int]]:
    with suppress(FileNotFoundError):
        yield str(top), os.lstat(os.path.realpath(top)).st_mode
    for folder, folders, files in os.walk(top):
        for name in (*folders, *files):
            path = os.path.join(folder, name)
            yield path, os.lstat(path).st_mode
