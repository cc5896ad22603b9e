"""Decides what a sequence of events amounts to: the state of a run, live or replayed by the same code.

The driver asks `check`, appends the event to the ledger, and applies what the ledger returned. So the live state and a
replay of the ledger are the same function of the same events.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from population.archive import Archive
from population.candidate import Attempt, Candidate, Failure, Proposal, candidate_id
from population.errors import LedgerError
from population.evaluation import Evaluation, Rejected, Scored
from population.events import (
    Advised,
    Ended,
    EpochStarted,
    Event,
    Faulted,
    FinalMeasured,
    MutationDone,
    Proposed,
    Remeasured,
    RemeasureStarted,
    RunStarted,
    SentBack,
    Stopped,
)
from population.objectives import ObjectiveSet
from population.spending import Cost, Spending, summed


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
        flying = {candidate_id(number): made.commit for number, made in self.mutated.items()}
        return {name: candidate.commit for name, candidate in self.archive.candidates.items()} | back | flying

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
        problem = _CHECKS[type(event)](self, event) if type(event) in _CHECKS else None
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
        _APPLY[type(event)](self, event)
        if isinstance(event, MutationDone | Ended | Faulted):
            for spending in event.spent:
                key = (spending.role, spending.model)
                self.spent[key] = self.spent[key] + spending if key in self.spent else spending
            if (number := _number_of(event)) is not None and event.spent:
                cost = self.costs.get(number, Cost())
                self.costs[number] = replace(cost, spent=summed((*cost.spent, *event.spent)))
        self.epoch_s = max(self.epoch_s, event.active_s)

    def takes(self, number: int, mutate_s: float = 0.0, evaluate_s: float = 0.0) -> None:
        """The child has taken that much time more; part of `apply`."""
        cost = self.costs.get(number, Cost())
        self.costs[number] = replace(cost, mutate_s=cost.mutate_s + mutate_s, evaluate_s=cost.evaluate_s + evaluate_s)


_CHILD = re.compile(r"c([0-9]{6,})")


def _number_of(event: MutationDone | Ended | Faulted) -> int | None:
    """The child that an event is about; None for a fault under another task."""
    if not isinstance(event, Faulted):
        return event.number
    match = _CHILD.fullmatch(event.key)
    return int(match[1]) if match else None


def _check_run(state: State, event: RunStarted) -> str | None:
    return None if state.started is None else f"run {state.started.run} has started already"


def _check_proposed(state: State, event: Proposed) -> str | None:
    number = event.proposal.number
    return None if number == state.next_number else f"expected child number {state.next_number}, got {number}"


def _check_mutated(state: State, event: MutationDone) -> str | None:
    if event.number not in state.pending:
        return f"child {event.number} is not pending"
    return f"child {event.number} has a commit already" if event.number in state.mutated else None


def _check_ended(state: State, event: Ended) -> str | None:
    if event.number not in state.pending:
        return f"child {event.number} is not pending; it was never proposed, or has ended"
    if event.number not in state.mutated and isinstance(event.evaluation, Scored):
        return f"child {event.number} is scored but has no commit"
    return _check_admissible(state, event.evaluation)


def _check_sent_back(state: State, event: SentBack) -> str | None:
    return None if event.number in state.mutated else f"child {event.number} has no commit that could be rejected"


def _check_advised(state: State, event: Advised) -> str | None:
    return None if event.candidate in state.archive.candidates else f"there is no candidate {event.candidate}"


def _check_remeasure_started(state: State, event: RemeasureStarted) -> str | None:
    if event.index != state.next_remeasure:
        return f"expected re-measurement {state.next_remeasure}, got {event.index}"
    candidate = state.archive.candidates.get(event.candidate)
    return None if candidate and isinstance(candidate.evaluation, Scored) else f"{event.candidate} was never scored"


def _check_remeasured(state: State, event: Remeasured) -> str | None:
    if state.remeasuring.get(event.index) != event.candidate:
        return f"re-measurement {event.index} of {event.candidate} is not in flight"
    return None if event.evaluation is None else _check_admissible(state, event.evaluation)


def _check_admissible(state: State, evaluation: Evaluation) -> str | None:
    admitted = state.archive.admit(evaluation)
    return admitted.reason if admitted is not evaluation and isinstance(admitted, Rejected) else None


_CHECKS: Mapping[type, Callable[[State, Any], str | None]] = {
    RunStarted: _check_run,
    Proposed: _check_proposed,
    MutationDone: _check_mutated,
    SentBack: _check_sent_back,
    Advised: _check_advised,
    Ended: _check_ended,
    RemeasureStarted: _check_remeasure_started,
    Remeasured: _check_remeasured,
}


def _run_started(state: State, event: RunStarted) -> None:
    state.started = event
    state.archive = Archive(ObjectiveSet(event.objectives))


def _epoch_started(state: State, event: EpochStarted) -> None:
    state.past_s, state.epoch_s = state.elapsed_s, 0.0
    state.epoch, state.stopped = event.epoch, None


def _proposed(state: State, event: Proposed) -> None:
    state.pending[event.proposal.number] = event.proposal
    state.next_number += 1


def _mutation_done(state: State, event: MutationDone) -> None:
    state.mutated[event.number] = event
    state.trees.setdefault(event.tree, set()).add(event.number)
    state.summaries[event.number] = event.summary
    state.mutate_s += event.elapsed_s
    state.takes(event.number, mutate_s=event.elapsed_s)


def _sent_back(state: State, event: SentBack) -> None:
    made = state.mutated.pop(event.number)
    _landed(state, made)
    state.evaluate_s += event.elapsed_s
    state.takes(event.number, evaluate_s=event.elapsed_s)
    attempt = Attempt(
        commit=made.commit,
        tree=made.tree,
        genome=made.genome,
        evaluation=event.evaluation,
        cost_s=made.elapsed_s + event.elapsed_s,
        by_model=bool(made.spent),
    )
    state.attempts[event.number] = (*state.attempts.get(event.number, ()), attempt)
    state.attempted.setdefault(made.tree, candidate_id(event.number))


def _advised(state: State, event: Advised) -> None:
    state.advice.setdefault(event.candidate, event.advice)


def _landed(state: State, made: MutationDone) -> None:
    """The child's commit is in flight no more."""
    state.trees[made.tree].discard(made.number)
    if not state.trees[made.tree]:
        del state.trees[made.tree]


def _ended(state: State, event: Ended) -> None:
    proposal = state.pending.pop(event.number)
    made = state.mutated.pop(event.number, None)
    attempts = state.attempts.get(event.number, ())
    if made is None:  # no evaluation was begun
        state.mutate_s += event.elapsed_s
        state.takes(event.number, mutate_s=event.elapsed_s)
    else:
        state.evaluate_s += event.elapsed_s
        state.takes(event.number, evaluate_s=event.elapsed_s)
        _landed(state, made)
    cost_s = sum(attempt.cost_s for attempt in attempts) + (made.elapsed_s if made else 0.0) + event.elapsed_s
    last = made or (attempts[-1] if attempts else None)
    if last is None:
        assert isinstance(event.evaluation, Rejected)
        state.archive.add(Failure(proposal=proposal, evaluation=event.evaluation, cost_s=cost_s))
        return
    state.candidates_s += cost_s
    state.archive.add(
        Candidate(
            proposal=proposal,
            commit=last.commit,
            tree=last.tree,
            genome=last.genome,
            evaluation=event.evaluation,
            cost_s=cost_s,
        )
    )


def _remeasure_started(state: State, event: RemeasureStarted) -> None:
    state.remeasuring[event.index] = event.candidate
    state.next_remeasure += 1


def _remeasured(state: State, event: Remeasured) -> None:
    del state.remeasuring[event.index]
    state.evaluate_s += event.elapsed_s
    if event.evaluation is not None:
        state.archive.remeasure(event.candidate, event.evaluation)


def _final_measured(state: State, event: FinalMeasured) -> None:
    if isinstance(event.evaluation, Rejected) and state.archive.is_scored(event.subject):
        state.archive.remeasure(event.subject, event.evaluation)  # it is not proven accurate: off the front for good
    state.finals[event.subject, event.round] = event
    state.evaluate_s += event.elapsed_s


def _faulted(state: State, event: Faulted) -> None:
    state.faults[event.key] = max(state.faults.get(event.key, 0), event.attempt)


def _stopped(state: State, event: Stopped) -> None:
    state.stopped = event


_APPLY: Mapping[type, Callable[[State, Any], None]] = {
    RunStarted: _run_started,
    EpochStarted: _epoch_started,
    Proposed: _proposed,
    MutationDone: _mutation_done,
    SentBack: _sent_back,
    Advised: _advised,
    Ended: _ended,
    RemeasureStarted: _remeasure_started,
    Remeasured: _remeasured,
    FinalMeasured: _final_measured,
    Faulted: _faulted,
    Stopped: _stopped,
}
