"""Decides what a machine without Triton sees of GPU kernels: functions that nobody calls."""

from __future__ import annotations

from typing import Any

try:
    import triton.language as tl
    from triton import jit
except ModuleNotFoundError:
    tl = None

    def jit(function: Any = None, **options: Any) -> Any:
        return function or (lambda kernel: kernel)


__all__ = ["jit", "tl"]
