"""The seam between a conversation and whoever provides the model that answers it."""

from __future__ import annotations

from typing import Protocol

from population.errors import ProviderDown
from vibeserve.agents.conversation import Conversation, Turn


class StreamBroken(ProviderDown):
    """An answer began and did not end. Nothing of it was used, so it can be asked for again at once."""


class ContextOverflow(Exception):  # a signal to the loop, which makes room
    """The conversation is longer than the model can read."""


class OutOfTime(Exception):  # a signal to the loop
    """The deadline passed while the model was answering."""


class Provider(Protocol):
    """Conversation → the model's next turn. Remembers nothing: the same conversation may be sent again."""

    @property
    def model(self) -> str:
        """What its spending is recorded under."""
        ...

    def respond(self, conversation: Conversation, deadline_s: float) -> Turn:
        """The whole turn.

        Args:
            conversation: everything said so far; the last exchange is answered.
            deadline_s: on `time.monotonic`; no answer is waited for any longer.

        Raises:
            ContextOverflow: the conversation is too long.
            OutOfTime: the deadline passed.
            StreamBroken: the answer broke off; it can be asked for again.
            ProviderDown: no answer, although it was asked for patiently.
            ProviderRefused: asking again does not help.
        """
        ...

    def close(self) -> None:
        """Release connections; idempotent."""
        ...
