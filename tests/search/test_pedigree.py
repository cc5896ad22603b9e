"""Pedigrees foresee duplicates and merge conflicts."""

from __future__ import annotations

from population.candidate import Operator, Proposal
from population.recipe import Recipe
from search.pedigree import Descent, Pedigree


def recipe(name: str, *files: str, replaces: tuple[str, ...] = (), conflicts: tuple[str, ...] = ()) -> Recipe:
    return Recipe(
        name=name,
        summary=name,
        components={},
        provides=(name,),
        conflicts=conflicts,
        replaces=replaces,
        files=dict.fromkeys(files, ""),
    )


DESCENT = Descent(
    {
        r.name: r
        for r in (
            recipe("a", "model.py"),
            recipe("b", "scheduler.py"),
            recipe("c", "model.py"),
            recipe("whole", "model.py", "model.toml", replaces=("model",)),
            recipe("picky", "sampler.py", conflicts=("b",)),
        )
    }
)
SEED = {"s": Pedigree()}


def made(*names: str) -> Pedigree:
    pedigree = Pedigree()
    for name in names:
        pedigree = DESCENT.with_recipe(pedigree, name, {})
    return pedigree


def test_the_order_of_independent_recipes_does_not_matter() -> None:
    assert made("a", "b") == made("b", "a")


def test_a_replaced_component_forgets_its_edits_and_knobs() -> None:
    tuned = Pedigree(frozenset({"a", "b"}), frozenset({("model.x", 1), ("scheduler.y", 2)}))
    assert DESCENT.with_recipe(tuned, "whole", {}) == Pedigree(
        frozenset({"b", "whole"}), frozenset({("scheduler.y", 2)})
    )
    assert made("whole", "a") != made("a", "whole")


def test_a_merge_unites_and_a_free_edit_is_a_tree_of_its_own() -> None:
    parents = {"x": made("a"), "y": made("b")}
    merge = Proposal(number=5, operator=Operator.MERGE, parents=("x", "y"))
    assert DESCENT.child(merge, parents) == made("a", "b")
    edits = [DESCENT.child(Proposal(number=n, operator=Operator.AGENT, parents=("x",)), parents) for n in (6, 7)]
    assert edits[0] != edits[1]
    assert DESCENT.child(merge, SEED) is None


def test_the_last_value_of_a_knob_counts() -> None:
    tune = [Proposal(number=n, operator=Operator.TUNE, parents=("s",), knobs={"m.k": v}) for n, v in ((1, 4), (2, 8))]
    first = DESCENT.child(tune[0], SEED)
    assert first is not None
    assert DESCENT.child(tune[1], {"s": first}) == DESCENT.child(tune[1], SEED)


def test_conflicts_are_foreseen() -> None:
    assert DESCENT.conflict(made("whole"), made("a"))
    assert not DESCENT.conflict(made("whole", "a"), made("whole", "b"))
    assert not DESCENT.conflict(made("a"), made("c"))
    assert DESCENT.overlap(made("a"), made("c"))
    assert not DESCENT.overlap(made("a"), made("b"))
    assert DESCENT.conflict(made("picky"), made("b"))
    knob = [Pedigree(settings=frozenset({("m.k", value)})) for value in (1, 2)]
    assert DESCENT.conflict(*knob)
