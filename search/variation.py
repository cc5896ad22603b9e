"""Decides new knob values: polynomial mutation and simulated binary crossover over declared knobs, in their own scale.

Int and float knobs are varied in [0, 1] (logarithmic when declared so; Deb & Agrawal 1995, Deb & Goyal 1996); a choice
knob takes another of its choices. Every answer is admitted by its knob and differs from the parent in at least one
knob, if that is possible at all. All variations of a parent are drawn at once: one by one, as pymoo's operators would
have it, they cost more than the rest of a proposal. A share of the draws leaps anywhere, so that a surrogate can choose
between near and far. Axes D: draws, K: knobs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from population.genome import Knob, KnobValue

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class VariationConfig:
    """Of SBX and polynomial mutation."""

    crossover_eta: float = 5.0
    """Distribution index of SBX; larger stays closer to the parents."""
    mutation_eta: float = 3.0
    """Distribution index of polynomial mutation; larger makes smaller steps. 3 spans about a quarter of the range."""
    leap: float = 0.2
    """Probability 0..1 that a move sets every knob that it may move to any value, instead of a step from the parent."""
    dial_bias: float = 0.5
    """Probability 0..1 that only knobs move that trade one objective for another (`Knob.trades`), if there are any."""
    dial_eta: float = 1.0
    """`mutation_eta` of such a move: the ends of the front are far apart."""


def to_unit(knob: Knob, value: KnobValue) -> float:
    """Position 0..1 of a value in its knob's range; choices are spread evenly."""
    if knob.type == "choice":
        return knob.choices.index(value) / max(1, len(knob.choices) - 1) if value in knob.choices else 0.0
    low, high, number = _range(knob, float(value))
    return 0.0 if high == low else min(1.0, max(0.0, (number - low) / (high - low)))


def from_unit(knob: Knob, unit: float) -> KnobValue:
    """The nearest value that the knob admits."""
    if knob.type == "choice":
        return knob.choices[round(unit * (len(knob.choices) - 1))]
    low, high, _ = _range(knob, knob.low or 0.0)
    number = low + unit * (high - low)
    return _clip(knob, math.exp(number) if _logarithmic(knob) else number)


def variations(
    knobs: Mapping[str, Knob],
    mates: Sequence[Mapping[str, Knob]],
    config: VariationConfig,
    rng: np.random.Generator,
) -> list[dict[str, KnobValue]]:
    """One variation per mate, changed knobs only: `component.knob` → new value; {} when nothing can change.

    Args:
        knobs: the parent's knobs.
        mates: other members' knobs; those with the same name and type take part in the crossover. May be empty ones.
    """
    names = sorted(name for name, knob in knobs.items() if _movable(knob))
    if not names or not mates:
        return [{} for _ in mates]
    dial_K = np.array([knobs[name].trades for name in names])
    # Which genes of every draw may move: only the dials, or all.
    dials_D = (rng.random(len(mates)) < config.dial_bias) if dial_K.any() else np.zeros(len(mates), dtype=bool)
    allowed_DK = np.where(dials_D[:, None], dial_K, True)
    start_K = np.array([to_unit(knobs[n], knobs[n].value) for n in names])
    # Few mates serve many draws: each is looked at once.
    units = {
        key: [_mate_unit(knobs[n], mate.get(n), u) for n, u in zip(names, start_K, strict=True)]
        for key, mate in {id(mate): mate for mate in mates}.items()
    }
    other_DK = np.array([units[id(mate)] for mate in mates])
    crossed_DK = np.where(allowed_DK, _crossover(start_K, other_DK, config.crossover_eta, rng), start_K)
    eta_D = np.where(dials_D, config.dial_eta, config.mutation_eta)
    units_DK = _mutation(crossed_DK, allowed_DK, eta_D[:, None], rng)
    leaps_DK = (rng.random((len(mates), 1)) < config.leap) & allowed_DK
    units_DK = np.where(leaps_DK, rng.random(units_DK.shape), units_DK)
    return [
        _changed(knobs, names, units_K, start_K, rng)
        or _nudge(knobs, [names[i] for i in np.flatnonzero(allowed_K)], rng)
        for units_K, allowed_K in zip(units_DK, allowed_DK, strict=True)
    ]


def _changed(
    knobs: Mapping[str, Knob], names: Sequence[str], units_K: FloatArray, start_K: FloatArray, rng: np.random.Generator
) -> dict[str, KnobValue]:
    moved = np.flatnonzero(units_K != start_K).tolist()
    values = {names[i]: _other_choice(knobs[names[i]], float(units_K[i]), rng) for i in moved}
    return {name: value for name, value in values.items() if value != knobs[name].value}


def _crossover(start_K: FloatArray, other_DK: FloatArray, eta: float, rng: np.random.Generator) -> FloatArray:
    """One child (D, K) per mate by bounded SBX on [0, 1]: half of the genes that differ, on either parent's side."""
    low, high = np.minimum(start_K, other_DK), np.maximum(start_K, other_DK)
    apart = high - low
    crossed = (apart > 1e-10) & (rng.random(apart.shape) < 0.5)
    if not crossed.any():
        return np.broadcast_to(start_K, apart.shape)
    upper, drawn = rng.random(apart.shape) < 0.5, rng.random(apart.shape)
    room = np.where(upper, 1 - high, low)  # to the bound on the side of the child
    alpha = 2.0 - (1.0 + 2.0 * room / np.where(crossed, apart, 1.0)) ** -(eta + 1.0)
    inside = drawn <= 1.0 / alpha
    spread = np.where(inside, drawn * alpha, 1.0 / (2.0 - np.where(inside, 0.0, drawn * alpha))) ** (1.0 / (eta + 1.0))
    child = 0.5 * (low + high + np.where(upper, spread, -spread) * apart)
    found: FloatArray = np.where(crossed, np.clip(child, 0.0, 1.0), start_K)
    return found


def _mutation(
    units_DK: FloatArray, allowed_DK: npt.NDArray[np.bool_], eta_D1: FloatArray, rng: np.random.Generator
) -> FloatArray:
    """Bounded polynomial mutation on [0, 1] of about one allowed gene per draw, and at least one."""
    rolls = np.where(allowed_DK, rng.random(units_DK.shape), 2.0)
    moved = rolls < 1.0 / allowed_DK.sum(axis=1, keepdims=True)
    moved[np.arange(len(rolls)), rolls.argmin(axis=1)] = True
    drawn, power = rng.random(units_DK.shape), eta_D1 + 1.0
    down = drawn < 0.5
    far = (1.0 - np.where(down, units_DK, 1.0 - units_DK)) ** power
    near = np.where(down, drawn, 1.0 - drawn)
    step = 1.0 - (2.0 * near + (1.0 - 2.0 * near) * far) ** (1.0 / power)
    found: FloatArray = np.where(moved, np.clip(units_DK + np.where(down, -step, step), 0.0, 1.0), units_DK)
    return found


def _nudge(knobs: Mapping[str, Knob], names: list[str], rng: np.random.Generator) -> dict[str, KnobValue]:
    """The smallest step of one knob, for when rounding undid the variation."""
    name = names[int(rng.integers(len(names)))]
    knob = knobs[name]
    if knob.type == "choice":
        return {name: _other_choice(knob, 0.0, rng)}
    sign = 1 if rng.random() < 0.5 else -1
    for step in (sign, -sign):
        value: KnobValue
        if knob.type == "int":
            value = _clip(knob, int(knob.value) + step)
        else:
            value = from_unit(knob, min(1.0, max(0.0, to_unit(knob, knob.value) + 0.05 * step)))
        if value != knob.value:
            return {name: value}
    return {}


def _other_choice(knob: Knob, unit: float, rng: np.random.Generator) -> KnobValue:
    if knob.type != "choice":
        return from_unit(knob, unit)
    others = [choice for choice in knob.choices if choice != knob.value]
    return others[int(rng.integers(len(others)))]


def _mate_unit(knob: Knob, mate: Knob | None, default: float) -> float:
    return to_unit(knob, mate.value) if mate is not None and mate.type == knob.type else default


def _movable(knob: Knob) -> bool:
    if knob.type == "choice":
        return len(set(knob.choices)) > 1
    assert knob.low is not None
    assert knob.high is not None
    return math.floor(knob.high) > math.ceil(knob.low) if knob.type == "int" else knob.high > knob.low


def _logarithmic(knob: Knob) -> bool:
    return knob.scale == "log" and knob.low is not None and knob.low > 0


def _range(knob: Knob, value: float) -> tuple[float, float, float]:
    assert knob.low is not None
    assert knob.high is not None
    if _logarithmic(knob):
        return math.log(knob.low), math.log(knob.high), math.log(max(value, knob.low))
    return knob.low, knob.high, value


def _clip(knob: Knob, number: float) -> KnobValue:
    assert knob.low is not None
    assert knob.high is not None
    if knob.type == "int":
        return min(math.floor(knob.high), max(math.ceil(knob.low), round(number)))
    return min(knob.high, max(knob.low, number))
