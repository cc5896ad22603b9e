"""Decides which trees are first-party, and what a user is told about the isolation that they run in.

First-party is what came with VibeServe itself: a tree made of the checkout's own seed, recipes, knobs and merges. Only
such a tree may run where there is no isolation (tier C).
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from evaluators.fingerprint import digest
from evaluators.isolation import choose, facts, why_not_a
from evaluators.sandbox import Tier
from population.candidate import Operator
from population.errors import IsolationError
from vibeserve.layers import CHECKOUT

_WORDS: dict[Tier, str] = {
    "A": "bubblewrap",
    "B": "Landlock + seccomp",
    "C": "clean environment, process-tree kill, rlimits; no isolation",
}
_MECHANICAL = frozenset({Operator.SEED, Operator.RECIPE, Operator.TUNE, Operator.MERGE})
"""Operators that add nothing to what their sources hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Isolation:
    """What one machine gives to a run's evaluations."""

    node: str
    tier: Tier | None
    """None: it refuses them."""
    gaps: tuple[str, ...] = ()
    why: str = ""
    """Why it is not tier A; the whole refusal, where it is one."""
    cure: str = ""


def look(allow_reduced: bool, first_party: bool) -> Isolation:
    """What this machine gives."""
    try:
        sandbox = choose(allow_reduced, first_party)
    except IsolationError as error:
        return Isolation(node=platform.node(), tier=None, why=str(error))
    problem = why_not_a(facts())
    return Isolation(
        node=platform.node(),
        tier=sandbox.tier,
        gaps=tuple(sandbox.gaps),
        why=problem.cause if problem else "",
        cure=problem.cure if problem else "",
    )


def require(found: Sequence[Isolation]) -> None:
    """At least one machine must take the run's evaluations.

    Raises:
        IsolationError: all of them refuse.
    """
    if found and all(isolation.tier is None for isolation in found):
        raise IsolationError(list(dict.fromkeys(isolation.why for isolation in found)))


def announcement(found: Sequence[Isolation], before: Iterable[str]) -> list[str]:
    """One line per kind of isolation among the machines, and one more if a run's records would differ.

    `before`: tiers of the run's evaluations so far.
    """
    lines = []
    for isolation in {replace(i, node=""): i for i in found}:
        alike = sorted(i.node for i in found if replace(i, node="") == isolation)
        where = "" if len(alike) == len(found) else f" on {', '.join(alike)}"
        lines.append(_line(isolation, where))
    now = {i.tier for i in found if i.tier is not None}
    if earlier := set(before) - now:
        lines.append(
            f"warning: this run was measured in tier {', '.join(sorted(earlier))} so far, and goes on in "
            f"{', '.join(sorted(now))}; every record names its own"
        )
    return lines


def _line(isolation: Isolation, where: str) -> str:
    gaps = f"; it leaves open: {'; '.join(isolation.gaps)}" if isolation.gaps else ""
    match isolation.tier:
        case None:
            return f"warning: evaluations{where} will fail: {' '.join(isolation.why.split())}"
        case "A":
            return f"isolation{where}: tier A ({_WORDS['A']}){gaps}"
        case "B":
            return f"isolation{where}: tier B ({_WORDS['B']}), because {isolation.why}{gaps}"
        case "C":
            return (
                f"warning: isolation{where}: tier C ({_WORDS['C']}), for servers made of this checkout's own files "
                f"only, because {isolation.why}; {isolation.cure}"
            )


def is_own(*folders: Path) -> bool:
    """Whether these folders, and everything they link to, are parts of this checkout."""
    root = CHECKOUT.resolve()
    return all(
        path.resolve().is_relative_to(root)
        for folder in folders
        for path in (folder, *(p for p in folder.rglob("*") if p.is_symlink()))
    )


def is_own_seed(folder: Path, target: Path) -> bool:
    """Whether a folder has the contents of a seed of this checkout: an example's, `init`'s, or that of `target`."""
    seeds = [CHECKOUT / "vibeserve" / "templates" / "target" / "seed", *CHECKOUT.glob("examples/*/seed")]
    seeds += [target / "seed"] if is_own(target) else []
    return any(seed.is_dir() and is_own(seed) and same(seed, folder) for seed in seeds)


def same(folder: Path, copy: Path) -> bool:
    """Whether a copy has the contents of the original still."""
    return digest(folder) == digest(copy)


def is_mechanical(operators: Iterable[Operator]) -> bool:
    """Whether children made so hold nothing but what their sources held."""
    return _MECHANICAL.issuperset(operators)
