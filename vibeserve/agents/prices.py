"""Decides what the requests to a model have cost, by a table that its user can edit; what has no price is unknown."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from population.errors import ConfigError
from population.spending import Spending
from vibeserve.wording import money

SHIPPED = Path(__file__).resolve().parent / "prices.toml"
_MILLION = 1e6

_Dollars = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """Of one model, dollars per million tokens. A part whose price is None costs as other input does."""

    input: float
    output: float
    cached_input: float | None = None
    cache_write: float | None = None
    up_to_input_tokens: int | None = None
    """The prices hold for requests that read no more than this. None: for all."""
    source: str = ""

    def covers(self, spent: Spending) -> bool:
        """Whether all of these requests were short enough."""
        if self.up_to_input_tokens is None or spent.input_tokens <= self.up_to_input_tokens:
            return True
        return 0 < spent.longest_input_tokens <= self.up_to_input_tokens

    def dollars(self, spent: Spending) -> float:
        """For the tokens that were counted."""
        cached = self.input if self.cached_input is None else self.cached_input
        written = self.input if self.cache_write is None else self.cache_write
        plain = spent.input_tokens - spent.cached_tokens - spent.cache_write_tokens
        return (
            plain * self.input
            + spent.cached_tokens * cached
            + spent.cache_write_tokens * written
            + spent.output_tokens * self.output
        ) / _MILLION


Prices = Mapping[str, Price]
"""Model, as its spending is recorded → price."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """What some requests have cost, as far as that is known."""

    dollars: float = 0.0
    """Of everything that has a price."""
    unpriced: tuple[str, ...] = ()
    """Why some of it has none."""
    uncounted: int = 0
    """Requests whose tokens nobody told, such as answers that broke off."""
    guess: float = 0.0
    """Dollars of those, were each like the mean of the others; for budgets alone, which must not overlook them."""

    @property
    def known(self) -> bool:
        """Whether `dollars` is all of it."""
        return not self.unpriced and not self.uncounted

    def __add__(self, other: Bill) -> Bill:
        return Bill(
            dollars=self.dollars + other.dollars,
            unpriced=tuple(dict.fromkeys((*self.unpriced, *other.unpriced))),
            uncounted=self.uncounted + other.uncounted,
            guess=self.guess + other.guess,
        )

    def text(self) -> str:
        """`$1.23`, `unknown`, `$1.23 + unknown`."""
        if self.known:
            return money(self.dollars)
        return f"{money(self.dollars)} + unknown" if self.dollars else "unknown"

    @property
    def why_unknown(self) -> tuple[str, ...]:
        """One sentence for each part of it that is not known."""
        broken = "its" if self.uncounted == 1 else "their"
        told = (f"{self.uncounted} requests broke off, and nobody told {broken} tokens",) if self.uncounted else ()
        return (*self.unpriced, *told)


def bill(spent: Spending, prices: Prices) -> Bill:
    """What one role has spent on one model. What a provider says itself that it costs wins over the table."""
    if spent.dollars is not None:
        return Bill(dollars=spent.dollars)
    if not spent.tokens and not spent.unmetered:
        return Bill()
    price = prices.get(spent.model)
    if price is None:
        return Bill(unpriced=(f"no price for model '{spent.model}'",))
    if not price.covers(spent):
        most = f"{price.up_to_input_tokens:,}"
        return Bill(unpriced=(f"no price for requests to '{spent.model}' that read more than {most} tokens",))
    dollars, counted = price.dollars(spent), spent.requests - spent.unmetered
    guess = dollars / counted * spent.unmetered if counted > 0 else 0.0
    return Bill(dollars=dollars, uncounted=spent.unmetered, guess=guess)


def total(spendings: Iterable[Spending], prices: Prices) -> Bill:
    """Of all these."""
    found = Bill()
    for spent in spendings:
        found += bill(spent, prices)
    return found


# --- the table as a file ----------------------------------------------------------------------------------------------


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    input: _Dollars
    output: _Dollars
    cached_input: _Dollars | None = None
    cache_write: _Dollars | None = None
    up_to_input_tokens: Annotated[int, Field(ge=1)] | None = None
    source: str = ""


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    model: dict[str, _Entry] = {}


def read_prices(path: Path) -> dict[str, Price]:
    """The prices of one file.

    Raises:
        ConfigError: it cannot be read, or with all that is wrong in it.
    """
    try:
        table = _Table.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigError(f"agents.prices: {path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"agents.prices: {path}: not valid TOML: {error}") from error
    except ValidationError as error:
        raise ConfigError(
            [f"agents.prices: {path}: {'.'.join(map(str, d['loc']))}: {d['msg']}" for d in error.errors()]
        ) from error
    return {name: Price(**entry.model_dump()) for name, entry in table.model.items()}


def prices_toml(prices: Prices) -> str:
    """The table as a file that `read_prices` reads."""
    lines = ["# Dollars per million tokens, by which this run counts. What is wrong may be mended here, at any time."]
    for name, price in prices.items():
        lines += ["", f"[model.{json.dumps(name)}]"]
        values = {field.name: getattr(price, field.name) for field in fields(price)}
        lines += [
            f"{key} = {json.dumps(value, ensure_ascii=False)}"
            for key, value in values.items()
            if value not in (None, "")
        ]
    return "\n".join(lines) + "\n"


def how_to_add(model: str) -> str:
    """What makes the price of a model known."""
    return (
        f"write a file with [model.{json.dumps(model)}], input = …, cached_input = …, cache_write = …, output = … "
        "(dollars per million tokens) and name it: -s agents.prices=FILE"
    )
