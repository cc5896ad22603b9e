"""Decides which candidate of a run keeps a service level and is best at something, or what stands in the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from population.archive import Archive, noise_factor
from population.candidate import candidate_id
from population.errors import UsageError
from population.evaluation import Scored
from population.objectives import Direction, Objective, objective_samples
from population.replay import State
from population.statistics import Estimate, estimate
from vibeserve.conditions import (
    Certainty,
    Condition,
    Verdict,
    applying,
    metric_name,
    verdict_json,
    verdicts,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What to be best at among the candidates that keep the service level."""

    metric: str
    direction: Direction


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One scored candidate under the conditions."""

    id: str
    aim: Estimate
    verdicts: tuple[Verdict, ...]

    @property
    def kept(self) -> bool:
        """Whether every measured value keeps its condition."""
        return all(verdict.certainty.holds for verdict in self.verdicts)

    @property
    def sure(self) -> bool:
        """Whether every whole interval does."""
        return all(verdict.certainty is Certainty.KEPT for verdict in self.verdicts)

    @property
    def excess(self) -> float:
        """How many times the worst value is beyond its limit."""
        return max((verdict.excess for verdict in self.verdicts), default=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What was picked. `chosen` None: no candidate keeps all conditions, and `nearest` breaks them by the least."""

    run: str
    key: str
    """The metric that decides among those that keep the conditions."""
    direction: Direction
    unit: str | None
    chosen: Contender | None
    nearest: Contender | None
    runner_up: Contender | None
    """Better than the chosen one by its measured value, but its intervals reach beyond a limit; None: there is none."""
    keeping: int
    """Candidates that keep all conditions by their measured values."""
    considered: int
    held_out: tuple[Verdict, ...]
    """The chosen one's conditions on the held-out trace, where it was measured there."""


def wish_of(text: str, direction: Direction | None, objectives: Sequence[Objective]) -> Wish:
    """A metric with its direction: the objective's own, else as asked for.

    Raises:
        UsageError: an objective is asked for in the wrong direction.
    """
    name = "@".join([metric_name(text.partition("@")[0]), *text.split("@")[1:]])
    own = next((o.direction for o in objectives if o.name == name.partition("@")[0]), None)
    if own is not None and direction is not None and own is not direction:
        raise UsageError(
            f"{text} is better when it is {'larger' if own is Direction.MAX else 'smaller'}; use --{own}imize"
        )
    return Wish(metric=name, direction=direction or own or Direction.MAX)


def pick(state: State, conditions: Sequence[Condition], wish: Wish | None = None) -> Choice:
    """The best scored candidate whose whole intervals keep every condition; else the best whose values do; else none.

    Dominated candidates count, too: what a condition is about need not be an objective.

    Raises:
        UsageError: nothing was scored, or a condition or the wish is about something that was not measured.
    """
    archive, objectives = state.archive, tuple(state.archive.objectives)
    if not archive.scored:
        raise UsageError(
            "no candidate of this run was scored, so there is nothing to pick from; see `vibeserve status`"
        )
    wish = wish or Wish(metric=objectives[0].name, direction=objectives[0].direction)
    known = {name for member in archive.scored[:1] for name in _sample_names(archive, member)}
    aim = _aim_key(wish, known, objectives)
    keys = {key for c in conditions for key in applying(c.metric, c.load, known, objectives)}
    contenders = []
    for member in archive.scored:
        scored = [e for e in archive.evaluations(member) if isinstance(e, Scored)]
        measured = _estimates(scored, keys | {aim}, objectives)
        if len(measured) == len(keys | {aim}):
            found = verdicts(conditions, {key: measured[key] for key in keys}, objectives)
            contenders.append(Contender(id=member, aim=measured[aim], verdicts=found))
    return _choose(state, wish, aim, contenders)


def _choose(state: State, wish: Wish, aim: str, contenders: Sequence[Contender]) -> Choice:
    objectives = tuple(state.archive.objectives)
    measure = Objective(name=aim, direction=wish.direction)
    ranked = sorted(contenders, key=lambda c: (measure.cost(c.aim.value), c.id))
    kept = [c for c in ranked if c.kept]
    chosen = next((c for c in kept if c.sure), kept[0] if kept else None)
    nearest = min(ranked, key=lambda c: (c.excess, measure.cost(c.aim.value)), default=None)
    return Choice(
        run=state.started.run if state.started else "",
        key=aim,
        direction=wish.direction,
        unit=next((o.unit for o in objectives if o.name == aim.partition("@")[0]), None),
        chosen=chosen,
        nearest=None if chosen else nearest,
        runner_up=kept[0] if kept and kept[0] is not chosen else None,
        keeping=len(kept),
        considered=len(contenders),
        held_out=_held_out(state, chosen) if chosen else (),
    )


def _held_out(state: State, chosen: Contender) -> tuple[Verdict, ...]:
    """The same conditions on the fresh measurements of the end, which chance did not select."""
    scored = [
        event.evaluation
        for (subject, _), event in sorted(state.finals.items())
        if subject == chosen.id and isinstance(event.evaluation, Scored)
    ]
    measured = _estimates(scored, {v.key for v in chosen.verdicts}, tuple(state.archive.objectives)) if scored else {}
    return tuple(
        Verdict(condition=v.condition, key=v.key, found=measured[v.key]) for v in chosen.verdicts if v.key in measured
    )


def _aim_key(wish: Wish, known: set[str], objectives: Sequence[Objective]) -> str:
    """The objective of that name as it was declared, or one metric of one load."""
    if any(o.name == wish.metric for o in objectives):
        return wish.metric
    metric, _, load = wish.metric.partition("@")
    keys = applying(metric, load or None, known)
    if len(keys) > 1:
        raise UsageError(f"{metric} was measured under several loads; name one: {', '.join(keys)}")
    return keys[0]


def _sample_names(archive: Archive, member: str) -> set[str]:
    return {
        n for e in archive.evaluations(member) if isinstance(e, Scored) for n, values in e.samples.items() if values
    }


def _estimates(scored: Sequence[Scored], keys: set[str], objectives: Sequence[Objective]) -> dict[str, Estimate]:
    """The wanted metrics from pooled samples; one that was never measured is left out."""
    noise = {o.name: o.relative_noise for o in objectives}
    default, wider = max(noise.values(), default=0.05), noise_factor(scored)
    found = {}
    for key in keys:
        own = next((o for o in objectives if o.name == key), None)
        values = [v for e in scored for v in (objective_samples(own, e.samples) if own else e.samples.get(key, ()))]
        if values and min(values) >= 0:
            found[key] = estimate(values, noise.get(key.partition("@")[0], default), wider)
    return found


def choice_json(choice: Choice) -> dict[str, Any]:
    """The object of `vibeserve pick --json`."""
    shown = choice.chosen or choice.nearest
    return {
        "run": choice.run,
        "candidate": choice.chosen.id if choice.chosen else None,
        "certain": bool(choice.chosen and choice.chosen.sure),
        "aim": {"metric": choice.key, "direction": str(choice.direction), **asdict(shown.aim)} if shown else None,
        "conditions": [verdict_json(v) for v in shown.verdicts] if shown else [],
        "held_out": [verdict_json(v) for v in choice.held_out],
        "nearest": choice.nearest.id if choice.nearest else None,
        "runner_up": choice.runner_up.id if choice.runner_up else None,
        "keeping": choice.keeping,
        "considered": choice.considered,
        "is_seed": bool(choice.chosen and choice.chosen.id == candidate_id(0)),
    }
