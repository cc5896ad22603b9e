"""Decides what of a run takes part in a comparison: its front on the chosen objectives, its setting, its identity."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from population import dominance
from population.archive import Archive, noise_factor
from population.errors import RunError, UsageError, VibeServeError
from population.evaluation import Scored
from population.objectives import Direction, Objective, objective_samples
from population.replay import State
from population.statistics import Estimate, estimate
from vibeserve.comparing.contenders import Contender, Identity, Kind, Member, Selection
from vibeserve.front_rows import SEED, label_of, weakest_tier
from vibeserve.lifecycle import RunState, run_state
from vibeserve.runs import read_run

_NOT_A_SETTING = frozenset({"seed", "name", "runs_dir", "target", "skills.dir"})
"""Options that name or place a run, or pick its luck; skills are compared by content."""


def read_contender(run_dir: Path, selection: Selection, kind: Kind = Kind.RUN) -> Contender:
    """A run, finished or not, as its ledger tells it.

    Raises:
        LedgerError: the ledger is damaged before its tail.
        RunError: nothing in it was scored.
        UsageError: it did not measure an objective that was asked for.
    """
    events, state = read_run(run_dir)
    return contender_of(run_dir, state, run_state(events), selection, kind)


def contender_of(run_dir: Path, state: State, life: RunState, selection: Selection, kind: Kind = Kind.RUN) -> Contender:
    """The same of a state that was read already."""
    archive, started = state.archive, state.started
    if started is None or not archive.scored:
        raise RunError(f"{run_dir}: expected a run with scored candidates, found none; `vibeserve status` says why")
    objectives = chosen_objectives(archive, selection.objectives, run_dir)
    members = {name: _member(state, name, objectives, archive.evaluations(name)) for name in archive.scored}
    front = _front(members, objectives)
    caveats = []
    if selection.held_out:
        finals = {name: _final(state, name, objectives) for name in front}
        left_out = [name for name, member in finals.items() if member is None]
        if left_out:
            caveats.append(f"not measured on the held-out trace and left out: {', '.join(left_out)}")
        members = {name: member for name, member in finals.items() if member is not None}
        front = [name for name in front if name in members]
        if not front:
            raise RunError(f"{run_dir}: no member of its front was measured on the held-out trace; leave --held-out")
    evaluations = [e for name in front for e in archive.evaluations(name) if isinstance(e, Scored)]
    setting, unread = _setting(run_dir, started.fingerprint)
    return Contender(
        name=run_dir.name,
        kind=kind,
        place=run_dir,
        members=tuple(members[name] for name in front),
        identity=_identity(run_dir, state),
        setting=setting,
        rng_seed=started.seed,
        trace_seed=_trace(started.fingerprint, selection.held_out),
        state=life,
        children=sum(number > 0 for number in archive.children),
        points=_points(state, objectives, selection.held_out),
        tiers=frozenset({weakest_tier(evaluations)}),
        caveats=(*caveats, *unread),
    )


def objectives_of(run_dir: Path, selection: Selection) -> tuple[Objective, ...]:
    """The objectives that are compared, as this run declares them.

    Raises:
        RunError: the run has not begun.
        UsageError: it did not measure one that was asked for.
    """
    _, state = read_run(run_dir)
    if state.started is None:
        raise RunError(f"{run_dir}: expected a run that has begun, but its ledger has no first record")
    return chosen_objectives(state.archive, selection.objectives, run_dir)


def chosen_objectives(archive: Archive, names: Sequence[str], where: Path) -> tuple[Objective, ...]:
    """Declared objectives by name, and other measured metrics with the direction that their name implies.

    Raises:
        UsageError: a name that nothing was measured for, or one given twice.
    """
    declared = {objective.name: objective for objective in archive.objectives}
    if not names:
        return tuple(archive.objectives)
    if len(set(names)) < len(names):
        raise UsageError(f"--objectives {','.join(names)}: expected each name once")
    measured = _measured(archive)
    unknown = [name for name in names if name not in declared and name not in measured]
    if unknown:
        raise UsageError(
            f"--objectives: {', '.join(unknown)} was not measured in {where.name}; its objectives are "
            f"{', '.join(declared)}, and any of these works too: {', '.join(sorted(measured))}"
        )
    noise = max(objective.relative_noise for objective in declared.values())
    return tuple(declared.get(name) or _implied(name, noise) for name in names)


def _measured(archive: Archive) -> frozenset[str]:
    """Metrics that every scored candidate has."""
    keys = [set(e.samples) for n in archive.scored for e in archive.evaluations(n) if isinstance(e, Scored)]
    return frozenset(set.intersection(*keys)) if keys else frozenset()


def _implied(name: str, noise: float) -> Objective:
    metric = name.partition("@")[0]
    more_is_better = any(word in metric for word in ("throughput", "goodput", "max_rate", "completed"))
    unit = "ms" if metric.endswith("_ms") else "tok/s" if "token" in metric or metric == "output_throughput" else None
    direction = Direction.MAX if more_is_better else Direction.MIN
    return Objective(name=name, direction=direction, unit=unit, relative_noise=noise)


def pooled(
    objectives: Sequence[Objective], scored: Sequence[Scored]
) -> tuple[dict[str, tuple[float, ...]], dict[str, Estimate]]:
    """Samples and estimates of several evaluations of one server."""
    samples = {o.name: tuple(v for e in scored for v in objective_samples(o, e.samples)) for o in objectives}
    wider = noise_factor(scored)
    return samples, {o.name: estimate(samples[o.name], o.relative_noise, wider) for o in objectives}


def _member(state: State, name: str, objectives: Sequence[Objective], evaluations: Sequence[object]) -> Member:
    archive = state.archive
    declared = {objective.name for objective in archive.objectives}
    if all(objective.name in declared for objective in objectives):
        samples, estimates = dict(archive.samples(name)), dict(archive.estimates(name))
    else:
        samples, estimates = pooled(objectives, [e for e in evaluations if isinstance(e, Scored)])
    return Member(id=name, made_by=_made_by(state, name), samples=samples, estimates=estimates)


def _made_by(state: State, name: str) -> str:
    proposal = state.archive.candidates[name].proposal
    label = label_of(proposal) or state.summaries.get(proposal.number, "").removeprefix(f"{proposal.operator}: ")
    return str(proposal.operator) if label in ("", proposal.operator) else f"{proposal.operator}: {label}"


def _front(members: Mapping[str, Member], objectives: Sequence[Objective]) -> list[str]:
    """The noise-aware front on these objectives, best in the first one first."""
    names = list(members)
    ends = ("value", "low", "high")
    value, low, high = (
        np.array([[o.cost(getattr(members[n].estimates[o.name], end)) for o in objectives] for n in names])
        for end in ends
    )
    points = dominance.Points(value, np.minimum(low, high), np.maximum(low, high))
    rows = dominance.front(points)
    return [names[row] for row in sorted(rows, key=lambda row: float(value[row][0]))]


def _final(state: State, subject: str, objectives: Sequence[Objective]) -> Member | None:
    """A subject's measurements on the held-out trace, pooled over the rounds."""
    found = [event.evaluation for (name, _), event in sorted(state.finals.items()) if name == subject]
    scored = [evaluation for evaluation in found if isinstance(evaluation, Scored)]
    if not scored:
        return None
    samples, estimates = pooled(objectives, scored)
    made_by = _made_by(state, subject) if subject in state.archive.candidates else "baseline, on the held-out trace"
    return Member(id=subject, made_by=made_by, samples=samples, estimates=estimates)


def _points(state: State, objectives: Sequence[Objective], held_out: bool) -> dict[str, Member]:
    """The target's baselines, which are measured on the held-out trace only, and the seed."""
    names = {name for name, _ in state.finals if name not in state.archive.candidates}
    finals = {name: _final(state, name, objectives) for name in sorted(names)}
    points = {name: member for name, member in finals.items() if member is not None}
    seed = _final(state, SEED, objectives) if held_out else None
    if seed is None and SEED in state.archive.scored:
        seed = _member(state, SEED, objectives, state.archive.evaluations(SEED))
    return points if seed is None else {"seed": seed, **points}


def _identity(run_dir: Path, state: State) -> Identity:
    assert state.started is not None
    known = state.started.fingerprint
    kept = ("objective", "settings", "reference", "checker", "benchmark", "seed", "vibeserve")
    stated = "; ".join(
        f"{o.name} {o.direction}" + (f" over {', '.join(o.loads)}" if o.loads else "") for o in state.started.objectives
    )
    evaluations = [e for n in state.archive.scored for e in state.archive.evaluations(n) if isinstance(e, Scored)]
    measured_by = ", ".join(sorted({e.measured_by for e in evaluations}))
    return Identity(
        parts={part: known[part] for part in kept if part in known} | {"objectives": stated, "client": measured_by},
        hardware=frozenset(e.hardware for e in evaluations if e.hardware),
        loads=_loads(run_dir / "target"),
        target=run_dir / "target" if (run_dir / "target").is_dir() else None,
    )


def _loads(target: Path) -> dict[str, str]:
    """Load → its declaration; none where the snapshot is missing or of another version."""
    from vibeserve.benching.workload import load_json, read_workload

    try:
        return {load.name: json.dumps(load_json(load), sort_keys=True) for load in read_workload(target).loads}
    except VibeServeError:
        return {}


def _trace(fingerprint: Mapping[str, str], held_out: bool) -> str | None:
    """What fixed arrivals and lengths; a pinned trace is that of the search alone."""
    pinned = fingerprint.get("evaluation.trace_seed")
    if pinned is None or (pinned != "None" and not held_out):
        return pinned
    return f"of run seed {fingerprint.get('rng seed', '?')}"


def _setting(run_dir: Path, fingerprint: Mapping[str, str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Effective options as text, and what the skills were; none, with a caveat, where they cannot be read."""
    from vibeserve.config_text import options
    from vibeserve.layers import load_run_config

    try:
        config = load_run_config(run_dir)
    except VibeServeError as error:
        return {}, (f"its config cannot be read ({error}), so it is not known what set it apart",)
    found = {o.key: _text(o.value) for o in options(config) if o.key not in _NOT_A_SETTING}
    return {**found, "skills": fingerprint.get("skills", "")[:12]}, ()


def _text(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:g}"
    return str(value)
