"""Decides how a provider is reached: address, key, time limits, retries; the same for every wire format."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from vibeserve.agents.provider import OutOfTime, StreamBroken
from vibeserve.agents.secrets import Redactor

Event = TypeVar("Event")


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """Where a model is, and how patiently it is asked."""

    model: str
    key: str = field(repr=False)
    base_url: str
    effort: str | None = None
    """How much the model thinks; None: as its provider chooses."""
    max_output_tokens: int = 16_000
    retries: int = 6
    """Of the SDK, for what fails before an answer begins: it waits ever longer, or as long as `retry-after` says."""
    silence_s: float = 600.0
    """Longest wait for the next piece of an answer."""
    connect_s: float = 20.0

    @property
    def redact(self) -> Redactor:
        return Redactor([self.key])


def within(events: Iterable[Event], deadline_s: float) -> Iterator[Event]:
    """The events of a stream, as long as there is time.

    Raises:
        OutOfTime: the deadline passed between two of them.
    """
    for event in events:
        yield event
        if time.monotonic() >= deadline_s:
            raise OutOfTime


def patience(connection: Connection, deadline_s: float) -> float:
    """Seconds to wait for the next piece: not beyond the deadline."""
    left_s = deadline_s - time.monotonic()
    if left_s <= 0:
        raise OutOfTime
    return min(connection.silence_s, max(1.0, left_s))


def broken(who: str, error: object) -> StreamBroken:
    """A connection that ended within an answer."""
    return StreamBroken(f"{who}: the connection broke within an answer ({type(error).__name__})")


def plain(value: Any) -> Any:
    """An SDK's object as JSON, with what it did not send left out."""
    return value.to_dict(mode="json") if hasattr(value, "to_dict") else value
