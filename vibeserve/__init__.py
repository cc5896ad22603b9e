"""VibeServe: an evolutionary search engine on Ray that generates bespoke LLM serving systems.

In a notebook: `vibeserve.Run("runs/NAME")` gives a run's candidates, its front, a DataFrame and a figure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vibeserve.results import CandidateRecord, Run

__all__ = ["CandidateRecord", "Run", "__version__"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`Run` and `CandidateRecord` when they are asked for: the command line must start without NumPy."""
    if name in ("CandidateRecord", "Run"):
        from vibeserve import results

        return getattr(results, name)
    raise AttributeError(f"module 'vibeserve' has no attribute '{name}'")
