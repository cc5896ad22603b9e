"""Decides what counts as JSON and as a measurement: no NaN, no Infinity, no booleans for numbers, nothing negative."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

_LIMIT_BYTES = 64 << 20


class Malformed(Exception):
    """The text is not what was agreed on; the message says what was expected and what came."""


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        Malformed: no file, too large, not strict JSON, or not an object.
    """
    try:
        if path.stat().st_size > _LIMIT_BYTES:
            raise Malformed(f"expected at most {_LIMIT_BYTES} bytes of JSON, got {path.stat().st_size}")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise Malformed(f"expected a JSON object in {path.name}, but the file was not written") from error
    except (OSError, UnicodeDecodeError) as error:
        raise Malformed(f"expected a JSON object in {path.name}: {error}") from error
    return parse_object(text, path.name)


def parse_object(text: str, where: str) -> dict[str, Any]:
    """The JSON object that `text` is; `where` names it in messages.

    Raises:
        Malformed: not strict JSON, a key twice in one object, or not an object.
    """
    try:
        value = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_distinct)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"expected strict JSON in {where}: {error}") from error
    if not isinstance(value, dict):
        raise Malformed(f"expected a JSON object in {where}, got {type(value).__name__}")
    return value


def metric(values: Mapping[str, Any], name: str) -> float:
    """A measured value: a finite number >= 0.

    Raises:
        Malformed: it is missing, a boolean, text, negative, NaN or infinite.
    """
    if name not in values:
        raise Malformed(f"'{name}' is missing; got {', '.join(sorted(values)[:20]) or 'nothing'}")
    return check_metric(name, values[name])


def check_metric(name: str, value: object, infinite: bool = False) -> float:
    """`value` if it can be a measurement; `infinite` admits +inf (a latency of requests that failed).

    Raises:
        Malformed: it cannot.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Malformed(f"'{name}' must be a number, got {value!r}")
    try:
        number = float(value)
    except OverflowError:
        raise Malformed(f"'{name}' is too large for a number") from None
    if math.isnan(number) or number < 0 or (math.isinf(number) and not infinite):
        raise Malformed(f"'{name}' must be a finite number >= 0, got {value!r}")
    return number


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """What two values under one key mean, readers do not agree on."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key occurs twice in one object")
    return found


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number")
