"""Decides what a user sees while a run goes on: one live table on a terminal, one line per event elsewhere.

The driver hands over frozen snapshots and knows nothing of terminals. rich is imported when a display is opened.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol, TextIO

from vibeserve.wording import duration, one_line


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """One child or re-measurement in flight."""

    key: str
    """`c000012`, `r000003` (re-measurement) or `f-c000012-0` (final, held-out)."""
    operator: str
    """`recipe`, `tune`, `merge`, … or `remeasure`, `final`."""
    parents: tuple[str, ...] = ()
    label: str = ""
    """The recipe's name, or `knob=value` pairs."""
    stage: str = "queued"
    elapsed_s: float = 0.0
    """Seconds since the child was submitted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Meter:
    """What has been used of one budget; `limit` None is unlimited, `used` None is unknown (never 0)."""

    name: str
    """`children`, `wall time`, `gpu hours`."""
    used: float | None
    limit: float | None
    unit: str = ""
    """`s`, `h` or nothing."""

    @property
    def share(self) -> float | None:
        """Used part of the limit in [0, 1]; None if unlimited or unknown."""
        if self.used is None or not self.limit:
            return None
        return min(1.0, max(0.0, self.used / self.limit))


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricView:
    """One measured number of a front row with its 95 % interval and its gain over the seed."""

    name: str
    value: float
    low: float
    high: float
    n: int
    unit: str | None
    direction: str
    """`max` or `min`."""
    gain: float | None = None
    """Ratio over the seed, above 1 is better; None without a seed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontRow:
    """One member of the front."""

    id: str
    operator: str
    parents: tuple[str, ...] = ()
    label: str = ""
    metrics: tuple[MetricView, ...] = ()
    tier: str = "C"
    """The weakest isolation tier that it was measured in."""
    gaps: tuple[str, ...] = ()
    """What was left open in any of its measurements."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Everything a display needs, at one moment; built by the driver or from a ledger by `report.snapshot`."""

    run: str
    elapsed_s: float
    slots: tuple[Slot, ...] = ()
    meters: tuple[Meter, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    """`children`, `scored`, `rejected`, `queued`, `remeasured`, …"""
    front: tuple[FrontRow, ...] = ()
    hypervolume: float | None = None
    """In log space with the reference point at the seed."""
    history: tuple[float, ...] = ()
    """Hypervolume after each child that has ended, in order of their numbers."""
    rejected: Mapping[str, int] = field(default_factory=dict)
    """Stage → children: a correct rejection is no error."""
    path: tuple[str, ...] = ()
    """From the seed to the first member of the front: what was changed at each step."""
    eta_s: float | None = None
    """Seconds until the first budget runs out; None if unknown or unlimited."""
    events: tuple[str, ...] = ()
    """The last few events, oldest first."""
    draining: bool = False


class Display(Protocol):
    """What the driver tells a watcher. Never raises for a terminal that went away, never blocks the driver."""

    def update(self, snapshot: Snapshot) -> None:
        """The state has changed, or a tick has passed."""
        ...

    def event(self, text: str) -> None:
        """One thing has happened; one line, no markup."""
        ...

    def close(self) -> None:
        """Restore the terminal; idempotent."""
        ...


class SilentDisplay:
    """Shows nothing (`--quiet`, tests)."""

    def update(self, snapshot: Snapshot) -> None:
        pass

    def event(self, text: str) -> None:
        pass

    def close(self) -> None:
        pass


class PlainDisplay:
    """One line per event, and a line of progress every `progress_s` seconds; for logs and pipes."""

    def __init__(self, stream: TextIO, progress_s: float = 30.0) -> None:
        self._stream = stream
        self._progress_s = progress_s
        self._began = self._reported = time.monotonic()
        self._alive = True

    def update(self, snapshot: Snapshot) -> None:
        now = time.monotonic()
        if now - self._reported >= self._progress_s:
            self._reported = now
            self.event(progress_line(snapshot))

    def event(self, text: str) -> None:
        self._write(f"[{time.monotonic() - self._began:7.1f}s] {one_line(text)}\n")

    def close(self) -> None:
        self._alive = False

    def _write(self, text: str) -> None:
        if not self._alive:
            return
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            self._alive = False  # the reader went away (closed pipe); the run goes on


class LiveDisplay:
    """One live table on a terminal, with finished events scrolling above it."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console(file=stream)
        self._live = Live(console=self._console, refresh_per_second=4, transient=True, redirect_stdout=False)
        self._live.start()
        self._alive = True

    def update(self, snapshot: Snapshot) -> None:
        from vibeserve.tables import fitting_view

        if self._alive:
            shown = replace(snapshot, events=())  # they scroll above the table already
            self._guarded(lambda: self._live.update(fitting_view(shown, self._console)))

    def event(self, text: str) -> None:
        if self._alive:
            self._guarded(lambda: self._scroll(one_line(text)))

    def _scroll(self, line: str) -> None:
        """Above the table; `vibeserve show` has the rest of what is longer than the terminal is wide."""
        self._console.print(line, markup=False, highlight=False, no_wrap=True, overflow="ellipsis")

    def close(self) -> None:
        if self._alive:
            self._guarded(self._live.stop)
            self._alive = False

    def _guarded(self, action: Callable[[], None]) -> None:
        try:
            action()
        except (OSError, ValueError):
            self._alive = False  # the terminal was closed; the run goes on


def open_display(stream: TextIO) -> Display:
    """The live table if `stream` is a terminal, plain lines otherwise."""
    return LiveDisplay(stream) if stream.isatty() else PlainDisplay(stream)


def rejected_text(rejected: Mapping[str, int]) -> str:
    """`audit 2, boot 1`, the most frequent stage first."""
    return ", ".join(
        f"{stage} {count}" for stage, count in sorted(rejected.items(), key=lambda item: (-item[1], item[0]))
    )


def progress_line(snapshot: Snapshot) -> str:
    """One line that says how far a run is."""
    from vibeserve.tables import meter_text

    parts = [meter_text(meter) for meter in snapshot.meters if meter.limit is not None]
    parts += [f"{count} {name}" for name, count in snapshot.counts.items() if count]
    if snapshot.rejected:
        parts.append(f"rejected at {rejected_text(snapshot.rejected)}")
    parts.append(f"front of {len(snapshot.front)}")
    if snapshot.hypervolume is not None:
        parts.append(f"hypervolume {snapshot.hypervolume:.2f}")
    if snapshot.eta_s is not None:
        parts.append(f"about {duration(snapshot.eta_s)} left")
    return " · ".join(parts)
