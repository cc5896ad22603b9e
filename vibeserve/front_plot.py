"""Decides how the front of a run looks as an interactive figure in a notebook."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from population.errors import UsageError
from population.objectives import Objective
from vibeserve.narrative.scatter import Axis, log_ticks

if TYPE_CHECKING:
    import plotly.graph_objects

    from vibeserve.results import CandidateRecord, Run

_GROUPS = (("dominated", "#a9b1bf", 6), ("front", "#1f5fd0", 11), ("seed", "#b45309", 12))


def front_figure(run: Run, x: str | None, y: str | None) -> plotly.graph_objects.Figure:
    """All scored candidates over two objectives; log axes, because gains are ratios.

    Raises:
        UsageError: no such objective, or nothing was scored.
    """
    import plotly.graph_objects as go

    across, up = _axes(run, x, y)
    scored = [record for record in run.candidates if record.scored]
    if not scored:
        raise UsageError(f"{run.name}: no candidate was scored, so there is nothing to draw")
    figure = go.Figure()
    for group, colour, size in _GROUPS:
        members = [record for record in scored if _group(record) == group]
        figure.add_trace(
            go.Scatter(
                x=[record.objectives[across.name].value for record in members],
                y=[record.objectives[up.name].value for record in members],
                error_x=_bars(members, across) if group != "dominated" else None,
                error_y=_bars(members, up) if group != "dominated" else None,
                text=[f"{record.id} {record.recipe or record.operator}" for record in members],
                mode="markers",
                name=group,
                marker={"color": colour, "size": size, "symbol": "diamond" if group == "seed" else "circle"},
            )
        )
    figure.update_layout(
        title=f"{run.name}: {up.name} against {across.name}, 95 % intervals",
        xaxis=_axis(scored, across),
        yaxis=_axis(scored, up),
        template="plotly_white",
    )
    return figure


def _axes(run: Run, x: str | None, y: str | None) -> tuple[Objective, Objective]:
    known = {objective.name: objective for objective in run.objectives}
    names = list(known)
    first = x or next((name for name in names if name != y), "")
    pair = (first, y or next((name for name in names if name != first), ""))
    for name in pair:
        if name not in known:
            raise UsageError(f"expected two objectives of {', '.join(names)}, got '{name}'")
    return known[pair[0]], known[pair[1]]


def _group(record: CandidateRecord) -> str:
    return "seed" if record.number == 0 else "front" if record.on_front else "dominated"


def _bars(members: list[CandidateRecord], objective: Objective) -> dict[str, object]:
    found = [record.objectives[objective.name] for record in members]
    return {"type": "data", "symmetric": False, "thickness": 1, "width": 0, "array": [e.high - e.value for e in found],
            "arrayminus": [e.value - e.low for e in found]}  # fmt: skip


def _axis(members: list[CandidateRecord], objective: Objective) -> dict[str, object]:
    axis = Axis(name=objective.name, unit=objective.unit, better=str(objective.direction))
    found = [record.objectives[objective.name] for record in members]
    ends = [end for e in found for end in (e.low, e.value, e.high) if 0 < end < math.inf]
    ticks = log_ticks(min(ends) / 1.2, max(ends) * 1.2) if ends else []
    return {"title": axis.title, "type": "log", "tickvals": ticks, "ticktext": [f"{tick:,.10g}" for tick in ticks]}
