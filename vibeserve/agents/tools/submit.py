"""The tool that ends a conversation: what a model hands in, once it is fit to be handed in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vibeserve.agents.tools.tool import Arguments, ToolProblem


class Submit:
    """Takes the result of a conversation. The first that is accepted ends it.

    Attributes:
        taken: what was handed in; None: nothing yet.
    """

    name = "submit"

    def __init__(self, description: str, arguments: type[Arguments], accept: Callable[[Any], str | None]) -> None:
        """`accept`: what is wrong with it, for the model to mend; None: nothing."""
        self.description = description
        self.arguments = arguments
        self.taken: Any = None
        self._accept = accept

    def call(self, given: Any, deadline_s: float) -> str:
        problem = self._accept(given)
        if problem is not None:
            raise ToolProblem(f"not accepted: {problem}")
        self.taken = given
        return "accepted"
