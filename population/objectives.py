"""Decides what better means: objectives with unit and direction, and the one place where direction becomes a sign.

Everything downstream (search, archive, indicators) works on *costs*: natural logarithms, to be minimised. A difference
of costs is a log ratio, so noise margins and hypervolume are relative, as the measurements are.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from population.errors import ConfigError
from population.statistics import Estimate

FloatArray = npt.NDArray[np.float64]


class Direction(StrEnum):
    """Which way is better."""

    MAX = "max"
    MIN = "min"


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """One objective. `name` is a benchmark metric; with `loads` it is the geometric mean of `name@load` over them."""

    name: str
    direction: Direction
    unit: str | None = None
    loads: tuple[str, ...] = ()
    relative_noise: float = 0.05
    """Standard deviation of one measurement relative to its value; used while n = 1."""

    def cost(self, value: float) -> float:
        """Natural logarithm, signed so that less is better; +inf for zero throughput or infinite latency."""
        if self.direction is Direction.MAX:
            return -math.log(value) if value > 0 else math.inf
        return math.log(value) if value > 0 else -math.inf

    def value(self, cost: float) -> float:
        """The inverse of `cost`."""
        return math.exp(-cost if self.direction is Direction.MAX else cost)

    def gain(self, value: float, baseline: float) -> float:
        """How many times better `value` is than `baseline`; > 1 is better whatever the direction."""
        return math.exp(self.cost(baseline) - self.cost(value))


@dataclass(frozen=True, slots=True)
class ObjectiveSet:
    """The ordered objectives of a target; array axis M below is this order."""

    objectives: tuple[Objective, ...]

    def __iter__(self) -> Iterator[Objective]:
        return iter(self.objectives)

    def __len__(self) -> int:
        return len(self.objectives)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(objective.name for objective in self.objectives)

    def costs(self, estimates: Mapping[str, Estimate]) -> FloatArray:
        """Costs (M,) of the central values."""
        return np.array([o.cost(estimates[o.name].value) for o in self.objectives])

    def cost_bounds(self, estimates: Mapping[str, Estimate]) -> tuple[FloatArray, FloatArray]:
        """Optimistic and pessimistic costs, each (M,), from the ends of every interval."""
        ends = np.array([[o.cost(estimates[o.name].low), o.cost(estimates[o.name].high)] for o in self.objectives])
        return ends.min(axis=1), ends.max(axis=1)


def objective_samples(objective: Objective, samples: Mapping[str, Sequence[float]]) -> tuple[float, ...]:
    """One value per repeat: the metric's samples, or the geometric mean of `name@load` over the objective's loads.

    An infinite or zero sample of one load is infinite or zero for all; the worse of the two if both occur.

    Raises:
        ConfigError: the metric was not measured, or a load has another number of repeats.
    """
    keys = [f"{objective.name}@{load}" for load in objective.loads] or [objective.name]
    missing = [key for key in keys if not samples.get(key)]
    if missing:
        known = ", ".join(sorted(samples)) or "none"
        raise ConfigError(
            f"objective '{objective.name}' needs the metric {', '.join(missing)}, which the benchmark did not report; "
            f"reported: {known}. Correct 'name' and 'loads' in objectives.toml, or the benchmark"
        )
    counts = {key: len(samples[key]) for key in keys}
    if len(set(counts.values())) > 1:
        raise ConfigError(f"objective '{objective.name}' needs as many repeats of every load, got {counts}")
    if len(keys) == 1:
        return tuple(samples[keys[0]])
    return tuple(_geometric_mean(objective, repeat) for repeat in zip(*(samples[key] for key in keys), strict=True))


def _geometric_mean(objective: Objective, values: Sequence[float]) -> float:
    worst = max(values, key=objective.cost)
    if worst == 0 or math.isinf(worst):
        return worst
    best = min(values, key=objective.cost)
    if best == 0 or math.isinf(best):
        return best
    return math.exp(math.fsum(math.log(value) for value in values) / len(values))


_FIELDS = {"name", "direction", "unit", "loads", "relative_noise"}


def load_objectives(path: Path) -> ObjectiveSet:
    """Read `objectives.toml`: `[[objective]] name, direction, unit?, loads?, relative_noise?`, `[pareto]` likewise.

    Raises:
        ConfigError: with every defect of the file.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    unknown = [key for key in data if key not in ("objective", "pareto")]
    problems = [f"{path}: unknown table '{key}'; expected [[objective]] and [pareto]" for key in unknown]
    pareto = data.get("pareto", {})
    if isinstance(pareto, dict):
        problems += [
            f"{path}: [pareto]: unknown key '{k}'; expected relative_noise" for k in pareto if k != "relative_noise"
        ]
    default_noise = _noise(data.get("pareto", {}), f"{path}: [pareto]", 0.05, problems)
    entries = data.get("objective", [])
    if not isinstance(entries, list) or not entries:
        problems.append(f"{path}: expected at least one [[objective]] table, found none")
        entries = []
    objectives = [
        _objective(e, f"{path}: [[objective]] {i + 1}", default_noise, problems) for i, e in enumerate(entries)
    ]
    names = [o.name for o in objectives if o is not None]
    problems += [
        f"{path}: objective '{n}' is declared {names.count(n)} times" for n in sorted(set(names)) if names.count(n) > 1
    ]
    if problems:
        raise ConfigError(problems)
    return ObjectiveSet(tuple(o for o in objectives if o is not None))


def _objective(entry: Any, where: str, default_noise: float, problems: list[str]) -> Objective | None:
    if not isinstance(entry, dict):
        problems.append(f"{where}: expected a table, got {entry!r}")
        return None
    before = len(problems)
    problems += [
        f"{where}: unknown key '{k}'; expected one of {', '.join(sorted(_FIELDS))}" for k in entry if k not in _FIELDS
    ]
    name, direction, unit = entry.get("name"), entry.get("direction"), entry.get("unit")
    if not isinstance(name, str) or not name:
        problems.append(f"{where}: 'name' must be a metric name such as 'output_throughput', got {name!r}")
    if direction not in ("max", "min"):
        problems.append(f"{where}: 'direction' must be 'max' or 'min', got {direction!r}")
    if unit is not None and not isinstance(unit, str):
        problems.append(f"{where}: 'unit' must be a string such as 'ms', got {unit!r}")
    loads = entry.get("loads", [])
    if not isinstance(loads, list) or not all(isinstance(load, str) for load in loads):
        problems.append(f"{where}: 'loads' must be a list of load names of target.toml, got {loads!r}")
    noise = _noise(entry, where, default_noise, problems)
    if len(problems) > before:
        return None
    return Objective(
        name=str(name), direction=Direction(str(direction)), unit=unit, loads=tuple(loads), relative_noise=noise
    )


def _noise(table: Any, where: str, default: float, problems: list[str]) -> float:
    noise = table.get("relative_noise", default) if isinstance(table, dict) else None
    if isinstance(noise, bool) or not isinstance(noise, int | float) or not 0 < noise < 1:
        problems.append(f"{where}: 'relative_noise' must be a number between 0 and 1, got {noise!r}")
        return default
    return float(noise)
