"""Decides how data travels to the browser: strict JSON, numbers finite or null, text without control characters."""

from __future__ import annotations

import json
from typing import Any

from starlette.responses import Response

from vibeserve.plain import plain
from vibeserve.wording import clean


def answer(value: Any, status: int = 200) -> Response:
    """One JSON value. Text of candidates stays text: it is escaped by being put into text nodes, and nowhere else."""
    text = json.dumps(shown(value), allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return Response(text, status_code=status, media_type="application/json")


def shown(value: Any) -> Any:
    """The value in JSON's own types, its text without control characters."""
    return plain(value, lambda text: text if text.isprintable() else clean(text))


def seconds(value: float) -> float:
    """Rounded to milliseconds, which is what a picture can show."""
    return round(value, 3)
