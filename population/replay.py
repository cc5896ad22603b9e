"""Decides what a sequence of events amounts to: the state of a run, live or replayed by the same code.

The driver asks `check`, appends the event to the ledger, and applies what the ledger returned. So the live state and a
replay of the ledger are the same function of the same events.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from population.archive import Archive
from population.candidate import Attempt, Proposal, candidate_id
from population.errors import LedgerError
from population.events import (
    Drafted,
    Ended,
    EpochStarted,
    Event,
    Faulted,
    FinalMeasured,
    MutationDone,
    RunStarted,
    Stopped,
)
from population.objectives import ObjectiveSet
from population.spending import Cost, Spending, summed
from population.transitions import APPLY, CHECKS, number_of


@dataclass
class State:
    """Everything a driver needs to go on. Mutable: `apply` is the only way in."""

    started: RunStarted | None = None
    archive: Archive = field(default_factory=lambda: Archive(ObjectiveSet(())))
    """Replaced by one for the run's objectives when the run starts."""
    pending: dict[int, Proposal] = field(default_factory=dict)
    """Proposed and not ended, by child number."""
    mutated: dict[int, MutationDone] = field(default_factory=dict)
    """Commits of pending children."""
    drafts: dict[int, Drafted] = field(default_factory=dict)
    """Commits of pending children that a judge has still to read."""
    attempts: dict[int, tuple[Attempt, ...]] = field(default_factory=dict)
    """Child number → its trees that were rejected and sent back, in order; of ended children, too."""
    attempted: dict[str, str] = field(default_factory=dict)
    """Tree hash → the child that had it and was sent back."""
    advice: dict[str, str] = field(default_factory=dict)
    """Candidate id → what a model has concluded from its profile."""
    trees: dict[str, set[int]] = field(default_factory=dict)
    """Tree hash → the pending children that have it."""
    summaries: dict[int, str] = field(default_factory=dict)
    """Child number → what its mutation said it did."""
    next_number: int = 0
    remeasuring: dict[int, str] = field(default_factory=dict)
    """Re-measurements in flight: index → candidate id."""
    next_remeasure: int = 0
    finals: dict[tuple[str, int], FinalMeasured] = field(default_factory=dict)
    """(subject, round) → final measurement; a subject is a candidate id or the name of a baseline."""
    faults: dict[str, int] = field(default_factory=dict)
    """Task key → how often the machine has failed under it."""
    epoch: int = 0
    stopped: Stopped | None = None
    """The last epoch's orderly end; None while a driver runs, or after it was killed."""
    evaluate_s: float = 0.0
    """Wall seconds of all evaluations that ended, re-measurements and finals among them."""
    mutate_s: float = 0.0
    """Wall seconds of all mutations that ended, in a commit or without."""
    candidates_s: float = 0.0
    """Wall seconds of mutation and evaluation of all candidates."""
    spent: dict[tuple[str, str], Spending] = field(default_factory=dict)
    """(Role, model) → what was asked of it."""
    costs: dict[int, Cost] = field(default_factory=dict)
    """Child number → what it has taken until now, ended or not; children that have taken nothing are left out."""
    past_s: float = 0.0
    """Active seconds of the epochs before this one."""
    epoch_s: float = 0.0
    """Active seconds of this epoch up to its last event."""

    @property
    def elapsed_s(self) -> float:
        """Active seconds of the run: the time between two epochs does not count."""
        return self.past_s + self.epoch_s

    @property
    def mean_cost_s(self) -> float:
        """Mean wall seconds of the candidates so far, 0 before the first."""
        count = len(self.archive.candidates)
        return self.candidates_s / count if count else 0.0

    @property
    def commits(self) -> dict[str, str]:
        """Candidate id → commit, of every child whose mutation is on record."""
        back = {candidate_id(n): a[-1].commit for n, a in self.attempts.items() if n in self.pending}
        unread = {candidate_id(number): draft.commit for number, draft in self.drafts.items()}
        flying = {candidate_id(number): made.commit for number, made in self.mutated.items()}
        return {name: candidate.commit for name, candidate in self.archive.candidates.items()} | back | unread | flying

    def twin_of(self, tree: str, number: int) -> str | None:
        """The id of another child, ended or in flight, that has this tree, or of any that was sent back with it."""
        flying = min(self.trees.get(tree, set()) - {number}, default=None)
        known = self.archive.trees.get(tree) or self.attempted.get(tree)
        return known or (None if flying is None else candidate_id(flying))

    @classmethod
    def replay(cls, events: Iterable[Event]) -> State:
        """The state after all events.

        Raises:
            LedgerError: an event contradicts those before it.
        """
        state = cls()
        for event in events:
            state.apply(event)
        return state

    def check(self, event: Event) -> None:
        """Whether the event may come next; changes nothing.

        Raises:
            LedgerError: it contradicts the events before it (a child that ends twice, an unknown number, …).
        """
        problem = CHECKS[type(event)](self, event) if type(event) in CHECKS else None
        if problem is None and self.started is None and not isinstance(event, RunStarted | EpochStarted):
            problem = "no run has started yet"
        if problem is not None:
            raise LedgerError(f"event '{event.kind}' cannot come here: {problem}. The driver that wrote it is wrong")

    def apply(self, event: Event) -> None:
        """The event happened.

        Raises:
            LedgerError: as `check`; the state is unchanged then.
        """
        self.check(event)
        APPLY[type(event)](self, event)
        if isinstance(event, Drafted | MutationDone | Ended | Faulted):
            for spending in event.spent:
                key = (spending.role, spending.model)
                self.spent[key] = self.spent[key] + spending if key in self.spent else spending
            if (number := number_of(event)) is not None and event.spent:
                cost = self.costs.get(number, Cost())
                self.costs[number] = replace(cost, spent=summed((*cost.spent, *event.spent)))
        self.epoch_s = max(self.epoch_s, event.active_s)

    def takes(self, number: int, mutate_s: float = 0.0, evaluate_s: float = 0.0) -> None:
        """The child has taken that much time more; part of `apply`."""
        cost = self.costs.get(number, Cost())
        self.costs[number] = replace(cost, mutate_s=cost.mutate_s + mutate_s, evaluate_s=cost.evaluate_s + evaluate_s)
