"""Decides which tables a comparison consists of: one table of texts per question, whatever shows them."""

from __future__ import annotations

from dataclasses import dataclass

from search.ranksum import LEAST_RUNS as LEAST_FOR_TEST
from vibeserve.comparing.comparison import Comparison
from vibeserve.comparing.contenders import Kind
from vibeserve.comparing.spelling import bracketed, figure, gained, interval_of, shares, signed, titled
from vibeserve.wording import clean

_UNION_ROWS = 20
_MOST_COLUMNS = 14
"""A table of pairs of more fronts than this is for programs: --format json has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """One table of texts: the first columns are words, the others figures."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    words: int = 1


def sheets(comparison: Comparison) -> tuple[Sheet, ...]:
    """Every table that has something to say, in reading order."""
    found = [_settings(comparison), _tests(comparison), _fronts(comparison), _config(comparison)]
    found += [_indicators(comparison), _best(comparison), _differences(comparison), _coverage(comparison)]
    found += [_union(comparison)]
    return tuple(sheet for sheet in found if sheet.rows and len(sheet.header) <= _MOST_COLUMNS)


def _fronts(comparison: Comparison) -> Sheet:
    rows = []
    for entry in comparison.entries:
        it = entry.contender
        role = "baseline" if it.kind is Kind.BASELINE else str(it.state)
        seed = "" if it.rng_seed is None else str(it.rng_seed)
        children = str(it.children) if it.children else ""
        rows.append((entry.key, it.name, role, entry.setting, seed, children, str(len(it.members))))
    header = ("", "front", "is", "setting", "seed", "children", "members")
    return Sheet(title="Who takes part", header=header, rows=tuple(rows), words=4)


def _config(comparison: Comparison) -> Sheet:
    keys = [entry.key for entry in comparison.entries if entry.contender.kind is Kind.RUN]
    rows = [(name, *(row.get(key, "") for key in keys)) for name, row in comparison.config.items()]
    if len(keys) > 1 and not rows:
        rows = [("none but the seed", *("" for _ in keys))]
    header = ("option", *keys)
    return Sheet(title="Where their configs differ", header=header, rows=tuple(rows), words=len(header))


def _indicators(comparison: Comparison) -> Sheet:
    rows = tuple(
        (
            entry.key,
            bracketed(entry.indicators["hypervolume"]),
            bracketed(entry.indicators["igd_plus"]),
            bracketed(entry.indicators["epsilon_additive"]),
            bracketed(entry.indicators["epsilon_multiplicative"], "×"),
            bracketed(entry.indicators["contribution"]),
            f"{entry.on_union} of {len(entry.contributions)}",
        )
        for entry in comparison.ranking
    )
    header = ("", "hypervolume ↑", "IGD+ ↓", "ε+ ↓", "ε× ↓", "adds to union ↑", "on union front")
    note = (
        "Hypervolume: share of the box between ideal and reference point. IGD+, additive ε+ and multiplicative ε×: how "
        "far the union of all fronts is missed; ε× 1.2 means that some member of it is missed by a factor of 1.2. "
        "Adds: hypervolume that only the front's members give the union."
    )
    return Sheet(title="Quality of each front, best first", header=header, rows=rows, note=note)


def _best(comparison: Comparison) -> Sheet:
    rows = []
    for entry in comparison.entries:
        cells = []
        for objective in comparison.objectives:
            best = entry.best[objective.name]
            ratio = "" if best.gain is None else f"; {gained(best.gain, comparison.entries[0].key)}"
            cells.append(f"{best.member} {bracketed(best.value)}{ratio}")
        rows.append((entry.key, *cells))
    header = ("", *(titled(objective) for objective in comparison.objectives))
    note = "× above 1 is better, whatever the direction. The best of many noisy values is partly luck: see `verify`."
    return Sheet(title="Best per objective", header=header, rows=tuple(rows), note=note)


def _differences(comparison: Comparison) -> Sheet:
    rows = tuple(
        (
            f"{d.key} against {d.against}",
            signed(d.hypervolume),
            bracketed(d.epsilon, "×"),
            bracketed(d.epsilon_back, "×"),
            d.verdict,
        )
        for d in comparison.differences
    )
    header = ("", "hypervolume", "ε× of it", "ε× of the other", "verdict")
    note = "ε× of it: the factor by which it misses the other's worst-covered member; 1× or less: it covers them all."
    return Sheet(title="Differences", header=header, rows=rows, note=note)


def _coverage(comparison: Comparison) -> Sheet:
    keys = [entry.key for entry in comparison.entries]
    rows = tuple(
        (key, *("" if key == other else shares(cell) for other, cell in zip(keys, row, strict=True)))
        for key, row in zip(keys, comparison.coverage, strict=True)
    )
    note = "The share of the column's members that some member of the row equals or beats in every objective."
    return Sheet(title="Coverage C(row, column)", header=("", *keys), rows=rows, note=note)


def _settings(comparison: Comparison) -> Sheet:
    rows = tuple(
        (
            setting.label,
            ", ".join(setting.keys),
            figure(setting.median_hypervolume),
            f"{figure(min(setting.hypervolumes))} – {figure(max(setting.hypervolumes))}",
        )
        for setting in sorted(comparison.settings, key=lambda s: -s.median_hypervolume)
    )
    header = ("setting", "runs", "median hypervolume", "range over seeds")
    return Sheet(title="Settings, best first", header=header, rows=rows, words=2)


def _tests(comparison: Comparison) -> Sheet:
    rows = tuple(
        (
            f"{test.first} against {test.second}",
            f"{test.p:.3g}",
            f"{test.p_corrected:.3g}",
            f"{test.effect:.2f} ({test.size})",
            test.verdict,
        )
        for test in comparison.rank_sums
    )
    header = ("hypervolume of", "p", "p (Holm)", "effect A", "verdict")
    note = (
        f"Two-sided Mann-Whitney rank-sum test over runs, from {LEAST_FOR_TEST} per setting on. A: the chance that a "
        "run of the first setting beats one of the second (Vargha & Delaney)."
    )
    return Sheet(title="Rank-sum tests", header=header, rows=rows, note=note)


def _union(comparison: Comparison) -> Sheet:
    found = [
        (entry.contributions[member.id], entry, member)
        for entry in comparison.entries
        for member in entry.contender.members
        if entry.contributions[member.id].value > 0
    ]
    found.sort(key=lambda row: -row[0].value)
    rows = tuple(
        (
            f"{entry.key} {member.id}",
            clean(member.made_by),
            *(bracketed(interval_of(member.estimates[o.name])) for o in comparison.objectives),
            bracketed(gain),
        )
        for gain, entry, member in found[:_UNION_ROWS]
    )
    header = ("", "made by", *(titled(o) for o in comparison.objectives), "contribution ↑")
    left = len(found) - _UNION_ROWS
    note = "Contribution: the hypervolume that the union front would lose without this member." + (
        f" And {left} more; --format json has all." if left > 0 else ""
    )
    return Sheet(title="The union front, largest contribution first", header=header, rows=rows, note=note, words=2)
