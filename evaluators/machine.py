"""Decides who used the machine: its processes, their CPU time and their sockets."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from dataclasses import dataclass

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_RAY_NAMES = ("ray::", "raylet", "gcs_server")


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One process at one moment. `cpu_s` counts its dead and collected children as well."""

    pid: int
    parent: int
    session: int
    name: str
    cpu_s: float


class Machine:
    """A snapshot of the process table, read from /proc; empty on systems without it."""

    def __init__(self) -> None:
        self.processes: dict[int, Process] = {}
        with contextlib.suppress(FileNotFoundError):
            for entry in os.listdir("/proc"):
                if entry.isdigit() and (process := _process(int(entry))) is not None:
                    self.processes[process.pid] = process

    def tree(self, root: int) -> set[int]:
        """`root` and everything below it."""
        below: dict[int, list[int]] = {}
        for process in self.processes.values():
            below.setdefault(process.parent, []).append(process.pid)
        found, queue = {root}, [root]
        while queue:
            children = below.get(queue.pop(), [])
            found.update(children)
            queue += children
        return found

    def unwrapped(self, pid: int) -> int:
        """The command that bubblewrap's processes stand around; `pid` itself where there are none."""
        below = {process.parent: process.pid for process in self.processes.values()}
        while pid in below and self.processes[pid].name == "bwrap":
            pid = below[pid]
        return pid

    def own(self) -> set[int]:
        """This process, its ancestors, everything in its session, and the Ray that runs it: our overhead, not a
        neighbour's noise. Whoever was not started by a raylet has no Ray: one beside it is a neighbour.

        Session 0 is the kernel's, and 1 that of init: where nobody made a session (in many containers), everybody is in
        it, neighbours included.
        """
        me, session = os.getpid(), os.getsid(0)
        above = self._above(me)
        in_ray = any(p.name.startswith("raylet") for p in above)
        return (
            self.tree(me)
            | {p.pid for p in above}
            | {
                p.pid
                for p in self.processes.values()
                if (p.session == session and session > 1) or (in_ray and p.name.startswith(_RAY_NAMES))
            }
        )

    def _above(self, pid: int) -> list[Process]:
        """A process and its ancestors, without init."""
        found = list[Process]()
        process = self.processes.get(pid)
        while process is not None and process.pid != 1:
            found.append(process)
            process = self.processes.get(process.parent)
        return found

    def cpu_s(self, pids: Iterable[int]) -> float:
        """CPU seconds that these processes and their collected children have used."""
        return sum(self.processes[pid].cpu_s for pid in pids if pid in self.processes)

    def listeners(self, port: int, process: int | None = None) -> set[str]:
        """Inodes of the TCP sockets that listen on `port` in the network of `process`; None: in ours."""
        found = set()
        for table in ("tcp", "tcp6"):
            with contextlib.suppress(OSError), open(f"/proc/{process or 'self'}/net/{table}") as lines:
                for line in list(lines)[1:]:
                    fields = line.split()
                    if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                        found.add(fields[9])
        return found

    def sockets(self, pids: Iterable[int]) -> set[str]:
        """Inodes of the sockets that these processes hold."""
        found = set()
        for pid in pids:
            with contextlib.suppress(OSError):
                for fd in os.listdir(f"/proc/{pid}/fd"):
                    with contextlib.suppress(OSError):
                        link = os.readlink(f"/proc/{pid}/fd/{fd}")
                        if link.startswith("socket:["):
                            found.add(link[8:-1])
        return found


def busy_cpu_s(cpus: tuple[int, ...]) -> float:
    """Seconds since boot in which these CPUs (empty: all) were not idle; 0 where the system does not tell."""
    names = {f"cpu{number}" for number in cpus} or {"cpu"}
    busy = 0.0
    with contextlib.suppress(OSError), open("/proc/stat") as lines:
        for line in lines:
            fields = line.split()
            if fields and fields[0] in names:
                user, nice, system, _idle, _iowait, irq, softirq, steal = (int(field) for field in fields[1:9])
                busy += (user + nice + system + irq + softirq + steal) * _TICK_S
    return busy


def _process(pid: int) -> Process | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            head, _, rest = file.read().decode(errors="replace").rpartition(")")
    except OSError:
        return None
    fields = rest.split()
    ticks = sum(int(field) for field in fields[11:15])  # utime, stime, cutime, cstime
    return Process(
        pid=pid, parent=int(fields[1]), session=int(fields[3]), name=head.partition("(")[2], cpu_s=ticks * _TICK_S
    )
