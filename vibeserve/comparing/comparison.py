"""Decides what a comparison of fronts says: figures and differences with intervals, verdicts, settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from population.objectives import Objective
from population.statistics import estimate
from search.comparison import Scale
from search.ranksum import RankSum, rank_sums
from search.resampling import Interval
from vibeserve.comparing.contenders import Contender, Kind, Member
from vibeserve.comparing.fairness import caveats, require_fair
from vibeserve.comparing.figures import Best, Difference, Fronts
from vibeserve.comparing.settings import Setting, config_differences, label_of, settings_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What is said about one front."""

    key: str
    """`A`, `B`, …: its name in tables."""
    contender: Contender
    setting: str
    """What sets it apart, in words; empty if nothing does."""
    indicators: Mapping[str, Interval]
    best: Mapping[str, Best]
    contributions: Mapping[str, Interval]
    """Member → its contribution to the hypervolume of the union front."""

    @property
    def on_union(self) -> int:
        """How many members are on the union front, and inside the reference point."""
        return sum(gain.value > 0 for gain in self.contributions.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Everything that is shown, in whatever format."""

    objectives: tuple[Objective, ...]
    scale: Scale
    entries: tuple[Entry, ...]
    """In the order given; the first is what the others are compared with."""
    coverage: tuple[tuple[Interval, ...], ...]
    """C(row, column) in the order of the entries."""
    differences: tuple[Difference, ...]
    """Every other entry against the first."""
    settings: tuple[Setting, ...]
    rank_sums: tuple[RankSum, ...]
    config: Mapping[str, Mapping[str, str]]
    """Config key that differs → entry → value."""
    points: Mapping[str, Member]
    """Seed and baselines of the target, pooled over the runs."""
    forced: tuple[str, ...]
    """What differs and was overridden by --force; empty for a fair comparison."""
    caveats: tuple[str, ...]
    held_out: bool = False

    @property
    def ideal(self) -> Mapping[str, float]:
        """Objective → best value of all, where the shared scale is 0."""
        return {o.name: o.value(c) for o, c in zip(self.objectives, self.scale.ideal_M, strict=True)}

    @property
    def reference(self) -> Mapping[str, float]:
        """Objective → value of the reference point, where the shared scale is 1."""
        return {o.name: o.value(c) for o, c in zip(self.objectives, self.scale.reference_M, strict=True)}

    @property
    def ranking(self) -> tuple[Entry, ...]:
        """Largest hypervolume first."""
        return tuple(sorted(self.entries, key=lambda e: -e.indicators["hypervolume"].value))

    def entry(self, key: str) -> Entry:
        """By its key."""
        return next(entry for entry in self.entries if entry.key == key)


def compare(
    contenders: Sequence[Contender],
    objectives: Sequence[Objective],
    *,
    force: bool = False,
    held_out: bool = False,
    notes: Sequence[str] = (),
) -> Comparison:
    """Compare the fronts of at least two contenders; `notes` are caveats that are known beforehand.

    Raises:
        RunError: they were not measured alike, and it is not forced.
    """
    forced = require_fair(contenders, force)
    points = _pooled_points(contenders, objectives, share=not forced)
    named = {_key(place): contender for place, contender in enumerate(contenders)}
    config = config_differences(named)
    fronts = Fronts.of(named, objectives, tuple(points.values()))
    indicators, volumes = fronts.qualities()
    shown = zip(named.items(), indicators, fronts.best(), fronts.contributions(), strict=True)
    entries = tuple(
        Entry(
            key=key,
            contender=contender,
            setting=label_of(config, key),
            indicators=found,
            best=best,
            contributions=gains,
        )
        for (key, contender), found, best, gains in shown
    )
    runs = [(e.key, e.setting, e.indicators["hypervolume"].value) for e in entries if e.contender.kind is Kind.RUN]
    settings = settings_of(runs)
    return Comparison(
        objectives=tuple(objectives),
        scale=fronts.scale,
        entries=entries,
        coverage=fronts.coverage(),
        differences=fronts.differences(volumes),
        settings=settings,
        rank_sums=rank_sums({s.label: s.hypervolumes for s in settings}),
        config=config,
        points=points,
        forced=forced,
        caveats=(*notes, *caveats(contenders)),
        held_out=held_out,
    )


def _key(index: int) -> str:
    """A, …, Z, AA, AB, …"""
    head, last = divmod(index, 26)
    return (_key(head - 1) if head else "") + chr(ord("A") + last)


def _pooled_points(contenders: Sequence[Contender], objectives: Sequence[Objective], share: bool) -> dict[str, Member]:
    """Seed and baselines of the runs: pooled where they are the same, else those of the first run that has them."""
    found: dict[str, Member] = {}
    for contender in contenders:
        for name, member in contender.points.items():
            if name not in found:
                found[name] = member
            elif share and contender.kind is Kind.RUN:
                samples = {o.name: found[name].samples[o.name] + member.samples[o.name] for o in objectives}
                estimates = {o.name: estimate(samples[o.name], o.relative_noise) for o in objectives}
                found[name] = replace(found[name], samples=samples, estimates=estimates)
    return found
