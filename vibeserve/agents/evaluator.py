"""Decides what is concluded from a profile: a model reads it beside the code, and writes hints for who changes it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from evaluators.process import printable
from population.candidate import Proposal
from vibeserve.agents.reading import Reader
from vibeserve.agents.roles import EVALUATOR
from vibeserve.agents.tools.submit import Submit
from vibeserve.agents.tools.tool import Arguments
from vibeserve.mutators import Advice

_LONGEST = 6000


class Hint(Arguments):
    place: Annotated[str, Field(min_length=1, max_length=200)]
    """File and function."""
    evidence: Annotated[str, Field(min_length=1, max_length=500)]
    """What the profile shows, with its figure."""
    change: Annotated[str, Field(min_length=1, max_length=1000)]
    """What you would do about it."""
    gain: Annotated[str, Field(min_length=1, max_length=300)]
    """About how much of the time that can win, and why."""


class HintsArguments(Arguments):
    hints: Annotated[tuple[Hint, ...], Field(max_length=6)]
    """The one with the largest gain first; empty where the profile does not tell."""


@dataclass(frozen=True, kw_only=True)
class PerformanceEvaluator:
    """Reads profiles; see the module."""

    reader: Reader

    def advise(self, tree: Path, proposal: Proposal, profile: str) -> Advice:
        """See `Advisor.advise`. Where nothing is handed in, the advice says so: nobody asks a second time."""
        submit = Submit("Hand in your hints; this ends your work.", HintsArguments, lambda _given: None)
        reading = self.reader.read(f"{proposal.id}/{EVALUATOR}", tree, profile, submit)
        if reading is None:
            return Advice(text="")
        hints = () if reading.taken is None else reading.taken.hints
        told = "\n\n".join(_spelled(number, hint) for number, hint in enumerate(hints, 1))
        text = told or f"no hints: {reading.silence or 'the profile does not tell'}"
        return Advice(text=reading.redact(printable(text))[:_LONGEST], spent=(reading.spent,), files=reading.files)


def _spelled(number: int, hint: Hint) -> str:
    return f"{number}. {hint.place}\n   Evidence: {hint.evidence}\n   Change: {hint.change}\n   Gain: {hint.gain}"
