"""Decides what a value looks like in JSON's own types: what is not finite is null, a path is text."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path
from typing import Any


def plain(value: Any, text: Callable[[str], str] = str) -> Any:
    """The same in dicts, lists and scalars that strict JSON knows; every text as `text` gives it back."""
    if isinstance(value, Enum):
        return plain(value.value, text)
    if isinstance(value, str | Path):
        return text(str(value))
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {text(str(key)): plain(item, text) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item, text) for item in value]
    return value
