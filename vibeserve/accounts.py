"""Decides what a run has cost: tokens, dollars, wall time and GPU-hours, by child, by role and by model.

Everything is computed from the ledger's state, the target's GPUs and the run's prices. What one of them does not tell
is unknown, and a sum with an unknown part says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from population.errors import VibeServeError
from population.replay import State
from population.spending import Cost, Spending, summed
from vibeserve.agents.prices import Bill, Prices, bill, total
from vibeserve.agents.roles import EVALUATOR, JUDGE
from vibeserve.run_prices import run_prices

_READERS = frozenset({EVALUATOR, JUDGE})
"""Roles that write nothing of a child."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tariff:
    """What a run's accounts are computed with."""

    prices: Prices = field(default_factory=dict)
    gpus: int | None = None
    """Per evaluation; None: the run's target cannot be read."""

    @classmethod
    def of_run(cls, run_dir: Path) -> Tariff:
        """As far as the run's folder tells; a damaged table has no prices."""
        from evaluators.target import load_target

        try:
            gpus: int | None = load_target(run_dir / "target").resources.num_gpus
        except VibeServeError:
            gpus = None
        try:
            return cls(prices=run_prices(run_dir), gpus=gpus)
        except VibeServeError:
            return cls(gpus=gpus)

    def gpu_hours(self, evaluate_s: float) -> float | None:
        """What these evaluations have leased; None: not known."""
        return None if self.gpus is None else evaluate_s * self.gpus / 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What some children have cost."""

    children: int
    spent: tuple[Spending, ...]
    """One per role and model."""
    bill: Bill
    mutate_s: float
    evaluate_s: float
    gpu_hours: float | None

    @property
    def tokens(self) -> int:
        """Input and output of all models."""
        return sum(each.tokens for each in self.spent)

    @property
    def wall_s(self) -> float:
        """Of mutations and evaluations, summed: they run side by side."""
        return self.mutate_s + self.evaluate_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What a run has cost until now."""

    total: Entry
    """Re-measurements and final measurements among it."""
    roles: tuple[tuple[Spending, Bill], ...]
    """What each role has asked of each model."""
    models: Mapping[str, Entry]
    """Model → the children that it wrote, with everything that was spent on them."""
    children: Mapping[int, Entry]
    """Child number → its cost, for all that have taken anything."""


def account(state: State, tariff: Tariff) -> Account:
    """The account of a state."""
    by_model: dict[str, list[Cost]] = {}
    for cost in state.costs.values():
        if (writer := writer_of(cost)) is not None:
            by_model.setdefault(writer, []).append(cost)
    spendings = [spent for cost in state.costs.values() for spent in cost.spent]
    return Account(
        total=Entry(
            children=sum(number > 0 for number in state.archive.children),
            spent=tuple(state.spent.values()),
            bill=total(spendings, tariff.prices),
            mutate_s=state.mutate_s,
            evaluate_s=state.evaluate_s,
            gpu_hours=tariff.gpu_hours(state.evaluate_s),
        ),
        roles=tuple((each, _of_role(spendings, each, tariff.prices)) for each in state.spent.values()),
        models={model: entry_of(costs, tariff) for model, costs in by_model.items()},
        children={number: entry_of([cost], tariff) for number, cost in sorted(state.costs.items())},
    )


def writer_of(cost: Cost) -> str | None:
    """The model that wrote a child; of a merge, the one that resolved it. None: no model did."""
    writers = [spent.model for spent in cost.spent if spent.role not in _READERS]
    return writers[0] if writers else None


def entry_of(costs: Iterable[Cost], tariff: Tariff) -> Entry:
    """What these children have cost together."""
    listed = list(costs)
    evaluate_s = sum(cost.evaluate_s for cost in listed)
    return Entry(
        children=len(listed),
        spent=summed(spent for cost in listed for spent in cost.spent),
        bill=total((spent for cost in listed for spent in cost.spent), tariff.prices),
        mutate_s=sum(cost.mutate_s for cost in listed),
        evaluate_s=evaluate_s,
        gpu_hours=tariff.gpu_hours(evaluate_s),
    )


def _of_role(spendings: Iterable[Spending], role: Spending, prices: Prices) -> Bill:
    """By child, because a price may hold for short requests only."""
    found = Bill()
    for spent in spendings:
        if (spent.role, spent.model) == (role.role, role.model):
            found += bill(spent, prices)
    return found


# --- as JSON ----------------------------------------------------------------------------------------------------------


def account_json(found: Account) -> dict[str, Any]:
    """The object `spent` of `vibeserve status --json` (docs/agents.md)."""
    return {
        **entry_json(found.total),
        "by_role_and_model": [
            {
                "role": spent.role,
                "model": spent.model,
                **spending_json([spent]),
                "wall_time_s": round(spent.elapsed_s, 3),
                **bill_json(due),
            }
            for spent, due in found.roles
        ],
        "by_model": [{"model": model, **entry_json(entry)} for model, entry in found.models.items()],
        "by_child": [
            {"id": f"c{number:06d}", **{k: v for k, v in entry_json(entry).items() if k != "children"}}
            for number, entry in found.children.items()
        ],
    }


def entry_json(entry: Entry) -> dict[str, Any]:
    """One row."""
    return {
        "children": entry.children,
        **spending_json(entry.spent),
        "wall_time_s": round(entry.wall_s, 3),
        "mutate_s": round(entry.mutate_s, 3),
        "evaluate_s": round(entry.evaluate_s, 3),
        "gpu_hours": entry.gpu_hours,
        **bill_json(entry.bill),
    }


def spending_json(spendings: Iterable[Spending]) -> dict[str, int]:
    """Requests and tokens, summed."""
    names = ("requests", "unmetered", "input_tokens", "cached_tokens", "cache_write_tokens", "output_tokens")
    listed = list(spendings)
    return {name: sum(getattr(spent, name) for spent in listed) for name in names}


def bill_json(due: Bill) -> dict[str, Any]:
    """`dollars` is the known part, null where nothing is known; `dollars_unknown` says what is missing, and why."""
    nothing = not due.known and not due.dollars
    return {"dollars": None if nothing else due.dollars, "dollars_unknown": list(due.why_unknown)}
