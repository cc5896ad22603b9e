"""Decides whether a rejected child goes back to who made it, before it counts."""

from __future__ import annotations

from collections.abc import Callable

from population.candidate import Operator, Proposal
from population.evaluation import Evaluation, Rejected, Stage
from population.replay import State

_NOT_MENDED = frozenset({Stage.MUTATE, Stage.DEDUPE})
"""What ends a conversation, or a child that is another one already: there is no tree to mend."""


class Repair:
    """Asked before a child ends. What it decides goes on record, so a replay need not ask again."""

    def __init__(self, attempts: int, state: State, used_up: Callable[[], str | None]) -> None:
        """`attempts`: how often one child goes back; 0: never. `used_up`: which budget is, None: none."""
        self._attempts, self._state, self._used_up = attempts, state, used_up

    def wanted(self, proposal: Proposal, verdict: Evaluation) -> bool:
        """Whether the child goes back with this verdict."""
        return (
            isinstance(verdict, Rejected)
            and verdict.stage not in _NOT_MENDED
            and len(self._state.attempts.get(proposal.number, ())) < self._attempts
            and self._has_maker(proposal)
            and self._used_up() is None
        )

    def _has_maker(self, proposal: Proposal) -> bool:
        """Somebody wrote it: an agent's child, or a merge that a model had to resolve."""
        made = self._state.mutated.get(proposal.number)
        if made is None or proposal.operator is Operator.AGENT:
            return made is not None
        return proposal.operator is Operator.MERGE and bool(made.spent)
