"""Decides new knob values: polynomial mutation and simulated binary crossover over declared knobs, in their own scale.

Int and float knobs are varied in [0, 1] (logarithmic when declared so) by pymoo's operators (Deb & Agrawal 1995;
Deb & Goyal 1996); a choice knob takes another of its choices. Every answer is admitted by its knob and differs from
the parent in at least one knob, if that is possible at all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from pymoo.operators.crossover.sbx import cross_sbx
from pymoo.operators.mutation.pm import mut_pm

from population.genome import Knob, KnobValue


@dataclass(frozen=True, slots=True, kw_only=True)
class VariationConfig:
    """Of SBX and polynomial mutation."""

    crossover_eta: float = 5.0
    """Distribution index of SBX; larger stays closer to the parents."""
    mutation_eta: float = 3.0
    """Distribution index of polynomial mutation; larger makes smaller steps. 3 spans about a quarter of the range."""
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


def vary(
    knobs: Mapping[str, Knob], mate: Mapping[str, Knob], config: VariationConfig, rng: np.random.Generator
) -> dict[str, KnobValue]:
    """Changed knobs only: `component.knob` → new value; {} when nothing can change.

    Args:
        knobs: the parent's knobs.
        mate: another member's knobs; those with the same name and type take part in the crossover. May be empty.
    """
    names = sorted(name for name, knob in knobs.items() if _movable(knob))
    if not names:
        return {}
    dials, eta_m = [name for name in names if knobs[name].trades], config.mutation_eta
    if dials and rng.random() < config.dial_bias:
        names, eta_m = dials, config.dial_eta
    start = np.array([to_unit(knobs[n], knobs[n].value) for n in names])
    other = np.array([_mate_unit(knobs[n], mate.get(n), u) for n, u in zip(names, start, strict=True)])
    zero, one = np.zeros(len(names)), np.ones(len(names))
    units = start
    if (other != start).any():
        eta, prob = np.full((1, 1), config.crossover_eta), np.full((1, 1), 0.5)
        units = cross_sbx(np.array([[start], [other]]), zero, one, eta, prob, prob, random_state=rng)[0][0]
    mutated = mut_pm(units[None], zero, one, np.full(1, eta_m), np.full(1, 1 / len(names)), True, random_state=rng)[0]
    values = {
        n: _other_choice(knobs[n], u, rng) if u != s else knobs[n].value
        for n, u, s in zip(names, mutated, start, strict=True)
    }
    changed = {n: v for n, v in values.items() if v != knobs[n].value}
    return changed or _nudge(knobs, names, rng)


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
