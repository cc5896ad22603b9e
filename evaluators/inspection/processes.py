"""Decides whether code starts processes, loads native code, or reaches for processes that are not its own."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator

from evaluators.inspection.finding import Rule, Spot, covered, members
from evaluators.inspection.tree import SourceTree

_COMMANDS = (
    *("subprocess", "asyncio.subprocess", "pty", "pexpect", "sh", "plumbum"),
    *members(
        "os", "system popen posix_spawn posix_spawnp startfile execl execle execlp execlpe execv execve execvp execvpe"
    ),
    *members("os", "spawnl spawnle spawnlp spawnlpe spawnv spawnve spawnvp spawnvpe"),
    *members("asyncio", "create_subprocess_exec create_subprocess_shell"),
)
_WORKERS = (
    *("multiprocessing", "torch.multiprocessing", "joblib", "loky", "os.fork", "os.forkpty"),
    *members("concurrent.futures", "ProcessPoolExecutor process"),
)
_NATIVE = (
    *("ctypes", "_ctypes", "cffi", "_cffi_backend", "numpy.ctypeslib", "pyximport", "distutils", "setuptools"),
    *members("torch", "utils.cpp_extension ops.load_library classes.load_library"),
    *("_imp.create_dynamic", "imp.load_dynamic", "sys.setdlopenflags"),
)
_DAEMONS = ("daemon", "prctl", "pyprctl", "signal.pthread_sigmask", *members("os", "setsid setpgid setpgrp daemon"))
_OTHERS = (
    *("psutil", "termios", "syslog", "fcntl.ioctl", "resource.prlimit", "posix_ipc", "sysv_ipc"),
    *members("os", "killpg pidfd_open getppid waitid setpriority setns unshare chroot mknod setuid setgid"),
    *members("os", "sched_setscheduler"),
    *members("signal", "pidfd_send_signal pthread_kill"),
)


def _references(library: tuple[str, ...], what: str) -> Callable[[SourceTree], Iterator[Spot]]:
    def look(tree: SourceTree) -> Iterator[Spot]:
        for module in tree.modules:
            for reference in module.references:
                if covered(reference.name, library):
                    yield Spot(module.path, module.line(reference.node), f"{reference.name} {what}")

    return look


def _daemons(tree: SourceTree) -> Iterator[Spot]:
    yield from _references(_DAEMONS, "lets a process outlive or ignore its keeper")(tree)
    for module in tree.modules:
        for name, call in module.calls:
            arguments = {found for argument in call.args for found in module.names.resolve(argument)}
            kept = {"signal.SIGTERM", "signal.SIGHUP"} & arguments
            if name.endswith(("signal.signal", "add_signal_handler")) and kept and "signal.SIG_IGN" in arguments:
                yield Spot(module.path, call.lineno, f"{min(kept)} is ignored")
        for node in module.nodes:
            if isinstance(node, ast.keyword) and node.arg in ("start_new_session", "process_group"):
                yield Spot(module.path, node.value.lineno, f"{node.arg}= detaches a process")


def _others(tree: SourceTree) -> Iterator[Spot]:
    yield from _references(_OTHERS, "reaches for other processes or the machine")(tree)
    for module in tree.modules:
        for name, call in module.calls:
            own = call.args and "os.getpid()" in module.names.resolve(call.args[0])
            if name == "os.kill" and not own:
                yield Spot(module.path, call.lineno, "os.kill of something other than os.getpid()")


RULES = (
    Rule(
        id="subprocess",
        why="Another program can do what the server may not, unseen by whoever reads the server.",
        look=_references(_COMMANDS, "starts a program"),
    ),
    Rule(
        id="multiprocessing",
        why="More processes use CPUs and memory that are not measured with the server, unless the target expects them.",
        look=_references(_WORKERS, "starts processes"),
    ),
    Rule(
        id="native-code",
        why="Native code can do anything, and cannot be read here.",
        look=_references(_NATIVE, "loads or builds native code"),
    ),
    Rule(id="daemon", why="A server ends when it is told to, and leaves nothing behind.", look=_daemons),
    Rule(
        id="foreign-process",
        why="A server has nothing to do with other processes, their limits or their memory.",
        look=_others,
    ),
)
