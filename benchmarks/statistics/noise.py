"""Decides what measuring one unchanged server again and again looks like; logarithms, in units of the noise sigma."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Rng = np.random.Generator


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Independent measurements: `draw(rng, shape)` has mean 0 and standard deviation 1."""

    name: str
    draw: Callable[[Rng, tuple[int, ...]], FloatArray]


OUTLIERS = 0.05
OUTLIER_SIGMAS = 5.0


def _outliers(rng: Rng, shape: tuple[int, ...]) -> FloatArray:
    raw = rng.standard_normal(shape) + OUTLIER_SIGMAS * (rng.random(shape) < OUTLIERS)
    scale = np.sqrt(1 + OUTLIER_SIGMAS**2 * OUTLIERS * (1 - OUTLIERS))
    return np.asarray((raw - OUTLIER_SIGMAS * OUTLIERS) / scale, dtype=np.float64)


NORMAL = Shape(name="log-normal", draw=lambda rng, shape: rng.standard_normal(shape))
HEAVY = Shape(name="heavy tails (t, 3 df)", draw=lambda rng, shape: rng.standard_t(3, shape) / np.sqrt(3))
SKEWED = Shape(name="skewed (exponential)", draw=lambda rng, shape: rng.standard_exponential(shape) - 1)
SHAPES = (NORMAL, HEAVY, SKEWED, Shape(name="5 % outliers of +5 sigma", draw=_outliers))


Series = Callable[[Rng, int, int], FloatArray]
"""(rng, trials, length) → (trials, length): successive measurements on one machine."""


def _independent(shape: Shape) -> Series:
    return lambda rng, trials, length: shape.draw(rng, (trials, length))


def _linear(rng: Rng, trials: int, length: int) -> FloatArray:
    return np.asarray(rng.standard_normal((trials, length)) + 0.5 * np.arange(length), dtype=np.float64)


def _walk(rng: Rng, trials: int, length: int) -> FloatArray:
    steps = 0.5 * rng.standard_normal((trials, length))
    return np.asarray(rng.standard_normal((trials, length)) + steps.cumsum(axis=1), dtype=np.float64)


def _second_slower(rng: Rng, trials: int, length: int) -> FloatArray:
    return np.asarray(rng.standard_normal((trials, length)) + 1.0 * (np.arange(length) % 2), dtype=np.float64)


SERIES: Mapping[str, Series] = {
    **{shape.name: _independent(shape) for shape in SHAPES},
    "linear drift, 0.5 sigma a measurement": _linear,
    "random walk, 0.5 sigma a measurement": _walk,
    "the second of a pair is 1 sigma slower": _second_slower,
}


class Machine:
    """Measures an unchanged server: log-normal noise per metric, slow drift of the whole machine, rare slow spells.

    All disturbances are factors of slowness: they raise latencies and lower throughput. `drift` is the standard
    deviation of an AR(1) process (0.95 from one measurement to the next); a spell hits 3 % of the measurements and
    costs 5 to 40 %. None of it is flagged: what a noise check would discard stays in.
    """

    DRIFT = 0.02
    MEMORY = 0.95
    SPELLS = 0.03
    SPELL = (0.05, 0.4)

    def __init__(self, noise_M: FloatArray, rng: Rng) -> None:
        """`noise_M`: standard deviation of the logarithm of each metric."""
        self._noise_M, self._rng = noise_M, rng
        self._drift = self.DRIFT * rng.standard_normal()

    def slowness(self) -> FloatArray:
        """Logarithms (M,) of how much slower than its mean the server looks this time."""
        fresh = self.DRIFT * np.sqrt(1 - self.MEMORY**2) * self._rng.standard_normal()
        self._drift = self.MEMORY * self._drift + fresh
        spell = self._rng.uniform(*self.SPELL) if self._rng.random() < self.SPELLS else 0.0
        noise_M = self._noise_M * self._rng.standard_normal(len(self._noise_M))
        return np.asarray(noise_M + self._drift + spell, dtype=np.float64)
