"""Decides in which sentences a comparison is told: the verdict, the scale, what is wrong with it, what to do next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from search.comparison import MARGIN
from search.ranksum import LEAST_RUNS as LEAST_FOR_TEST
from search.ranksum import NOT_SHOWN
from search.resampling import Interval
from vibeserve.comparing.comparison import Comparison, Entry
from vibeserve.comparing.contenders import Kind
from vibeserve.comparing.figures import DRAWS, Difference
from vibeserve.comparing.spelling import figure, percent, signed, valued

UNFAIR = "NOT A FAIR COMPARISON (--force)"
_MOST_SENTENCES = 3


def headline(comparison: Comparison) -> str:
    """Who is better by how much, in a paragraph."""
    return " ".join(headlines(comparison))


def headlines(comparison: Comparison) -> list[str]:
    """The same, one point each: of settings and baselines where there are several runs of a setting, else of fronts."""
    if len(comparison.settings) > 1:
        return [*_of_settings(comparison), *_of_baselines(comparison)]
    return [_sentence(comparison, difference) for difference in comparison.differences[:_MOST_SENTENCES]]


def _of_settings(comparison: Comparison) -> Iterator[str]:
    """The best setting, by the median of its runs, then the others; whether a test shows a difference."""
    best, *others = sorted(comparison.settings, key=lambda setting: -setting.median_hypervolume)
    then = ", ".join(f"{s.label} with {figure(s.median_hypervolume)}" for s in others)
    volume = figure(best.median_hypervolume)
    yield f"{best.label} has the largest median hypervolume over its seeds, {volume}; then {then}."
    for test in comparison.rank_sums:
        if best.label in (test.first, test.second):
            other = test.second if test.first == best.label else test.first
            effect = test.effect if test.first == best.label else 1 - test.effect
            better = "better" if effect > 0.5 else "worse"
            found = test.verdict if test.verdict == NOT_SHOWN else f"{better} beyond the luck of seeds"
            yield f"Against {other}: {found} (p = {test.p_corrected:.2g} after Holm, A = {effect:.2f}, {test.size})."
    if not comparison.rank_sums:
        yield f"That is no test: one takes {LEAST_FOR_TEST} runs per setting."


def _of_baselines(comparison: Comparison) -> Iterator[str]:
    for entry in comparison.entries:
        if entry.contender.kind is Kind.BASELINE:
            volume = figure(entry.indicators["hypervolume"].value)
            share = f"{entry.on_union} of its {len(entry.contributions)} members are on the union front"
            yield f"The baseline {entry.contender.name} has hypervolume {volume}; {share}."


def _sentence(comparison: Comparison, difference: Difference) -> str:
    ours, theirs = comparison.entry(difference.key), comparison.entry(difference.against)
    volumes = [entry.indicators["hypervolume"].value for entry in (ours, theirs)]
    amount = f"hypervolume {figure(volumes[0])} against {figure(volumes[1])} ({signed(difference.hypervolume)})"
    there = _reach(comparison, ours, theirs, difference.epsilon)
    back = _reach(comparison, theirs, ours, difference.epsilon_back)
    if difference.verdict == NOT_SHOWN:
        return f"No difference shown between {ours.key} and {theirs.key}: {amount}. {there}; {back}."
    return f"{ours.key} is {difference.verdict} than {theirs.key}: {amount}. {there}; {back}."


def _reach(comparison: Comparison, ours: Entry, theirs: Entry, epsilon: Interval) -> str:
    """`B covers 40 % of A's front and misses some member of it by 1.3×`."""
    names = [entry.key for entry in comparison.entries]
    covered = comparison.coverage[names.index(ours.key)][names.index(theirs.key)].value
    if covered == 1:
        return f"{ours.key} covers all of {theirs.key}'s front"
    missed = f"misses some member by {figure(epsilon.value)}×"
    return f"{ours.key} covers {percent(covered)} of {theirs.key}'s front and {missed}"


def scale_lines(comparison: Comparison) -> list[str]:
    """The shared normalisation and reference point, in values."""
    ideal = ", ".join(valued(o, comparison.ideal[o.name]) for o in comparison.objectives)
    reference = ", ".join(valued(o, comparison.reference[o.name]) for o in comparison.objectives)
    source = "held-out trace" if comparison.held_out else "search"
    return [
        f"Ideal point (0 on the shared log scale): {ideal}",
        f"Reference point (1): {reference}; {percent(MARGIN)} of the range beyond the worst of all shown, "
        "the range counted as a factor of 2 at least",
        f"Measurements of the {source}; 95 % intervals in brackets, by {DRAWS:,} resamples of the repeats",
    ]


def caution_lines(comparison: Comparison) -> Sequence[str]:
    """What is wrong with it (only when forced), then what to bear in mind."""
    unfair = [f"{UNFAIR}: {text}" for text in comparison.forced]
    return [*unfair, *(f"note: {text}" for text in comparison.caveats)]


def next_steps(comparison: Comparison) -> list[str]:
    """Commands that go on from here: without the luck of the search, why it is better, and a claim."""
    runs = [entry for entry in comparison.entries if entry.contender.kind is Kind.RUN]
    if not runs:
        return []
    best = max(runs, key=lambda entry: entry.indicators["hypervolume"].value)
    member = max(best.contributions, key=lambda name: best.contributions[name].value)
    place = best.contender.name
    fresh = f"vibeserve compare {' '.join(entry.contender.name for entry in runs)} --held-out"
    return [
        *([fresh] if 1 < len(runs) <= _MOST_SENTENCES and not comparison.held_out else []),
        f"vibeserve show {member} --run {place}",
        f"vibeserve diff {member} seed --run {place}",
        f"vibeserve verify {member} --against seed --run {place}",
    ]


def entry_name(entry: Entry) -> str:
    """What a legend calls it: key, and setting or name."""
    return f"{entry.key} {entry.setting or entry.contender.name}"
