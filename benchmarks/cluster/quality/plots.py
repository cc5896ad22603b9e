"""Decides how attainment is looked at: what half of each contestant's runs attain, per setting, as one picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.cluster.quality.contestants import ON_PROBLEMS, OURS
from benchmarks.cluster.quality.measure import Result
from population.objectives import FloatArray
from search.attainment import surfaces

# Okabe and Ito: also told apart without red or green.
_COLOURS = dict(zip(ON_PROBLEMS, ("#0072b2", "#d55e00", "#e69f00", "#cc79a7", "#777777"), strict=True))
_MEDIAN, _QUARTILES = 0.5, (0.25, 0.75)


def write_plot(path: Path, results: Sequence[Result]) -> None:
    """Rows: spaces; columns: slots. First two objectives, true costs, what at least half of the runs attain.

    A line ends where the picture does; a contestant of whom fewer than half of the runs have anything inside the
    reference point has none. The band is from what a quarter of our runs attain to what three quarters do.
    """
    spaces = list(dict.fromkeys(r.job.space for r in results))
    slots = sorted({r.job.slots for r in results})
    figure = Figure(figsize=(2.9 * len(slots), 2.2 * len(spaces)), layout="constrained")
    grid = figure.subplots(len(spaces), len(slots), squeeze=False)
    for row, space in zip(grid, spaces, strict=True):
        for axes, count in zip(row, slots, strict=True):
            _draw(axes, [r for r in results if (r.job.space, r.job.slots) == (space, count)])
            axes.set_title(f"{space}, {count} slots", fontsize=9)
            axes.tick_params(labelsize=7)
    lines = {str(line.get_label()): line for axes in grid.flat for line in axes.get_lines()}
    names = [name for name in ON_PROBLEMS if name in lines]
    figure.legend([lines[name] for name in names], names, loc="outside lower center", ncols=3, fontsize=8)
    figure.savefig(path, dpi=80)


def _draw(axes: Axes, results: Sequence[Result]) -> None:
    reference = [point[:2] for r in results for point in r.front]
    if not reference:
        axes.text(0.5, 0.5, "nobody inside", ha="center", transform=axes.transAxes, fontsize=8)
        return
    end_x, end_y = np.max(reference, axis=0)
    for name, colour in _COLOURS.items():
        runs = [r for r in results if r.job.contestant == name]
        middle = _surface(runs, _MEDIAN, (end_x, end_y))
        if middle is not None:
            axes.plot(*middle.T, color=colour, label=name, linewidth=1.6 if name == OURS else 1.0)
        band = [_surface(runs, share, (end_x, end_y)) for share in _QUARTILES] if name == OURS else []
        if len(band) == 2 and band[0] is not None and band[1] is not None:
            axes.fill(*np.vstack([band[0], band[1][::-1]]).T, color=colour, alpha=0.15, linewidth=0)


def _surface(runs: Sequence[Result], share: float, ends: tuple[float, float]) -> FloatArray | None:
    """Points (K, 2) of the line that at least a share of the runs attain; None if fewer have anything."""
    fronts = [np.array(r.front)[:, :2] for r in runs if r.front]
    if not fronts or len(fronts) < share * len(runs):
        return None
    ((_, corners),) = surfaces(fronts, [share * len(runs) / len(fronts)]).items()
    # From above down to each corner, and right to where the next one begins.
    x_S = np.append(np.repeat(corners[:, 0], 2), ends[0])
    y_S = np.append(ends[1], np.repeat(corners[:, 1], 2))
    return np.column_stack([x_S, y_S])
