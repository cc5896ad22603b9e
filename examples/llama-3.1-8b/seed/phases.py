"""Decides how the phases of a step are named for profilers: by NVTX ranges where they are asked for, else not at all.

A step is a few milliseconds, so nothing is done in it for a profiler that does not listen: `phase` then returns the
function itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])

try:
    from nvtx import annotate
except ImportError:
    annotate = None

ASKED = bool(os.environ.get("NVTX_RANGES"))
"""Set where a profiler that reads ranges starts the server."""


def phase(name: str) -> Callable[[Function], Function]:
    """For functions that one thread calls: each call is a range of that name, if anybody asks for ranges."""
    if annotate is None or not ASKED:
        return lambda function: function
    ranged: Callable[[Function], Function] = annotate(name)
    return ranged
