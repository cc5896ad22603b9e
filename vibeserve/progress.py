"""Decides what a run looks like from outside its driver: snapshots and event lines made from the ledger alone."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from population.archive import Archive
from population.candidate import candidate_id
from population.errors import VibeServeError
from population.evaluation import Evaluation, Rejected
from population.event_json import encode
from population.events import (
    Advised,
    Drafted,
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
from population.replay import State
from vibeserve.display import FrontRow, Meter, Slot, Snapshot
from vibeserve.front_rows import label_of
from vibeserve.growth import growth
from vibeserve.lifecycle import RunState, run_state
from vibeserve.meters import WALL_TIME, meters
from vibeserve.narrative.lessons import path_to
from vibeserve.runs import read_run
from vibeserve.summary import Summary, summary_of


def follow(run_dir: Path) -> tuple[Summary, Snapshot]:
    """Summary and snapshot of a run at this moment."""
    events, state = read_run(run_dir)
    return follow_events(run_dir, events, state)


def follow_events(run_dir: Path, events: Sequence[Event], state: State) -> tuple[Summary, Snapshot]:
    """The same, from events that were read already."""
    summary = summary_of(run_dir, state, run_state(events))
    live = summary.state in (RunState.RUNNING, RunState.REMOTE)
    since_s = max(0.0, time.time() - events[-1].time_s) if live and events else 0.0
    elapsed_s = state.elapsed_s + since_s
    shown = _meters(run_dir, state, elapsed_s)
    counts = {
        "scored": summary.scored,
        "rejected": sum(summary.rejected.values()),
        "machine faults": summary.errors,
        "measured on the held-out trace": len(state.finals),
    }
    return summary, Snapshot(
        run=summary.run,
        elapsed_s=elapsed_s,
        slots=_slots(events, state) if live else (),
        meters=shown,
        counts={name: count for name, count in counts.items() if count},
        front=summary.front,
        hypervolume=summary.hypervolume,
        history=growth(state.archive),
        rejected=summary.rejected,
        path=path_text(state.archive, summary.front),
        eta_s=eta_s(shown, elapsed_s) if live else None,
        events=tuple(text for text in (event_text(event) for event in events[-12:]) if text)[-3:],
    )


def aged(snapshot: Snapshot, by_s: float) -> Snapshot:
    """The same some seconds later, while nothing has happened."""
    elapsed_s = snapshot.elapsed_s + by_s
    meters = tuple(replace(m, used=elapsed_s) if m.name == WALL_TIME else m for m in snapshot.meters)
    return replace(
        snapshot,
        elapsed_s=elapsed_s,
        slots=tuple(replace(slot, elapsed_s=slot.elapsed_s + by_s) for slot in snapshot.slots),
        meters=meters,
        eta_s=None if snapshot.eta_s is None else eta_s(meters, elapsed_s),
    )


def path_text(archive: Archive, front: Sequence[FrontRow]) -> tuple[str, ...]:
    """What was changed at each step from the seed to the first member of the front."""
    steps = [archive.candidates[name].proposal for name in path_to(archive, front[0].id)] if front else []
    return tuple(label_of(proposal) or str(proposal.operator) for proposal in steps)


def eta_s(meters: Sequence[Meter], elapsed_s: float) -> float | None:
    """Seconds until the first budget is used up at the pace so far; None without a limit or any use, or after that."""
    shares = [meter.share for meter in meters if meter.share]
    return (
        min((elapsed_s * (1 - share) / share for share in shares), default=None) if max(shares, default=1) < 1 else None
    )


def _meters(run_dir: Path, state: State, elapsed_s: float) -> tuple[Meter, ...]:
    from vibeserve.accounts import Tariff
    from vibeserve.layers import load_run_config

    try:
        budget = load_run_config(run_dir).budget
    except VibeServeError:
        return ()  # a run that is being prepared, or written by another version: its ledger still reads
    tariff = Tariff.of_run(run_dir)
    return meters(budget, state, elapsed_s, tariff.gpus, tariff.prices)


def _slots(events: Sequence[Event], state: State) -> tuple[Slot, ...]:
    began: dict[str, float] = {}
    for event in events:
        if isinstance(event, Proposed):
            began[event.proposal.id] = event.time_s
        elif isinstance(event, RemeasureStarted):
            began[f"r{event.index:06d}"] = event.time_s
    now = time.time()
    children = tuple(
        Slot(
            key=proposal.id,
            operator=str(proposal.operator),
            parents=proposal.parents,
            label=label_of(proposal),
            stage="evaluate" if number in state.mutated else "mutate",
            elapsed_s=max(0.0, now - began[proposal.id]),
        )
        for number, proposal in sorted(state.pending.items())
    )
    again = tuple(
        Slot(
            key=key,
            operator="remeasure",
            parents=(candidate,),
            stage="evaluate",
            elapsed_s=max(0.0, now - began[key]),
        )
        for key, candidate in ((f"r{index:06d}", c) for index, c in sorted(state.remeasuring.items()))
    )
    return children + again


def event_text(event: Event) -> str | None:
    """One line for people; None for what only the machine wants to know."""
    match event:
        case RunStarted():
            return f"run {event.run} started, seed {event.seed}"
        case EpochStarted():
            return f"driver {event.epoch} started (pid {event.pid} on {event.host})"
        case Proposed():
            proposal = event.proposal
            origin = f" of {' + '.join(proposal.parents)}" if proposal.parents else ""
            return " ".join(f"{proposal.id} proposed: {proposal.operator} {label_of(proposal)}{origin}".split())
        case SentBack():
            return f"{candidate_id(event.number)} {_verdict(event.evaluation)}; it goes back to be mended"
        case Ended():
            return f"{candidate_id(event.number)} {_verdict(event.evaluation)} ({event.elapsed_s:.1f} s)"
        case Drafted():
            return f"{candidate_id(event.number)} made; its judge has still to read it"
        case MutationDone() | Advised() | RemeasureStarted():
            return None
        case Remeasured():
            verdict = "without a result" if event.evaluation is None else _verdict(event.evaluation)
            return f"{event.candidate} measured again: {verdict}"
        case FinalMeasured():
            return f"{event.subject} measured on the held-out trace: {_verdict(event.evaluation)}"
        case Faulted():
            return f"{event.key}: the machine failed (attempt {event.attempt}): {event.reason}"
        case Stopped():
            return f"stopped: {event.reason}"


def event_json(event: Event) -> dict[str, Any]:
    """The event as the ledger writes it."""
    plain: dict[str, Any] = json.loads(encode(event))
    return plain


def _verdict(evaluation: Evaluation) -> str:
    if isinstance(evaluation, Rejected):
        return f"rejected at {evaluation.stage}: {evaluation.reason}"
    return "scored" + (f" [{', '.join(evaluation.flags)}]" if evaluation.flags else "")
