"""The seam between a conversation and what a model may do in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from vibeserve.agents.conversation import ToolSpec

LONGEST_RESULT = 30_000
"""Characters of one result; of a longer one both ends are kept."""


class ToolProblem(Exception):  # told to the model, never raised at a user
    """The model asked for something that cannot be done; the message tells it what to do instead."""


class Arguments(BaseModel):
    """What a tool takes; unknown names are problems."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


Given = TypeVar("Given", bound=Arguments)


class Tool(Protocol[Given]):
    """One thing that a model may do."""

    name: str
    description: str
    arguments: type[Given]

    def call(self, given: Given, deadline_s: float) -> str:
        """Do it, not beyond `deadline_s` on `time.monotonic`.

        Raises:
            ToolProblem: the model's mistake, or its bad luck.
            InfrastructureError: the machine's fault; it ends the conversation.
        """
        ...


AnyTool = Tool[Any]


def spec_of(tool: AnyTool) -> ToolSpec:
    """How a model is told of the tool."""
    schema = tool.arguments.model_json_schema()
    schema.pop("title", None)
    schema.pop("description", None)
    for field in schema.get("properties", {}).values():
        field.pop("title", None)
    return ToolSpec(name=tool.name, description=tool.description, parameters=schema)


def parsed(tool: AnyTool, text: str) -> Arguments:
    """The arguments that a model wrote.

    Raises:
        ToolProblem: they are not what the tool takes.
    """
    try:
        given = json.loads(text or "{}")
    except ValueError as error:
        raise ToolProblem(f"{tool.name}: expected its arguments as a JSON object: {error}") from None
    if not isinstance(given, Mapping):
        raise ToolProblem(f"{tool.name}: expected its arguments as a JSON object, got {text[:200]}")
    try:
        found: Arguments = tool.arguments.model_validate(given)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'arguments'}: {e['msg']}" for e in error.errors())
        raise ToolProblem(f"{tool.name}: {problems}") from None
    return found


def bounded(text: str, limit: int = LONGEST_RESULT) -> str:
    """`text`, or both its ends and how much is missing between them."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n[… {len(text) - 2 * half} characters left out …]\n{text[-half:]}"
