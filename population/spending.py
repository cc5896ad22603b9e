"""Decides how what models were asked for is counted: requests and tokens, by role and model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens of one answer, as the provider counts them."""

    input_tokens: int = 0
    """All that was read, `cached_tokens` and `cache_write_tokens` among them."""
    cached_tokens: int = 0
    """Of the input, what came out of the provider's cache."""
    cache_write_tokens: int = 0
    """Of the input, what was put into it."""
    output_tokens: int = 0
    """All that was written, hidden reasoning among it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spending:
    """What one role has asked of one model."""

    role: str
    """`implementer`, `judge`, …"""
    model: str
    requests: int = 0
    """Those that were answered, at least in part."""
    unmetered: int = 0
    """Of the requests, those whose tokens nobody told us: their price is unknown, not 0."""
    input_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    longest_input_tokens: int = 0
    """Of one request, where that is told: above some length, prices are others. 0: it is not."""
    dollars: float | None = None
    """What whoever asked for us says that it has cost, such as a coding CLI. None: nobody says."""
    elapsed_s: float = field(default=0.0, compare=False)
    """Wall seconds of the conversations, tools included."""

    @property
    def tokens(self) -> int:
        """Input and output together."""
        return self.input_tokens + self.output_tokens

    def with_answer(self, usage: Usage | None) -> Spending:
        """One request more; None: its tokens are unknown."""
        used = usage or Usage()
        return replace(
            self,
            requests=self.requests + 1,
            unmetered=self.unmetered + (usage is None),
            input_tokens=self.input_tokens + used.input_tokens,
            cached_tokens=self.cached_tokens + used.cached_tokens,
            cache_write_tokens=self.cache_write_tokens + used.cache_write_tokens,
            output_tokens=self.output_tokens + used.output_tokens,
            longest_input_tokens=max(self.longest_input_tokens, used.input_tokens),
        )

    def __add__(self, other: Spending) -> Spending:
        return replace(
            self,
            requests=self.requests + other.requests,
            unmetered=self.unmetered + other.unmetered,
            input_tokens=self.input_tokens + other.input_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            cache_write_tokens=self.cache_write_tokens + other.cache_write_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            longest_input_tokens=max(self.longest_input_tokens, other.longest_input_tokens),
            dollars=_both(self, other),
            elapsed_s=self.elapsed_s + other.elapsed_s,
        )


def _both(one: Spending, other: Spending) -> float | None:
    """What both have cost; not known where nobody said it of one that was answered."""
    said = [each.dollars for each in (one, other) if each.requests or each.dollars is not None]
    return None if not said or None in said else sum(dollars for dollars in said if dollars is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one child has taken until now."""

    mutate_s: float = 0.0
    evaluate_s: float = 0.0
    """Of its first evaluation; re-measurements are the front's, not the child's."""
    spent: tuple[Spending, ...] = ()
    """One per role and model."""


def summed(spendings: Iterable[Spending]) -> tuple[Spending, ...]:
    """One per role and model, in order of first appearance."""
    found: dict[tuple[str, str], Spending] = {}
    for each in spendings:
        key = (each.role, each.model)
        found[key] = found[key] + each if key in found else each
    return tuple(found.values())
