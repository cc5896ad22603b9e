"""Decides what is said at the top of every page: which runs there are, how far each is, what is in flight."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from population.errors import VibeServeError
from vibeserve.dashboard.children import child_rows
from vibeserve.dashboard.spending import gpus_per_evaluation
from vibeserve.follower import Followed
from vibeserve.front_rows import SEED, label_of
from vibeserve.growth import hypervolume
from vibeserve.lifecycle import RunState


def overview(run: Followed) -> dict[str, Any]:
    """The head of a run's pages."""
    fixed = run.kept("overview", lambda: _overview(run))
    live = run.life in (RunState.RUNNING, RunState.REMOTE)
    since_s = max(0.0, time.time() - run.events[-1].time_s) if live and run.events else 0.0
    return {**fixed, "elapsed_s": run.state.elapsed_s + since_s, "live": live}


def brief(run: Followed) -> dict[str, Any]:
    """One row of the list of runs."""
    return {key: value for key, value in overview(run).items() if key != "in_flight"}


def _overview(run: Followed) -> dict[str, Any]:
    state = run.state
    archive = state.archive
    counts = Counter(row["state"] for row in child_rows(run) if row["number"] > 0)
    gpus = gpus_per_evaluation(run)
    return {
        "run": run.name,
        "folder": run.run_dir,
        "revision": run.revision,
        "state": run.life,
        "problem": run.problem,
        "stopped_because": state.stopped.reason if state.stopped else None,
        "seed": state.started.seed if state.started else None,
        "children": sum(number > 0 for number in archive.children),
        "scored": counts["scored"] + counts["front"],
        "rejected": counts["rejected"],
        "errors": sum(state.faults.values()),
        "front": len(archive.front),
        "hypervolume": hypervolume(archive),
        "has_seed": SEED in archive.scored,
        "gpu_hours": state.evaluate_s * gpus / 3600 if gpus else None,
        "budget": run.facts("budget", lambda: _budget(run)),
        "in_flight": _in_flight(run),
    }


def _in_flight(run: Followed) -> Sequence[dict[str, Any]]:
    state = run.state
    if run.life not in (RunState.RUNNING, RunState.REMOTE):
        return []
    children = [
        {
            "key": proposal.id,
            "operator": str(proposal.operator),
            "label": label_of(proposal),
            "stage": "evaluate" if number in state.mutated else "mutate",
        }
        for number, proposal in sorted(state.pending.items())
    ]
    again = [
        {"key": name, "operator": "remeasure", "label": "", "stage": "evaluate"}
        for _, name in sorted(state.remeasuring.items())
    ]
    return children + again


def _budget(run: Followed) -> dict[str, float | None]:
    from vibeserve.layers import load_run_config

    try:
        budget = load_run_config(run.run_dir).budget
    except VibeServeError:
        return {}
    return {"children": budget.children, "wall_time_s": budget.wall_time_s, "gpu_hours": budget.gpu_hours}
