"""Decides how the runs are told: one table of hypervolumes, one of paired differences, one of what is reported."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from benchmarks.cluster.quality.contestants import ON_PROBLEMS, OURS
from benchmarks.cluster.quality.measure import Result

Setting = tuple[int, str, int]
"""Slots, space, children."""


def tables(results: Sequence[Result]) -> str:
    """All as markdown."""
    settings = sorted({_setting(r) for r in results})
    wanted = {
        "Hypervolume of everything evaluated": _found,
        "Hypervolume of the reported front (members)": _reported,
        f"Paired by seed: runs in which {OURS} is ahead, median difference": _pairs,
        "CPU milliseconds per child, the simulation's own included": _cpu,
    }
    heads = [(slots, space, children, _seeds(results, (slots, space, children))) for slots, space, children in settings]
    return "\n\n".join(_table(title, heads, [cells(results, s) for s in settings]) for title, cells in wanted.items())


def _seeds(results: Iterable[Result], setting: Setting) -> str:
    """How many runs of each contestant; the fewest and the most if they differ."""
    counts = Counter(r.job.contestant for r in results if _setting(r) == setting)
    least, most = min(counts.values()), max(counts.values())
    return str(most) if least == most else f"{least}–{most}"


def _setting(result: Result) -> Setting:
    return result.job.slots, result.job.space, result.job.children


def _of(results: Iterable[Result], setting: Setting, contestant: str) -> dict[int, Result]:
    """Seed → run."""
    return {r.job.seed: r for r in results if _setting(r) == setting and r.job.contestant == contestant}


def _table(title: str, heads: Sequence[tuple[int, str, int, str]], rows: Sequence[Sequence[str]]) -> str:
    head = ["slots", "space", "children", "seeds", *ON_PROBLEMS]
    lines = [f"### {title}", "", f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    lines += [f"| {' | '.join([*map(str, first), *cells])} |" for first, cells in zip(heads, rows, strict=True)]
    return "\n".join(lines)


def _found(results: Sequence[Result], setting: Setting) -> list[str]:
    runs = [_of(results, setting, name) for name in ON_PROBLEMS]
    medians = [float(np.median([r.found[-1] for r in found.values()])) if found else -1.0 for found in runs]
    cells = [_quartiles([r.found[-1] for r in found.values()]) for found in runs]
    return [f"**{cell}**" if median == max(medians) > 0 else cell for cell, median in zip(cells, medians, strict=True)]


def _quartiles(values: Sequence[float]) -> str:
    if not values:
        return "–"
    low, middle, high = np.percentile(values, [25, 50, 75])
    return f"{middle:.3f} [{low:.3f}, {high:.3f}]"


def _reported(results: Sequence[Result], setting: Setting) -> list[str]:
    cells = []
    for name in ON_PROBLEMS:
        found = _of(results, setting, name).values()
        members = f" ({np.median([r.members for r in found]):.0f})" if found else ""
        cells.append(_quartiles([r.reported for r in found]) + members)
    return cells


def _pairs(results: Sequence[Result], setting: Setting) -> list[str]:
    ours, cells = _of(results, setting, OURS), []
    for name in ON_PROBLEMS:
        theirs = _of(results, setting, name)
        gaps = [ours[seed].found[-1] - theirs[seed].found[-1] for seed in sorted(ours.keys() & theirs.keys())]
        ahead = sum(gap > 0 for gap in gaps)
        cells.append("" if name == OURS or not gaps else f"{ahead} of {len(gaps)}, {np.median(gaps):+.3f}")
    return cells


def _cpu(results: Sequence[Result], setting: Setting) -> list[str]:
    costs = [
        [1000 * r.cpu_s / max(1, r.children) for r in _of(results, setting, name).values()] for name in ON_PROBLEMS
    ]
    return [f"{np.median(cost):.1f}" if cost else "–" for cost in costs]
