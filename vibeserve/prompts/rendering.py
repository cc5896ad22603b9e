"""Decides how a prompt becomes text: templates of this folder, all facts given, what strangers wrote marked as data.

Templates are ours, facts may be anybody's. A text that a candidate or a model may have written goes through `data` (a
block between two marks that it cannot hold itself) or `said` (one quoted line); nothing of it stands free.
"""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vibeserve.agents.tools.tool import bounded
from vibeserve.wording import arrivals_text, clean, number, one_line, span_text

if TYPE_CHECKING:
    from jinja2 import Environment

_FOLDER = Path(__file__).resolve().parent
_MARK_DIGITS = 16


def rendered(template: str, **facts: Any) -> str:
    """The text of `<template>.md.j2`.

    Raises:
        jinja2.UndefinedError: the template asks for a fact that was not given; a mistake of ours.
    """
    return _environment().get_template(f"{template}.md.j2").render(facts)


def instructions(role: str) -> str:
    """What a model of that role is told in every conversation, whatever its task: the system prompt."""
    return rendered(role)


def data(text: str, what: str, limit: int = 4000) -> str:
    """`text` as a block that is marked as data, its middle left out where it is longer than `limit`.

    The mark is drawn from the text and does not occur in it, so no text can end its own block.
    """
    shown = bounded(clean(text).strip("\n"), limit)
    mark = _digest(shown)
    while mark in shown:
        mark = _digest(mark + shown)
    return f"<<data {mark}: {what}>>\n{shown}\n<<end {mark}>>"


def said(text: str, limit: int = 300) -> str:
    """`text` on one line, as a quotation."""
    words = one_line(text)
    cut = words if len(words) <= limit else f"{words[: limit - 1]}…"
    return json.dumps(cut, ensure_ascii=False)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:_MARK_DIGITS]


@lru_cache(maxsize=1)
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    # Prompts are plain text for a model: HTML's escapes would only garble them.
    made = Environment(
        loader=FileSystemLoader(_FOLDER),
        undefined=StrictUndefined,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"data": data, "said": said, "number": number, "arrivals": arrivals_text, "span": span_text}
    return made
