"""Decides what a profile says: rows that rank within each kind of time, and a sentence for each tool that has none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Self

from evaluators.process import printable
from population.evaluation import Hotspot

MOST_ROWS = 10
"""Of one kind of time. What is rarer explains nothing, and every record would carry it."""
_NAME_CHARACTERS = 96


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What the tools found. Adding two of them keeps both."""

    rows: tuple[Hotspot, ...] = ()
    notes: Mapping[str, str] = field(default_factory=dict)
    """Tool → what is to be said beside its rows, or why it has none."""

    def __add__(self, other: Evidence) -> Evidence:
        return Evidence(rows=self.rows + other.rows, notes={**self.notes, **other.notes})

    @classmethod
    def without(cls, tool: str, why: str) -> Self:
        """A tool that found nothing, and why."""
        return cls(notes={tool: printable(why)})

    @property
    def hints(self) -> dict[str, float | str]:
        """`Scored.hints`: the samples of busy time by function, and all notes."""
        shares: dict[str, float | str] = {row.name: row.share for row in self.rows if row.source == "py-spy"}
        return {**shares, **self.notes}


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """Time of one function, operator, kernel or phase, before it is compared with the others."""

    name: str
    amount: float
    """Microseconds, or samples."""
    calls: int | None = None


def ranked(found: Iterable[Spent], *, of: str, source: str, whole: float | None = None) -> tuple[Hotspot, ...]:
    """The largest of `found` with their shares of `whole` (None: of their sum), largest first.

    Names come out of the candidate's process: control characters are replaced, and long ones are cut.
    """
    items = [item for item in found if item.amount > 0]
    total = sum(item.amount for item in items) if whole is None else whole
    items.sort(key=lambda item: (-item.amount, item.name))
    return tuple(
        Hotspot(
            name=_short(item.name),
            share=round(min(1.0, item.amount / total), 4),
            of=of,
            source=source,
            calls=item.calls,
            us_per_call=round(item.amount / item.calls, 3) if item.calls else None,
        )
        for item in items[:MOST_ROWS]
    )


def foremost(rows: Iterable[Hotspot], most: int) -> tuple[Hotspot, ...]:
    """The first `most` of each kind of time, in their order."""
    seen: Counter[str] = Counter()
    kept = []
    for row in rows:
        seen[row.of] += 1
        if seen[row.of] <= most:
            kept.append(row)
    return tuple(kept)


def _short(name: str) -> str:
    text = " ".join(printable(name).split())
    return text if len(text) <= _NAME_CHARACTERS else f"{text[: _NAME_CHARACTERS - 1]}…"
