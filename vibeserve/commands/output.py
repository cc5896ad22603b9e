"""Decides where output goes: people read tables on stdout, programs read strict JSON on stdout and people stderr."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""


def print_json(value: object) -> None:
    """One object on one line of stdout; strict JSON, so infinite and undefined numbers are null."""
    print(json.dumps(_plain(value), allow_nan=False, ensure_ascii=False), flush=True)


def console(as_json: bool) -> Console:
    """Where text for people goes: stdout, or stderr when stdout belongs to a program."""
    from rich.console import Console

    return Console(file=sys.stderr if as_json else sys.stdout, highlight=False, markup=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, Path) else value
