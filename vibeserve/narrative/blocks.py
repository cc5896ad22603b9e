"""Decides what a report can consist of: sections of a few kinds of blocks, whatever they are rendered as."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """One paragraph; `code` between backticks is all the markup there is."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """Somebody else's text, as it is; folded away under `summary` where a page can fold."""

    text: str
    summary: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Bullets:
    """A list; items as `Text`."""

    items: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows of plain cells, of which a second line is set small; `numeric` columns are aligned right."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: frozenset[int] = field(default_factory=frozenset)


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """Text to copy, or a diff to read; folded away under `summary` where there is one."""

    text: str
    language: str = ""
    summary: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A drawing (SVG), and the same in words."""

    svg: str
    caption: str


Block = Text | Quote | Bullets | Table | Code | Figure


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A heading and what stands below it."""

    title: str
    blocks: Sequence[Block]

    @property
    def anchor(self) -> str:
        """Its address in the page."""
        return "-".join(self.title.lower().split())


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A whole report."""

    title: str
    lead: Sequence[str]
    """What a reader in a hurry should know; items as `Text`."""
    sections: Sequence[Section]
