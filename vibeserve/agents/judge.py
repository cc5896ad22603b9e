"""Decides what a judge objects to: a model that reads a change with fresh eyes, before the change is run.

Its verdict can only add a failure. There is no word for a pass: without an objection the child goes the way that it
would have gone without a judge, through every deterministic check and the audit. So whoever talks the judge into
silence, by a comment in the code or otherwise, has won nothing. An objection must quote what stands in the change.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from pydantic import Field

from evaluators.process import printable
from evaluators.target import load_target
from population.errors import InfrastructureError
from population.evaluation import Rejected, Stage
from vibeserve.agents.reading import Reader, Reading
from vibeserve.agents.roles import JUDGE
from vibeserve.agents.tools.submit import Submit
from vibeserve.agents.tools.tool import Arguments, ToolProblem
from vibeserve.agents.tools.workspace import Workspace
from vibeserve.mutators import Change, Review, Workplace
from vibeserve.prompts.rendering import rendered

_LONGEST_DIFF = 2_000_000
"""Characters; of a longer one a model is told to read the tree."""
_SHORTEST_QUOTE = 8
_MARGIN = re.compile(r"^(?:[+-]|[0-9]+\t)")


class Objection(Arguments):
    kind: Literal["reward hacking", "semantic damage"]
    reason: Annotated[str, Field(min_length=1, max_length=600)]
    """What is wrong, in one or two sentences."""
    file: str
    """Where, relative to the workspace."""
    quote: Annotated[str, Field(min_length=1, max_length=2000)]
    """Lines of that file or of the diff, word for word."""
    harm: Annotated[str, Field(min_length=1, max_length=2000)]
    """The way from these lines to a wrong answer or a false measurement."""


class VerdictArguments(Arguments):
    objections: Annotated[tuple[Objection, ...], Field(max_length=5)]
    """Reasons to reject the change, the worst first; empty: none."""


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Reads changes; see the module. Travels without its `place`."""

    reader: Reader
    place: Workplace | None = None

    def settle(self, place: Workplace) -> Judge:
        """See `Settling.settle`."""
        return replace(self, place=place)

    def review(self, change: Change) -> Review:
        """See `Reviewer.review`. A judge that says nothing of use has no objection, and the reason is in its file."""
        if self.place is None:
            raise InfrastructureError("a judge has to settle on a machine before it can work")
        text = rendered(
            "review",
            target=load_target(self.place.target),
            child=change.proposal.id,
            parents=change.proposal.parents,
            summary=change.summary,
            diff=change.diff if len(change.diff) <= _LONGEST_DIFF else "",
            changed=change.changed,
        )
        name = f"{change.proposal.id}/{JUDGE}{f'-{change.attempt}' if change.attempt else ''}"
        submit = Submit("Hand in your verdict; this ends your work.", VerdictArguments, _Proof(change).problem)
        reading = self.reader.read(name, change.tree, text, submit)
        if reading is None:
            return Review(objection=None)
        return Review(objection=_objection(reading), spent=(reading.spent,), files=reading.files)


class _Proof:
    """Whether what is quoted stands there: a model may remember what it never read."""

    def __init__(self, change: Change) -> None:
        self._workspace, self._diff = Workspace(change.tree), _words("\n".join(_bare(change.diff)))

    def problem(self, given: VerdictArguments) -> str | None:
        """What is wrong with a verdict; None: nothing."""
        for objection in given.objections:
            quote = _words("\n".join(_bare(objection.quote)))
            if len(quote) < _SHORTEST_QUOTE:
                return f"the quote from {objection.file} is too short to prove anything; quote a whole line"
            if quote not in self._diff and quote not in self._text(objection.file):
                return f"the quote does not stand in {objection.file}, nor in the diff; quote word for word"
        return None

    def _text(self, name: str) -> str:
        try:
            return _words(self._workspace.text(name))
        except ToolProblem:
            return ""


def _bare(text: str) -> list[str]:
    """Lines without a diff's first column, or the line number that `read` shows."""
    return [_MARGIN.sub("", line) for line in text.splitlines()]


def _words(text: str) -> str:
    return " ".join(text.split())


def _objection(reading: Reading) -> Rejected | None:
    if reading.taken is None or not reading.taken.objections:
        return None
    told = [reading.redact(printable(_spelled(each))) for each in reading.taken.objections]
    worst = reading.taken.objections[0]
    reason = " ".join(reading.redact(printable(f"the judge objects ({worst.kind}): {worst.reason}")).split())
    return Rejected(stage=Stage.REVIEW, reason=reason[:1000], evidence="\n\n".join(told)[:4000])


def _spelled(objection: Objection) -> str:
    return f"{objection.kind}: {objection.reason}\n{objection.file}:\n{objection.quote}\n{objection.harm}"
