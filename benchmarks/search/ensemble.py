"""Lets simulated models write children for a budget in dollars, and prints what each way of choosing among them gains.

python -m benchmarks.search.ensemble [--seeds 200] [--first-seed 1000]

A model has a chance that a child gains anything, a size of such gains, and a price per child that varies. Gains shrink
as the search goes on, whoever writes. Several children are in flight, so results come late. Shown is the gain that was
to be expected as a share of what the best single model would have gained with the whole budget, which nobody knows
beforehand: mean over seeds, and the worst tenth. The defaults were tuned on seeds 0-59; those used here are others.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from search.bandit import BanditConfig, Pull, choose
from search.ensemble import EnsembleConfig, Trial, choose_model

Choose = Callable[[Mapping[str, float], Sequence[Trial], Mapping[str, int], np.random.Generator], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """How a simulated model writes."""

    chance: float
    """That a child gains anything."""
    gain: float
    """Mean of what such a child gains."""
    price: float
    """Mean dollars per child."""

    @property
    def rate(self) -> float:
        """Gain per dollar."""
        return self.chance * self.gain / self.price


WORLDS: dict[str, dict[str, Model]] = {
    "cheap is as good": {
        "large": Model(chance=0.3, gain=1.0, price=3.0),
        "small": Model(chance=0.3, gain=1.0, price=0.5),
    },
    "dear is worth it": {
        "large": Model(chance=0.4, gain=1.0, price=2.0),
        "small": Model(chance=0.02, gain=0.5, price=0.4),
    },
    "three alike but one": {
        "a": Model(chance=0.2, gain=1.0, price=1.0),
        "b": Model(chance=0.2, gain=1.0, price=1.0),
        "c": Model(chance=0.4, gain=1.0, price=1.0),
    },
    "rare and large": {
        "steady": Model(chance=0.5, gain=0.1, price=1.0),
        "lucky": Model(chance=0.05, gain=3.0, price=1.0),
    },
    "five": {
        name: Model(chance=chance, gain=1.0, price=price)
        for name, chance, price in (
            ("a", 0.1, 0.2), ("b", 0.2, 0.8), ("c", 0.3, 2.0), ("d", 0.35, 1.0), ("e", 0.05, 0.1)
        )
    },
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """What became of one budget."""

    gained: float
    """At the first child's gain: before gains shrink."""
    paid: float
    children: tuple[str, ...]
    """Models, in the order in which they were chosen."""
    regret: tuple[float, ...]
    """After each child: what the best model would have gained for the same dollars, less what was to be expected."""


def simulate(
    models: Mapping[str, Model], choose_one: Choose, rng: np.random.Generator, budget: float = 100.0, slots: int = 4
) -> Course:
    """One search. Children end in the order of their chosen durations, not of their beginning."""
    best = max(model.rate for model in models.values())
    shares = dict.fromkeys(models, 1.0)
    flying: list[tuple[float, Trial]] = []
    trials: list[Trial] = []
    chosen: list[str] = []
    regret: list[float] = []
    paid = gained = now = lost = 0.0
    while paid < budget:
        while len(flying) >= slots:
            flying.sort(key=lambda item: item[0])
            now, ended = flying.pop(0)
            trials.append(ended)
        name = choose_one(shares, trials, Counter(trial.model for _, trial in flying), rng)
        model = models[name]
        cost = model.price * rng.lognormal(-0.08, 0.4)
        size = model.gain * rng.exponential() if rng.random() < model.chance else 0.0
        paid, gained = paid + cost, gained + size
        lost += best * model.price - model.chance * model.gain
        regret.append(lost)
        chosen.append(name)
        shrunk = size * 0.5 ** (paid / budget * 3)
        flying.append((now + rng.lognormal(0, 0.7), Trial(model=name, gain=shrunk, cost=cost)))
    return Course(gained=gained, paid=paid, children=tuple(chosen), regret=tuple(regret))


def thompson(config: EnsembleConfig) -> Choose:
    return lambda shares, trials, flying, rng: choose_model(shares, trials, flying, config, rng)


def uniform(
    shares: Mapping[str, float], trials: Sequence[Trial], flying: Mapping[str, int], rng: np.random.Generator
) -> str:
    return list(shares)[int(rng.integers(len(shares)))]


def bound(config: BanditConfig) -> Choose:
    """The bandit that chooses operators, for comparison."""

    def one(
        shares: Mapping[str, float], trials: Sequence[Trial], flying: Mapping[str, int], rng: np.random.Generator
    ) -> str:
        return choose(list(shares), [Pull(arm=t.model, gain=t.gain, cost_s=t.cost) for t in trials], config)

    return one


def ways() -> dict[str, Choose]:
    default = EnsembleConfig()
    return {
        "uniform": uniform,
        "discounted UCB (search.bandit)": bound(BanditConfig()),
        "defaults": thompson(default),
        **{f"explore {e}": thompson(replace(default, explore=e)) for e in (0.0, 0.1, 0.2)},
        **{f"discount {d}": thompson(replace(default, discount=d)) for d in (0.95, 0.97, 1.0)},
        **{f"doubt {d}": thompson(replace(default, doubt=d)) for d in (1.0, 3.0, 12.0)},
        **{f"trials {t}": thompson(replace(default, trials=t)) for t in (0, 1, 4)},
    }


def share_of_best(models: Mapping[str, Model], way: Choose, seed: int) -> float:
    """Expected gain of the chosen models over that of the best one, for the same dollars."""
    course = simulate(models, way, np.random.default_rng(seed))
    expected = sum(models[name].chance * models[name].gain for name in course.children)
    paid = sum(models[name].price for name in course.children)
    return expected / paid / max(model.rate for model in models.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--first-seed", type=int, default=1000)
    given = parser.parse_args()
    seeds = range(given.first_seed, given.first_seed + given.seeds)
    print(f"| way | {' | '.join(WORLDS)} | all |")
    print(f"|---|{'---|' * (len(WORLDS) + 1)}")
    for label, way in ways().items():
        cells, means = [], []
        for models in WORLDS.values():
            found = np.array([share_of_best(models, way, seed) for seed in seeds])
            means.append(found.mean())
            cells.append(f"{found.mean():.2f} ({np.quantile(found, 0.1):.2f})")
        print(f"| {label} | {' | '.join(cells)} | {np.mean(means):.3f} |", flush=True)


if __name__ == "__main__":
    main()
