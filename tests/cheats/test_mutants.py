"""Each check is needed: without it, the cheat that it is for gets through."""

from __future__ import annotations

import pytest

from tests.cheats.corpus import load_corpus
from tests.cheats.ground import Ground
from tests.cheats.mutants import MUTANTS, Mutant, problems

CHEATS = {cheat.name: cheat for cheat in load_corpus()[0]}


def test_every_mutant_names_a_cheat_and_a_check_of_its_own() -> None:
    assert {mutant.cheat for mutant in MUTANTS} <= set(CHEATS)
    assert len({mutant.check for mutant in MUTANTS}) == len(MUTANTS)


@pytest.mark.parametrize("mutant", [m for m in MUTANTS if m.sample], ids=lambda mutant: mutant.check)
def test_without_the_check_its_cheat_gets_through(mutant: Mutant, ground: Ground) -> None:
    assert problems(mutant, CHEATS[mutant.cheat], ground) == []
