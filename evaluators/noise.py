"""Decides whether a measurement was disturbed: CPU time that others took on the lease's CPUs while a load ran."""

from __future__ import annotations

import time
from dataclasses import dataclass

from evaluators.machine import Machine, busy_cpu_s

FOREIGN_SHARE_LIMIT = 0.15
"""Of one core; more than this and the window is measured again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuWindow:
    """What happened on a lease's CPUs between two moments, in CPU seconds."""

    elapsed_s: float
    busy_s: float
    """Everybody on these CPUs; time stolen by the hypervisor included."""
    own_s: float
    """This process, its ancestors, its session, the Ray that runs it."""
    server_s: float
    """The server under test and its children."""

    @property
    def foreign_share(self) -> float:
        """Cores' worth of work that is not ours: 0.15 is 15 % of one core."""
        return max(0.0, self.busy_s - self.own_s - self.server_s) / self.elapsed_s if self.elapsed_s > 0 else 0.0

    @property
    def noisy(self) -> bool:
        """Whether others took more than the limit."""
        return self.foreign_share > FOREIGN_SHARE_LIMIT


class CpuMeter:
    """Measures a `CpuWindow` from its making until `read`."""

    def __init__(self, cpus: tuple[int, ...], server_root: int) -> None:
        """`cpus` empty: all. `server_root`: the pid above everything that belongs to the server."""
        self._cpus = cpus
        self._server_root = server_root
        self._start_s = time.monotonic()
        self._busy_s = busy_cpu_s(cpus)
        self._own_s, self._server_s = self._used()

    def read(self) -> CpuWindow:
        """The window so far."""
        own_s, server_s = self._used()
        return CpuWindow(
            elapsed_s=time.monotonic() - self._start_s,
            busy_s=busy_cpu_s(self._cpus) - self._busy_s,
            # Whoever ended takes along what it had used, unless one of ours collects it.
            own_s=max(0.0, own_s - self._own_s),
            server_s=max(0.0, server_s - self._server_s),
        )

    def _used(self) -> tuple[float, float]:
        machine = Machine()
        server = machine.tree(self._server_root)
        return machine.cpu_s(machine.own() - server), machine.cpu_s(server)
