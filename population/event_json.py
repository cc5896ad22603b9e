"""Decides how an event is spelled: one line of strict JSON, and back.

JSON has no infinity and no NaN: `inf` is written as the string "inf" (a latency of a failed request), NaN is refused.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

from population.events import Discriminated, Event

if TYPE_CHECKING:
    from pydantic import TypeAdapter

_SUSPICIOUS = re.compile(rb"(?i)nan|infinity")
_SURROGATE = re.compile("[\ud800-\udfff]")
_adapter: TypeAdapter[Event] | None = None


def _event_adapter() -> TypeAdapter[Event]:
    """Built at the first use: importing pydantic is too slow for `vibeserve --help`."""
    global _adapter
    if _adapter is None:
        from pydantic import ConfigDict, TypeAdapter

        _adapter = TypeAdapter(Annotated[Event, Discriminated()], config=ConfigDict(extra="forbid"))
    return _adapter


def encode(event: Event) -> bytes:
    """One line of ASCII JSON without the line end. Text that is no valid Unicode gets U+FFFD for what is wrong.

    Raises:
        ValueError: the event holds a NaN, or values of types that it does not declare.
    """
    plain = _jsonable(_event_adapter().dump_python(event, mode="python", warnings="error"), event.kind)
    return json.dumps(plain, allow_nan=False, separators=(",", ":")).encode("ascii")


def decode(line: bytes) -> Event:
    """The inverse of `encode`.

    Raises:
        ValueError: not JSON, an unknown kind or field, a missing field, a NaN or Infinity.
    """
    event = _event_adapter().validate_json(line)
    if _SUSPICIOUS.search(line):  # pydantic alone would take the literals, and the text "nan" where a number is due
        json.loads(line, parse_constant=_refuse_literal)
        encode(event)
    return event


def _jsonable(value: Any, where: str) -> Any:
    if isinstance(value, str):
        return value if value.isascii() else _SURROGATE.sub("�", value)
    if isinstance(value, float):
        if math.isnan(value):
            raise ValueError(f"{where}: expected a number, got NaN; reject the measurement before it is recorded")
        return value if math.isfinite(value) else ("inf" if value > 0 else "-inf")
    if isinstance(value, Mapping):
        return {_jsonable(k, where): _jsonable(v, f"{where}.{k}") for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [_jsonable(v, where) for v in value]
    return value


def _refuse_literal(literal: str) -> NoReturn:
    raise ValueError(f'expected strict JSON with infinity as the string "inf", got the literal {literal}')
