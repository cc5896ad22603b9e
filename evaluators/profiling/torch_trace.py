"""Decides what PyTorch's own profiler says of a server: operators by their CPU time, kernels by their GPU time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import pydantic
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from evaluators.machine import Machine
from evaluators.profiling.evidence import Evidence, Spent, ranked
from evaluators.profiling.injection import Injection
from evaluators.server import ServerCommand, ServerUnderTest
from population.errors import InfrastructureError

TOOL = "torch"
_CONFIG = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

Amount = Annotated[float, Field(ge=0, strict=False)]
Count = Annotated[int, Field(ge=0)]


@dataclass(config=_CONFIG, frozen=True, slots=True, kw_only=True)
class Sums:
    """Own times of the largest rows, and of all."""

    whole_us: Amount = 0.0
    rows: tuple[tuple[str, Count, Amount], ...] = ()
    """Name, calls, microseconds."""


@dataclass(config=_CONFIG, frozen=True, slots=True, kw_only=True)
class Report:
    """What one process wrote (`hook.py`)."""

    window_s: Amount = 0.0
    torch: str = ""
    operators: Sums = Sums()
    kernels: Sums = Sums()
    failed: str = ""


_REPORT = pydantic.TypeAdapter(Report)


class TorchTrace:
    """`torch.profiler` in every process of a server that imports torch; implements `rerun.Instrument`."""

    tool = TOOL

    def __init__(self, folder: Path, window_s: float) -> None:
        self._injection = Injection(folder, "trace", window_s)

    def around(self, command: ServerCommand) -> ServerCommand:
        """See `Instrument.around`."""
        return self._injection.around(command)

    def begin(self) -> None:
        """See `Instrument.begin`."""
        self._injection.begin()

    def end(self) -> None:
        """See `Instrument.end`."""
        self._injection.end()

    def evidence(self) -> Evidence:
        """See `Instrument.evidence`."""
        return evidence_of([parse(text) for text in self._injection.reports()])


def parse(text: bytes) -> Report:
    """A report as a candidate's process wrote it.

    Raises:
        InfrastructureError: it is none.
    """
    try:
        return _REPORT.validate_json(text)
    except pydantic.ValidationError as error:
        raise InfrastructureError(f"the server's profile is none: {error.errors()[0]['msg']}") from error


def evidence_of(reports: Sequence[Report]) -> Evidence:
    """Rows over all processes; the share of the window in which kernels ran is the first thing to know about a host."""
    seen = [report for report in reports if report.torch]
    if not seen:
        why = next((report.failed for report in reports if report.failed), "no process of the server reported")
        return Evidence.without(TOOL, why)
    window_us = max(report.window_s for report in seen) * 1e6
    operators, kernels = (_added(report.operators for report in seen), _added(report.kernels for report in seen))
    note = f"PyTorch {seen[0].torch} profiled for {window_us / 1e6:.2f} s in {len(seen)} process(es)"
    if kernels.whole_us and window_us:
        note += f"; kernels fill {kernels.whole_us / window_us:.0%} of it, what is missing is the host's"
    rows = ranked(_spent(operators), of="CPU time in operators", source=TOOL, whole=operators.whole_us or None)
    rows += ranked(_spent(kernels), of="GPU time in kernels", source=TOOL, whole=kernels.whole_us or None)
    return Evidence(rows=rows, notes={TOOL: note})


def imports_torch(server: ServerUnderTest) -> bool:
    """Whether a process of the running server has PyTorch's library in its memory."""
    for pid in Machine().tree(server.process.supervisor_pid):
        try:
            with open(f"/proc/{pid}/maps", "rb") as file:
                if any(b"/libtorch" in line for line in file):
                    return True
        except OSError:
            continue
    return False


def _added(parts: Iterable[Sums]) -> Sums:
    calls: dict[str, int] = {}
    us: dict[str, float] = {}
    whole_us = 0.0
    for part in parts:
        whole_us += part.whole_us
        for name, count, amount in part.rows:
            calls[name] = calls.get(name, 0) + count
            us[name] = us.get(name, 0.0) + amount
    return Sums(whole_us=whole_us, rows=tuple((name, calls[name], us[name]) for name in us))


def _spent(sums: Sums) -> list[Spent]:
    return [Spent(name=name, amount=us, calls=calls) for name, calls, us in sums.rows]
