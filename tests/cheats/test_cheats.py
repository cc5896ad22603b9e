"""Every cheat is stopped where its fixture says, with and without diff inspection; every honest twin passes."""

from __future__ import annotations

import pytest

from evaluators.isolation import choose
from population.errors import IsolationError
from population.evaluation import Stage
from tests.cheats.corpus import Cheat, Outcome, Tree, load_corpus
from tests.cheats.ground import Conditions, Ground, Trial

CHEATS, TWINS = load_corpus()
INSPECTED = [cheat for cheat in CHEATS if cheat.inspection]
UNINSPECTED = [cheat for cheat in CHEATS if not cheat.inspection]


@pytest.mark.parametrize("cheat", INSPECTED, ids=lambda cheat: cheat.name)
def test_inspection_sees_the_cheat(cheat: Cheat, ground: Ground) -> None:
    rejected = ground.inspect(cheat.tree)
    assert rejected is not None
    expected = Outcome(stages=(Stage.STATIC,), says=cheat.inspection)
    assert Trial(evaluation=rejected, effects=()).problems(expected) == []


def test_what_inspection_sees_never_runs(ground: Ground) -> None:
    cheat = next(cheat for cheat in INSPECTED if cheat.contained)
    expected = Outcome(stages=(Stage.STATIC,), says=cheat.inspection)
    assert ground.problems(cheat.tree, expected) == []


@pytest.mark.parametrize("cheat", CHEATS, ids=lambda cheat: cheat.name)
def test_the_cheat_is_stopped_where_inspection_is_blind(cheat: Cheat, ground: Ground, isolated: bool) -> None:
    if cheat.contained and not isolated:
        with pytest.raises(IsolationError):  # what only a sandbox stops does not run without one
            choose(allow_reduced=False, first_party=False)
        return
    assert ground.problems(cheat.tree, cheat.outcome, Conditions(blind=True)) == []


@pytest.mark.parametrize("cheat", UNINSPECTED, ids=lambda cheat: cheat.name)
def test_inspection_does_not_see_it(cheat: Cheat, ground: Ground) -> None:
    """Or the fixture should say so."""
    assert ground.inspect(cheat.tree) is None


@pytest.mark.parametrize("twin", TWINS.values(), ids=TWINS)
def test_the_honest_twin_passes(twin: Tree, ground: Ground) -> None:
    assert ground.problems(twin, Outcome(), Conditions(allow=twin.allow)) == []
