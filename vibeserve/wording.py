"""Decides how a number, a gain or a load is worded for a person, and what of others' text is shown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evaluators.load.workload import Load


def number(value: float) -> str:
    """Three significant digits or all digits of a large whole part: 0.0123, 4.57, 812, 12,345."""
    if not math.isfinite(value):
        return "∞" if value > 0 else "-∞" if value < 0 else "?"
    size = abs(value)
    if size >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if size >= 10 else f"{value:.3g}"


def duration(seconds: float) -> str:
    """`4.2s`, `3m 05s`, `2h 07m`."""
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m {rest:02d}s" if minutes < 60 else f"{minutes // 60}h {minutes % 60:02d}m"


def gain(ratio: float | None) -> str:
    """`23.1×`, better than the seed above 1; empty if there is no seed to compare with."""
    if ratio is None or math.isnan(ratio):
        return ""
    return f"{number(ratio) if ratio >= 10 or not math.isfinite(ratio) else f'{ratio:.2f}'}×"


def isolation_text(tier: str, gaps: Sequence[str]) -> str:
    """`tier B; it left open: …`."""
    return f"tier {tier}" + (f"; it left open: {'; '.join(gaps)}" if gaps else "")


def clean(text: str) -> str:
    """Text that a candidate may have written, without what could steer a terminal."""
    return "".join(c if c in "\n\t" or c.isprintable() else "�" for c in text)


def one_line(text: str) -> str:
    """The same on one line, for a list of events."""
    return clean(" ".join(text.split()))


def arrivals_text(load: Load) -> str:
    """`16 at a time`, `20 requests/s`, `all at once`, `the highest rate that keeps TTFT ≤ 200 ms`."""
    if load.kind == "max-rate" and load.slo is not None:
        limits = {"TTFT": load.slo.ttft_ms, "TPOT": load.slo.tpot_ms, "E2EL": load.slo.e2el_ms}
        kept = " and ".join(f"{name} ≤ {limit:g} ms" for name, limit in limits.items() if limit is not None)
        return f"the highest rate that keeps {kept} for {load.slo.attainment:.0%}"
    if load.concurrency is not None:
        return f"{load.concurrency} at a time"
    if load.rate_per_s is None or math.isinf(load.rate_per_s):
        return "all at once"
    return f"{load.rate_per_s:g} requests/s"


def span_text(bounds: tuple[int, int]) -> str:
    """`64`, or `48–80`."""
    low, high = bounds
    return str(low) if low == high else f"{low}–{high}"
