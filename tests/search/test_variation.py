"""Knob variation stays within range and type, keeps the scale, and always changes something."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from population.genome import Knob, KnobValue
from search.variation import VariationConfig, from_unit, to_unit, variations

CONFIG = VariationConfig()


@st.composite
def knobs(draw: st.DrawFn) -> Knob:
    kind = draw(st.sampled_from(["int", "float", "choice"]))
    if kind == "choice":
        every: list[KnobValue] = [1, 2, 4, "a", "b"]
        choices = tuple(draw(st.lists(st.sampled_from(every), min_size=2, max_size=4, unique=True)))
        return Knob(value=draw(st.sampled_from(choices)), type="choice", choices=choices)
    scale: Literal["linear", "log"] = draw(st.sampled_from(("linear", "log")))
    if kind == "int":
        low = draw(st.integers(1, 50))
        high = draw(st.integers(low + 1, low + 1000))
        return Knob(value=draw(st.integers(low, high)), type="int", low=low, high=high, scale=scale)
    start = draw(st.floats(0.01, 10))
    end = start * draw(st.floats(1.5, 100))
    return Knob(value=draw(st.floats(start, end)), type="float", low=start, high=end, scale=scale)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from("abcd"), knobs(), min_size=1), st.integers(0, 1000), st.booleans())
def test_changes_are_admitted_and_real(made: dict[str, Knob], seed: int, crossed: bool) -> None:
    mate = {n: replace(k, value=from_unit(k, 0.9)) for n, k in made.items()} if crossed else {}
    found = variations(made, [mate, {}, mate], CONFIG, np.random.default_rng(seed))
    assert len(found) == 3
    for changed in found:
        assert changed
        assert changed.keys() <= made.keys()
        for name, value in changed.items():
            assert made[name].admits(value)
            assert value != made[name].value
    assert found == variations(made, [mate, {}, mate], CONFIG, np.random.default_rng(seed))


@settings(deadline=None)
@given(knobs())
def test_units_go_there_and_back(knob: Knob) -> None:
    unit = to_unit(knob, knob.value)
    assert 0 <= unit <= 1
    back = from_unit(knob, unit)
    assert back == knob.value if knob.type != "float" else abs(float(back) / float(knob.value) - 1) < 1e-9


def test_a_logarithmic_knob_is_centred_on_its_geometric_mean() -> None:
    knob = Knob(value=8, type="int", low=1, high=64, scale="log")
    assert from_unit(knob, 0.5) == 8
    assert from_unit(Knob(value=8, type="int", low=0, high=64), 0.5) == 32


def test_a_knob_without_room_gives_nothing() -> None:
    fixed = Knob(value=3, type="int", low=3, high=3)
    assert variations({"a": fixed}, [{}, {}], CONFIG, np.random.default_rng(0)) == [{}, {}]
    assert variations({}, [{}], CONFIG, np.random.default_rng(0)) == [{}]
    assert variations({"a": replace(fixed, high=9)}, [], CONFIG, np.random.default_rng(0)) == []
