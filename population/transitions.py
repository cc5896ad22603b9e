"""Decides which event may come next in a run, and what it changes in the run's state.

Only `State.check` and `State.apply` call these: a check looks and changes nothing, a change is made once it has passed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from population.archive import Archive
from population.candidate import Attempt, Candidate, Failure, candidate_id
from population.evaluation import Evaluation, Rejected, Scored
from population.events import (
    Advised,
    Drafted,
    Ended,
    EpochStarted,
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

if TYPE_CHECKING:
    from population.replay import State

_CHILD = re.compile(r"c([0-9]{6,})")


def number_of(event: Drafted | MutationDone | Ended | Faulted) -> int | None:
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


def _check_drafted(state: State, event: Drafted) -> str | None:
    if event.number not in state.pending:
        return f"child {event.number} is not pending"
    known = event.number in state.drafts or event.number in state.mutated
    return f"child {event.number} has a commit already" if known else None


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


CHECKS: Mapping[type, Callable[[State, Any], str | None]] = {
    RunStarted: _check_run,
    Proposed: _check_proposed,
    Drafted: _check_drafted,
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


def _drafted(state: State, event: Drafted) -> None:
    state.drafts[event.number] = event
    state.trees.setdefault(event.tree, set()).add(event.number)
    state.summaries[event.number] = event.summary


def _mutation_done(state: State, event: MutationDone) -> None:
    if (draft := state.drafts.pop(event.number, None)) is not None:
        _landed(state, draft)
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


def _landed(state: State, made: MutationDone | Drafted) -> None:
    """The child's commit is in flight no more."""
    state.trees[made.tree].discard(made.number)
    if not state.trees[made.tree]:
        del state.trees[made.tree]


def _ended(state: State, event: Ended) -> None:
    proposal = state.pending.pop(event.number)
    made = state.mutated.pop(event.number, None)
    if (draft := state.drafts.pop(event.number, None)) is not None:
        _landed(state, draft)
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


APPLY: Mapping[type, Callable[[State, Any], None]] = {
    RunStarted: _run_started,
    EpochStarted: _epoch_started,
    Proposed: _proposed,
    Drafted: _drafted,
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
