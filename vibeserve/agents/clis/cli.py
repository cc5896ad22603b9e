"""The seam between a coding CLI and what runs it: how it is told what to do, and what it says of what it did."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from population.spending import Usage
from vibeserve.agents.conversation import Stop, ToolCall, ToolResult, Turn

Version = tuple[int, int, int]

PLACEHOLDER = "held-outside-the-sandbox"
"""What a CLI is given for a key, because it wants one: the real one is added by the proxy, outside."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a CLI has to know to make one child. The task itself comes on its standard input."""

    model: str
    base_url: str = ""
    """Of the proxy, as it is seen in the sandbox; stands for the address of the API."""
    workspace: str = ""
    effort: str | None = None
    max_output_tokens: int = 16_000
    retries: int = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """How a CLI is started."""

    arguments: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    """On top of `evaluators.sandbox.clean_environment`."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Path below a HOME that is otherwise empty → text."""


class Outcome(StrEnum):
    """How a CLI says that it ended."""

    DONE = "done"
    REFUSED = "refused"
    """The model, or its provider's filter, would not do it."""
    LENGTH = "length"
    """The answer or the conversation became longer than the model can."""
    BROKE = "broke"
    """The provider failed it."""
    FAILED = "failed"
    """Something else went wrong."""
    CUT = "cut"
    """It does not say: it was ended, or crashed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a CLI's output tells."""

    outcome: Outcome = Outcome.CUT
    words: str = ""
    """Why, where it is not DONE."""
    steps: tuple[Turn | ToolResult, ...] = ()
    """What was said and done, in order."""
    usage: Usage | None = None
    """Of all requests together; None: it does not say, or does not say it yet."""
    dollars: float | None = None
    """What it thinks that has cost, by its own prices."""

    @property
    def last_words(self) -> str:
        """The model's last message."""
        return next((step.text for step in reversed(self.steps) if isinstance(step, Turn) and step.text), "")


class CodingCli(Protocol):
    """One coding CLI, headless. Holds nothing and keeps nothing."""

    @property
    def name(self) -> str:
        """Of the provider in `[agents]`, and of the program."""
        ...

    @property
    def package(self) -> str:
        """On npm."""
        ...

    @property
    def tested(self) -> Version:
        """The oldest version that is known to work as this module says."""
        ...

    @property
    def key_env(self) -> str:
        """Where its provider's key usually is."""
        ...

    @property
    def address(self) -> str:
        """Of its provider's API."""
        ...

    @property
    def paths(self) -> tuple[str, ...]:
        """What it may ask there: beginnings of paths."""
        ...

    def headers(self, key: str) -> Mapping[str, str]:
        """The key, as that API wants it."""
        ...

    def invocation(self, order: Order) -> Invocation:
        """How it is started: without questions, updates, telemetry, or instructions and settings of the workspace."""
        ...

    def read(self, output: str) -> Report:
        """What its output tells, whole or so far; lines that it did not mean for us are passed over."""
        ...


def events(output: str) -> Iterator[Mapping[str, Any]]:
    """The JSON objects among the lines."""
    for line in output.split("\n"):
        if not line.startswith("{"):
            continue
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict):
            yield found


def part(value: object, *names: str) -> Any:
    """What is found in nested objects by these names; None where there is no such thing."""
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def count(value: object, *names: str) -> int:
    """The same, of a number; 0 where there is none."""
    found = part(value, *names)
    return found if isinstance(found, int) else 0


def said(text: str) -> Turn:
    """A message of the model."""
    return Turn(text=text, stop=Stop.END)


def called(call_id: object, name: object, arguments: object) -> Turn:
    """A call of one of the CLI's own tools."""
    call = ToolCall(id=str(call_id), name=str(name), arguments=json.dumps(arguments, ensure_ascii=False))
    return Turn(calls=(call,), stop=Stop.TOOLS)


def result(call_id: object, text: object, failed: bool) -> ToolResult:
    """What came of it."""
    words = text if isinstance(text, str) else json.dumps(text, ensure_ascii=False, default=str)
    return ToolResult(call_id=str(call_id), text=words, failed=failed)
