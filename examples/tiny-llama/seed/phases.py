"""Decides how the phases of a step are named for profilers: NVTX ranges where `nvtx` is installed, else nothing."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

try:
    from nvtx import annotate
except ImportError:
    annotate = None


def phase(name: str) -> AbstractContextManager[object]:
    """A range of this thread, for `with`; ranges may lie in each other, but no `await` may lie in one."""
    return nullcontext() if annotate is None else annotate(name)
