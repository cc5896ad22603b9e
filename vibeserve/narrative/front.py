"""Decides how the front is shown in a report: drawings of objectives in pairs, and what was measured, old and new."""

from __future__ import annotations

from vibeserve.claims import read_claims
from vibeserve.display import FrontRow, MetricView
from vibeserve.front_rows import SEED
from vibeserve.narrative.blocks import Block, Figure, Table, Text
from vibeserve.narrative.material import Material
from vibeserve.narrative.scatter import Axis, Point, scatter
from vibeserve.wording import gain, number

_MOST_FIGURES = 3


def front_blocks(material: Material) -> list[Block]:
    """Drawings, the search's measurements, and the fresh ones of the end."""
    summary = material.summary
    rows = [row for row in summary.front if row.id != SEED]
    seed = [summary.seed] if summary.seed else []
    blocks: list[Block] = [
        Text(text="No member is worse than another in everything, given the noise. Cells: the value, × its gain over "
                  "the seed, the 95 % interval and the number of repeats."),
        *_figures(material),
        _table("Measured during the search", [("the seed", row) for row in seed] + [(_made_by(r), r) for r in rows]),
    ]  # fmt: skip
    made = {SEED: "the seed"} | {row.id: _made_by(row) for row in rows}
    fresh = [(made[name], summary.held_out[name]) for name in made if name in summary.held_out]
    fresh += [("", row) for name, row in summary.held_out.items() if name not in made]
    fresh += [("baseline", row) for row in summary.baselines.values()]
    if fresh:
        blocks.append(_table("Measured afresh at the end, on a held-out trace: chance did not select these", fresh))
    blocks += _claims(material)
    if summary.hypervolume is not None:
        text = f"Hypervolume: {summary.hypervolume:.3g}, the volume in log space between front and seed"
        blocks.append(Text(text=f"{text}; it is 0 when nothing beats the seed in every objective at once."))
    return blocks


def _claims(material: Material) -> list[Table]:
    """What `vibeserve verify` has found, if it was run."""
    rows = []
    for content in read_claims(material.run_dir).values():
        for name, found in content["gains"].items():
            bound = gain(found["claimed"]) if found.get("claimed") else "–"
            interval = f"{_end(found['low'])} – {_end(found['high'])}"
            other = "the seed" if content["against"] == SEED else content["against"]
            who = f"{content['candidate']} against {other}"
            rows.append(
                (who, name, found["verdict"], bound, f"{gain(found['value'])}\n{interval}", str(content["pairs"]))
            )
    head = ("claim", "objective", "verdict", "may be quoted", "measured", "pairs")
    caption = "Verified: fresh, paired, on one device; the intervals of all objectives hold together with 95 %"
    return [Table(caption=caption, head=head, rows=rows, numeric=frozenset({3, 4, 5}))] if rows else []


def _end(value: float | None) -> str:
    return "∞" if value is None else gain(value)


def _table(caption: str, rows: list[tuple[str, FrontRow]]) -> Table:
    sample = rows[0][1].metrics if rows else ()
    head = ("candidate", "made by", *(f"{m.name}{f' ({m.unit})' if m.unit else ''}" for m in sample))
    return Table(caption=caption, head=head, rows=[(r.id, made, *(_cell(m) for m in r.metrics)) for made, r in rows],
                 numeric=frozenset(range(2, len(head))))  # fmt: skip


def _cell(metric: MetricView) -> str:
    times = f", {gain(metric.gain)}" if metric.gain is not None else ""
    return f"{number(metric.value)}{times}\n{number(metric.low)} – {number(metric.high)}, n={metric.n}"


def _made_by(row: FrontRow) -> str:
    return f"{row.operator}: {row.label}" if row.label and row.label != row.operator else row.operator


def _figures(material: Material) -> list[Figure]:
    archive = material.state.archive
    objectives = tuple(archive.objectives)
    pairs = [(x, y) for i, x in enumerate(objectives) for y in objectives[i + 1 :]][:_MOST_FIGURES]
    front = frozenset(archive.front)
    found = []
    for x, y in pairs:
        points = [
            Point(
                label="seed" if member == SEED else member,
                kind="seed" if member == SEED else "front" if member in front else "dominated",
                x=archive.estimates(member)[x.name],
                y=archive.estimates(member)[y.name],
            )
            for member in archive.scored
        ]
        axes = [Axis(name=o.name, unit=o.unit, better=str(o.direction)) for o in (x, y)]
        caption = (
            f"{y.name} against {x.name}: the front (blue) with 95 % intervals, the seed (diamond), the rest in grey."
        )
        found.append(Figure(svg=scatter(points, *axes), caption=caption))
    return found
