"""Decides how attainment is looked at: what half of each contestant's runs attain, per setting, as one page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from benchmarks.cluster.quality.contestants import ON_PROBLEMS
from benchmarks.cluster.quality.measure import Result
from search.attainment import surfaces

_COLOURS = (
    "#0072b2",
    "#d55e00",
    "#e69f00",
    "#cc79a7",
    "#777777",
)  # Okabe and Ito: also told apart without red or green
_MEDIAN = 0.5


def write_page(path: Path, results: Sequence[Result]) -> None:
    """Rows: spaces; columns: slots. First two objectives, true costs, what at least half of the runs attain."""
    spaces = list(dict.fromkeys(r.job.space for r in results))
    slots = sorted({r.job.slots for r in results})
    titles = [f"{space}, {count} slots" for space in spaces for count in slots]
    figure = make_subplots(rows=len(spaces), cols=len(slots), subplot_titles=titles, vertical_spacing=0.04)
    for row, space in enumerate(spaces, start=1):
        for column, count in enumerate(slots, start=1):
            for name, colour in zip(ON_PROBLEMS, _COLOURS, strict=True):
                runs = [r for r in results if (r.job.space, r.job.slots, r.job.contestant) == (space, count, name)]
                trace = _surface(runs, name, colour, row == column == 1)
                if trace is not None:
                    figure.add_trace(trace, row=row, col=column)
    figure.update_layout(height=340 * len(spaces), width=420 * len(slots), template="plotly_white")
    figure.write_html(path, include_plotlyjs=True)


def _surface(runs: Sequence[Result], name: str, colour: str, first: bool) -> go.Scatter | None:
    fronts = [np.array(r.front)[:, :2] for r in runs if r.front]
    if 2 * len(fronts) < len(runs) or not fronts:
        return None
    corners = surfaces(fronts, [_MEDIAN * len(runs) / len(fronts)])
    ((_, points),) = corners.items()
    return go.Scatter(
        x=points[:, 0],
        y=points[:, 1],
        mode="lines",
        line={"shape": "hv", "color": colour},
        name=name,
        legendgroup=name,
        showlegend=first,
    )
