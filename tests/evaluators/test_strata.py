"""Strata of the audit: corners cut for one kind of token do not hide in the mean of all."""

from __future__ import annotations

from typing import Any

import pytest

from evaluators.strata import broken_halves
from evaluators.strict_json import Malformed

LIMITS = {"mean_gap": 0.01, "flip_rate": 0.1}
SHAPES = {f"r{n}": (8 if n < 5 else 64, 1 if n % 2 else 9) for n in range(10)}
WORSE = {
    "position in the answer: late": lambda n, position: position >= 10,
    "prompt length: long": lambda n, position: n >= 5,
    "occupancy: many served at once": lambda n, position: n % 2 == 0,
}


def report(gap: Any) -> dict[str, Any]:
    """Ten answers of 20 tokens, with `gap(answer, position)` each."""
    return {"per_response": [{"id": f"r{n}", "gaps": [gap(n, p) for p in range(20)]} for n in range(10)]}


@pytest.mark.parametrize("kind", WORSE)
def test_each_half_is_judged(kind: str) -> None:
    bad = WORSE[kind]
    # 0.018 in one half is 0.009 in all, within the limit of 0.01, and above the 0.0141 of a half.
    found = broken_halves(report(lambda n, p: 0.018 if bad(n, p) else 0.0), SHAPES, {"mean_gap": 0.01})
    assert found == [f"mean_gap 0.018 > 0.01414 ({kind}, 100 tokens)"]
    found = broken_halves(report(lambda n, p: 0.001 if bad(n, p) and p % 5 == 0 else 0.0), SHAPES, LIMITS)
    assert found == [f"flip_rate 0.2 > 0.1414 ({kind}, 100 tokens)"]


def test_halves_may_scatter() -> None:
    assert broken_halves(report(lambda n, p: 0.013 if n >= 5 else 0.005), SHAPES, {"mean_gap": 0.01}) == []
    assert broken_halves(report(lambda n, p: 1.0), SHAPES, {}) == []


def test_without_gaps_or_with_one_kind_only_nothing_is_said() -> None:
    assert broken_halves({"per_response": [{"id": "r0", "tokens": 3}]}, SHAPES, LIMITS) == []
    assert broken_halves({}, SHAPES, LIMITS) == []
    assert broken_halves({"per_response": [{"id": "r0", "gaps": [5.0]}]}, SHAPES, LIMITS) == []


@pytest.mark.parametrize("gaps", [[-1.0], [True], ["0"], 3, [float("nan")]])
def test_gaps_must_be_gaps(gaps: object) -> None:
    with pytest.raises(Malformed, match="'gaps' must be a list of numbers >= 0"):
        broken_halves({"per_response": [{"id": "r0", "gaps": gaps}]}, SHAPES, LIMITS)
