"""Decides when a command's process is forked: before its supervisor's modules are loaded.

Entering control groups waits for the kernel, some 15 ms. The command's process is put there meanwhile, and is then
told what to become.

Standard library only: the supervisor runs it without site-packages. Its own imports are the few that cost nothing.
"""

from __future__ import annotations

import marshal
import os
import sys

_MACHINE = b"1"


def main() -> None:
    """Detach, fork the command's process, become its supervisor. Arguments: our packages, then control groups."""
    if os.fork():
        os._exit(0)  # the owner waits for this half only
    os.setsid()
    cradle = Cradle(sys.argv[2:])
    from evaluators.supervisor import supervise

    supervise(cradle)
    os._exit(0)  # the tree is gone: nothing is worth the interpreter's clean-up


class Cradle:
    """The command's process before it is told what to become; it waits in its control groups.

    Attributes:
        pid: the process.
        output: its stdout and stderr, not blocking.
        status: what a wrapper reports; end of file at once where there is none.
    """

    def __init__(self, groups: list[str]) -> None:
        self.output, output_write = os.pipe()
        self.status, status_write = os.pipe()
        self._trouble, trouble_write = os.pipe()
        task, self._task = os.pipe()
        supervisor = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._task)
            _grow(groups, task, (output_write, status_write, trouble_write), supervisor)
        for end in (task, output_write, status_write, trouble_write):
            os.close(end)
        os.set_blocking(self.output, False)

    def start(self, spec: dict[str, object]) -> dict[str, object] | None:
        """Make it the command of the spec; why it could not become that, or None once it has."""
        try:
            with open(self._task, "wb") as task:
                task.write(marshal.dumps(spec))
        except BrokenPipeError:
            pass  # it says below why it is gone
        with open(self._trouble, "rb") as trouble:
            words = trouble.read()
        if not words:
            return None
        return {"failed": words[1:].decode(errors="replace"), "machine": words[:1] == _MACHINE}


def _grow(groups: list[str], task: int, ends: tuple[int, int, int], supervisor: int) -> None:
    """In the command's process; does not return."""
    output, status, trouble = ends
    try:
        usher = _usher(groups, os.getpid()) if groups else 0
        from evaluators.birth import become

        with open(task, "rb") as file:
            text = file.read()
        if usher and (code := os.waitstatus_to_exitcode(os.waitpid(usher, 0)[1])):
            os.write(trouble, _MACHINE + f"cannot enter a control group of {groups}: {os.strerror(code)}".encode())
        elif text:  # else the supervisor is gone
            os.write(trouble, become(marshal.loads(text), output, status, supervisor))
    finally:
        os._exit(127)


def _usher(groups: list[str], pid: int) -> int:
    """A process that puts `pid` into control groups, where everything stays that is started from there."""
    usher = os.fork()
    if usher == 0:
        try:
            for folder in groups:
                with open(f"{folder}/cgroup.procs", "w") as file:
                    file.write(str(pid))
        except OSError as error:
            os._exit(error.errno or 1)
        finally:
            os._exit(0)
    return usher
