"""Decides what a conversation with a model is made of, whoever provides the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from population.spending import Usage


class Stop(StrEnum):
    """Why a turn of the model ended."""

    END = "end"
    """It had nothing more to say."""
    TOOLS = "tools"
    """It wants results of the tools that it called."""
    LENGTH = "length"
    """It reached the limit of output tokens; whatever came last is cut off."""
    PAUSE = "pause"
    """The provider interrupted a long turn; it goes on when the conversation is sent back as it is."""
    REFUSAL = "refusal"
    """The model, or its provider's filter, will not do this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolSpec:
    """A tool as a model is told of it."""

    name: str
    description: str
    parameters: Mapping[str, Any]
    """JSON schema of an object."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A model wants a tool to be run."""

    id: str
    name: str
    arguments: str
    """As the model wrote them: a JSON object, if it made no mistake."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolResult:
    """What came of a call."""

    call_id: str
    text: str
    failed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One answer of the model, whole."""

    text: str = ""
    calls: tuple[ToolCall, ...] = ()
    """None where the turn was cut off: a call must not be carried out in half."""
    stop: Stop
    usage: Usage | None = None
    """None: the provider does not say."""
    native: Any = None
    """The answer in the provider's own JSON, with signed or encrypted reasoning: it is sent back verbatim."""
    detail: str = ""
    """Of a refusal: the provider's words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """A turn of the model and what it was answered."""

    turn: Turn
    results: tuple[ToolResult, ...] = ()
    """One for each call of the turn, in its order."""
    note: str = ""
    """Said beside the results, or in place of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """All that a model is sent. What never changes comes first, so that providers can cache it."""

    instructions: str
    """Who the model is and how it works: the system prompt."""
    task: str
    """What is to be done: the first thing that it is told."""
    tools: tuple[ToolSpec, ...] = ()
    exchanges: tuple[Exchange, ...] = field(default=())

    def then(self, exchange: Exchange) -> Conversation:
        """The conversation, one exchange longer."""
        return replace(self, exchanges=(*self.exchanges, exchange))

    def forgetting(self, recent: int, placeholder: str) -> Conversation:
        """The conversation with a line in place of every tool result that is longer, but for those of the last
        `recent` exchanges; the conversation itself where nothing can be left out."""
        keep = max(0, len(self.exchanges) - recent)
        exchanges = tuple(_forgotten(e, placeholder) for e in self.exchanges[:keep]) + self.exchanges[keep:]
        return self if exchanges == self.exchanges else replace(self, exchanges=exchanges)


def _forgotten(exchange: Exchange, placeholder: str) -> Exchange:
    results = tuple(
        replace(result, text=placeholder) if len(result.text) > len(placeholder) else result
        for result in exchange.results
    )
    return replace(exchange, results=results)
