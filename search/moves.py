"""Decides what can be proposed from a parent: every recipe, knob change and merge that applies and is not known yet."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from population.candidate import Operator
from population.genome import KnobValue
from search.history import Key, Point, point
from search.landscape import Landscape
from search.pedigree import Pedigree
from search.variation import VariationConfig, to_unit, variations

_UNMADE = -1
"""Stands for the number of a child that does not exist yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """A possible proposal, before it gets a number."""

    operator: Operator
    parents: tuple[str, ...]
    recipe: str | None = None
    knobs: Mapping[str, KnobValue] = field(default_factory=dict)
    pedigree: Pedigree
    """Of the child."""
    at: Point
    """Where the child lies for the surrogate."""
    risky: bool = False
    """A merge of two lineages that changed a common component."""

    @property
    def kind(self) -> str:
        """Under which name outcomes of moves like this are remembered; see `history.label`."""
        return f"recipe:{self.recipe}" if self.operator is Operator.RECIPE else str(self.operator)


def recipe_moves(land: Landscape, parent: str, taken: Container[Key]) -> list[Move]:
    """Every recipe that applies to the parent and whose result is unknown, in order of name."""
    genome, pedigree, here = land.genome(parent), land.pedigree(parent), land.at(parent)
    moves = []
    for name in sorted(land.descent.recipes):
        if not land.descent.recipes[name].applies(genome):
            continue
        child = land.descent.with_recipe(pedigree, name, {})
        # A recipe that provides no capability still applies to its own result, where it is pointless.
        if name in pedigree.recipes or child in taken or (name, (parent,)) in taken:
            continue
        at = point(child, here.knobs)
        moves.append(Move(operator=Operator.RECIPE, parents=(parent,), recipe=name, pedigree=child, at=at))
    return moves


def merge_moves(
    land: Landscape, parent: str, mates: Sequence[str], taken: Container[Key], resolves: bool = False
) -> list[Move]:
    """Merges with mates of which neither contains the other, without a known result, and without a predicted conflict
    unless somebody `resolves` it."""
    mine, here = land.pedigree(parent), land.at(parent)
    moves = []
    for mate in mates:
        theirs = land.pedigree(mate)
        child = mine | theirs
        if mate == parent or child in (mine, theirs) or child in taken:
            continue
        pair = (Operator.MERGE, tuple(sorted((parent, mate))))
        conflict = land.descent.conflict(mine, theirs)
        if pair in taken or (conflict and not resolves):
            continue
        at = point(child, {**land.at(mate).knobs, **here.knobs, **_set_by(land, mate, theirs)})
        risky = conflict or land.descent.overlap(mine, theirs)
        moves.append(Move(operator=Operator.MERGE, parents=(parent, mate), pedigree=child, at=at, risky=risky))
    return moves


def tune_moves(
    land: Landscape,
    parent: str,
    mates: Sequence[str],
    taken: Container[Key],
    draws: tuple[int, VariationConfig],
    rng: np.random.Generator,
) -> list[Move]:
    """Up to `draws[0]` different knob changes, half of them crossed with a random mate's knobs."""
    knobs, pedigree, here = land.knobs(parent), land.pedigree(parent), land.at(parent)
    others = [land.knobs(mates[i]) for i in rng.integers(len(mates), size=draws[0] // 2).tolist()] if mates else []
    values = {name: knob.value for name, knob in knobs.items()}
    moves: dict[Pedigree, Move] = {}
    for changed in variations(knobs, [*others, *[{}] * (draws[0] - len(others))], draws[1], rng):
        whole = Pedigree(pedigree.recipes, frozenset({**values, **changed}.items()), pedigree.edits)
        if not changed or whole in taken or whole in moves:
            continue
        settings = frozenset(s for s in pedigree.settings if s[0] not in changed) | frozenset(changed.items())
        child = Pedigree(pedigree.recipes, settings, pedigree.edits)
        if child in taken:
            continue
        units = {**here.knobs, **{name: to_unit(knobs[name], value) for name, value in changed.items()}}
        at = point(child, units)
        moves[whole] = Move(operator=Operator.TUNE, parents=(parent,), knobs=changed, pedigree=child, at=at)
    return list(moves.values())


def _set_by(land: Landscape, member: str, pedigree: Pedigree) -> dict[str, float]:
    knobs = land.knobs(member)
    return {name: to_unit(knobs[name], value) for name, value in pedigree.settings if name in knobs}


def agent_move(land: Landscape, parent: str) -> Move:
    """A free edit: what comes of it is known by nothing but where it starts, and it may be proposed again."""
    pedigree, here = land.pedigree(parent), land.at(parent)
    child = Pedigree(pedigree.recipes, pedigree.settings, pedigree.edits | {_UNMADE})
    return Move(operator=Operator.AGENT, parents=(parent,), pedigree=child, at=point(child, here.knobs))


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveConfig:
    """Which operators may be used, and how many draws an operator with a continuum gets."""

    operators: tuple[Operator, ...] = (Operator.RECIPE, Operator.TUNE, Operator.MERGE)
    """Operators of the search; the order breaks ties."""
    tune_draws: int = 10
    """Knob variations drawn per parent and proposal."""
    variation: VariationConfig = field(default_factory=VariationConfig)
    resolves: bool = False
    """Whether somebody resolves merges that conflict, so that they are worth proposing."""


def steps_only(config: MoveConfig) -> MoveConfig:
    """Without leaps, for who does not compare moves: most of those that go anywhere end badly."""
    return replace(config, variation=replace(config.variation, leap=0.0))


def moves_from(
    land: Landscape,
    parent: str,
    mates: Sequence[str],
    taken: Container[Key],
    config: MoveConfig,
    rng: np.random.Generator,
) -> list[Move]:
    """Everything that can be proposed from the parent, in the order of the operators."""
    moves: list[Move] = []
    for operator in config.operators:
        if operator is Operator.RECIPE:
            moves += recipe_moves(land, parent, taken)
        elif operator is Operator.TUNE:
            moves += tune_moves(land, parent, mates, taken, (config.tune_draws, config.variation), rng)
        elif operator is Operator.MERGE:
            moves += merge_moves(land, parent, mates, taken, config.resolves)
        elif operator is Operator.AGENT:
            moves.append(agent_move(land, parent))
    return moves
