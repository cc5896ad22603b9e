"""Decides how a run's account looks to a person: rows of plain cells, for a terminal and a report alike."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from population.spending import Spending
from vibeserve.accounts import Account, Entry
from vibeserve.agents.prices import Bill
from vibeserve.wording import clean, duration, number

if TYPE_CHECKING:
    from rich.table import Table

ROLES = ("role", "model", "requests", "input", "of it cached", "cache writes", "output", "time", "dollars")
MODELS = ("written by", "children", "tokens", "model time", "evaluation time", "GPU-hours", "dollars")
_DEAREST = 5
_MODEL_COLUMNS = 12
_MILLIONS = re.compile(r"^\d+(?:,\d{3}){2,}$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """One table; all columns from `first_number` on hold numbers."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    first_number: int


def sheets(account: Account) -> list[Sheet]:
    """What models were asked by role, and what children have cost by who wrote them; none where no model was asked."""
    if not account.roles:
        return []
    roles = [(spent.role, spent.model, *_tokens(spent), duration(spent.elapsed_s), due.text())
             for spent, due in account.roles]  # fmt: skip
    total = _summed(account.total.spent)
    roles.append(("all", "", *_tokens(total), duration(total.elapsed_s), account.total.bill.text()))
    models = [(model, *_entry(entry)) for model, entry in account.models.items()]
    dearest = sorted(account.children.items(), key=lambda item: (-item[1].bill.dollars, -item[1].tokens, item[0]))
    children = [(f"c{n:06d}", *_entry(entry)[1:]) for n, entry in dearest[:_DEAREST] if entry.spent]
    return [
        Sheet(title="What models were asked", head=ROLES, rows=roles, first_number=2),
        Sheet(title="Children by the model that wrote them", head=MODELS, rows=models, first_number=1),
        Sheet(title="The dearest children", head=("child", *MODELS[2:]), rows=children, first_number=1),
    ]


def unknown_text(bill: Bill) -> str:
    """Why a sum says `unknown`; empty where it does not."""
    return f"Unknown: {'; '.join(bill.why_unknown)}." if not bill.known else ""


def tables(account: Account) -> list[Table]:
    """The sheets for a terminal of 80 columns: without cache writes, millions of tokens short."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    found = []
    for sheet in sheets(account):
        table = Table(
            title=sheet.title,
            title_justify="left",
            box=SIMPLE_HEAD,
            pad_edge=False,
            show_edge=False,
            padding=(0, 1, 0, 0),
        )
        shown = [place for place, name in enumerate(sheet.head) if name != "cache writes"]
        for place in shown:
            name = sheet.head[place]
            is_number = place >= sheet.first_number
            table.add_column(
                "\n".join(name.rsplit(" ", 1)),
                justify="right" if is_number else "left",
                overflow="fold",
                min_width=_MODEL_COLUMNS if name == "model" else None,
                no_wrap=is_number or name == "role",  # only a model's name is broken where there is no room
            )
        for row in sheet.rows:
            table.add_row(*(_MILLIONS.sub(_short, clean(row[place])) for place in shown))
        found.append(table)
    return found


def _short(count: re.Match[str]) -> str:
    return f"{int(count[0].replace(',', '')) / 1e6:,.1f} M"


def _tokens(spent: Spending) -> tuple[str, ...]:
    read = (spent.input_tokens, spent.cached_tokens, spent.cache_write_tokens, spent.output_tokens)
    return (f"{spent.requests:,}", *(f"{count:,}" for count in read))


def _entry(entry: Entry) -> tuple[str, ...]:
    hours = "unknown" if entry.gpu_hours is None else number(entry.gpu_hours) if entry.gpu_hours else "0"
    return (
        str(entry.children),
        f"{entry.tokens:,}",
        duration(entry.mutate_s),
        duration(entry.evaluate_s),
        hours,
        entry.bill.text(),
    )


def _summed(spendings: Sequence[Spending]) -> Spending:
    found = Spending(role="", model="")
    for spent in spendings:
        found += spent
    return found
