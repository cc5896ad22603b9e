"""Decides where output goes: people read tables on stdout, programs read strict JSON on stdout and people stderr."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from vibeserve.plain import plain

if TYPE_CHECKING:
    from rich.console import Console

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""


def print_json(value: object) -> None:
    """One object on one line of stdout; strict JSON, so infinite and undefined numbers are null."""
    print(json.dumps(plain(value), allow_nan=False, ensure_ascii=False), flush=True)


def console(as_json: bool) -> Console:
    """Where text for people goes: stdout, or stderr when stdout belongs to a program."""
    from rich.console import Console

    return Console(file=sys.stderr if as_json else sys.stdout, highlight=False, markup=False)
