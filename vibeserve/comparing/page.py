"""Decides how a comparison looks as one page: a single file with its scripts inside, which needs no network."""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vibeserve import __version__
from vibeserve.comparing.attained import attainment
from vibeserve.comparing.comparison import Comparison, Entry
from vibeserve.comparing.contenders import Kind, Member
from vibeserve.comparing.sheets import Sheet, sheets
from vibeserve.comparing.spelling import stacked, titled
from vibeserve.comparing.text import UNFAIR, caution_lines, entry_name, headlines, next_steps, scale_lines

_FOLDER = Path(__file__).resolve().parents[1] / "templates" / "comparison"


def to_page(comparison: Comparison) -> str:
    """The whole page as HTML text (5 MB, nearly all of it plotly's script from the installed wheel).

    Raises:
        InfrastructureError: plotly is not installed.
    """
    from vibeserve.dashboard.assets import plotly_script

    parts = {
        "title": html.escape(" against ".join(entry.contender.name for entry in comparison.entries[:3])),
        "style": (_FOLDER / "page.css").read_text(encoding="utf-8"),
        "cautions": "".join(_caution(line) for line in caution_lines(comparison)),
        "headlines": "".join(f'<p class="headline">{_prose(line)}</p>' for line in headlines(comparison)),
        "scale": "".join(f"<li>{_prose(line)}</li>" for line in scale_lines(comparison)),
        "tables": "".join(_table(sheet) for sheet in sheets(comparison)),
        "steps": html.escape("\n".join(next_steps(comparison))),
        "version": html.escape(__version__),
        "data": _embedded(page_data(comparison)),
        "script": (_FOLDER / "page.js").read_text(encoding="utf-8"),
        "plotly": plotly_script().read_text(encoding="utf-8"),
    }
    page = (_FOLDER / "page.html").read_text(encoding="utf-8")
    head, *rest = page.split("{{")
    pieces = [head]
    for piece in rest:
        name, _, text = piece.partition("}}")
        pieces += [parts[name], text]
    return "".join(pieces)


def page_data(comparison: Comparison) -> dict[str, Any]:
    """What the page's script draws, in values and not costs; infinite numbers are null."""
    return {
        "objectives": [
            {"name": o.name, "title": titled(o), "unit": o.unit or "", "max": str(o.direction) == "max"}
            for o in comparison.objectives
        ],
        "reference": [comparison.reference[o.name] for o in comparison.objectives],
        "ideal": [comparison.ideal[o.name] for o in comparison.objectives],
        "entries": [_entry(comparison, entry) for entry in comparison.entries],
        "points": [{"name": name, **_member(comparison, member)} for name, member in comparison.points.items()],
        "settings": [
            {"label": setting.label, "keys": list(setting.keys), "volumes": list(setting.hypervolumes)}
            for setting in comparison.settings
        ],
        "attainment": attainment(comparison),
    }


def _entry(comparison: Comparison, entry: Entry) -> dict[str, Any]:
    groups = [setting.keys for setting in comparison.settings]
    group = next((place for place, keys in enumerate(groups) if entry.key in keys), None)
    volume = entry.indicators["hypervolume"]
    seed = "" if group is None else f", seed {entry.contender.rng_seed}"
    return {
        "key": entry.key,
        "name": entry_name(entry) + seed,
        "baseline": entry.contender.kind is Kind.BASELINE,
        "group": group,
        "volume": [volume.value, volume.low, volume.high],
        "members": [
            {**_member(comparison, member), "contribution": entry.contributions[member.id].value}
            for member in entry.contender.members
        ],
    }


def _member(comparison: Comparison, member: Member) -> dict[str, Any]:
    found = [member.estimates[o.name] for o in comparison.objectives]
    return {
        "id": member.id,
        "made_by": member.made_by,
        "values": [e.value for e in found],
        "lows": [e.low for e in found],
        "highs": [e.high for e in found],
        "n": [e.n for e in found],
    }


def _caution(line: str) -> str:
    role = "unfair" if line.startswith(UNFAIR) else "note"
    return f'<p class="{role}">{_prose(line)}</p>'


def _prose(text: str) -> str:
    """Text with its `code` set off."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", html.escape(text))


def _table(sheet: Sheet) -> str:
    title = html.escape(sheet.title)
    head = "".join(
        f'<th scope="col" class="{_kind(sheet, place)}">{html.escape(c)}</th>' for place, c in enumerate(sheet.header)
    )
    body = "".join(f"<tr>{_cells(sheet, row)}</tr>" for row in sheet.rows)
    note = f'<p class="hint">{_prose(sheet.note)}</p>' if sheet.note else ""
    return (
        f'<section><h2>{title}</h2><div class="scroll" role="region" aria-label="{title}"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{note}</section>"
    )


def _cells(sheet: Sheet, row: Sequence[str]) -> str:
    first, *others = (
        html.escape(cell) if place < sheet.words else "<br>".join(map(_line, stacked(cell)))
        for place, cell in enumerate(row)
    )
    rest = "".join(f'<td class="{_kind(sheet, place)}">{text}</td>' for place, text in enumerate(others, start=1))
    return f'<th scope="row" class="text">{first}</th>{rest}'


def _line(text: str) -> str:
    """One line of a cell; intervals in small print."""
    shown = html.escape(text)
    return f'<span class="spread">{shown}</span>' if text.startswith("[") else shown


def _kind(sheet: Sheet, place: int) -> str:
    return "text" if place < sheet.words else "figure"


def _embedded(data: Mapping[str, Any]) -> str:
    """JSON that cannot end the script element around it."""
    return json.dumps(_plain(data), allow_nan=False).replace("<", "\\u003c")


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
