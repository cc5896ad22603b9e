"""Decides how OpenAI's SDK is set up, and what its failures mean, for both of its wire formats."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

from population.errors import ProviderDown
from vibeserve.agents.conversation import Stop, Turn
from vibeserve.agents.providers.connection import Connection, broken, patience, within
from vibeserve.agents.providers.failures import Complaint, Refused, complaint_of, judged, no_long_waits

BASE_URL = "https://api.openai.com/v1"


class OpenAIClient:
    """The SDK's client for one model."""

    def __init__(self, connection: Connection) -> None:
        import openai

        self.connection = connection
        self.who = f"openai {connection.model}"
        http = openai.DefaultHttpxClient(event_hooks={"response": [no_long_waits]})
        self.sdk = openai.OpenAI(
            # Servers of one's own may want none, but the SDK insists on one, or looks for one in the environment.
            api_key=connection.key or "none",
            base_url=connection.base_url,
            max_retries=connection.retries,
            http_client=http,
        )

    def close(self) -> None:
        self.sdk.close()

    def streamed(self, create: Callable[..., Any], deadline_s: float, read: Callable[[Iterator[Any]], Turn]) -> Turn:
        """Send a request by `create`, and `read` its events into a turn.

        Raises:
            ContextOverflow, OutOfTime, StreamBroken, ProviderDown, ProviderRefused: as `Provider.respond`.
        """
        import httpx2
        import openai

        silence_s = patience(self.connection, deadline_s)
        timeout = httpx2.Timeout(silence_s, connect=min(self.connection.connect_s, silence_s))
        try:
            stream = create(timeout=timeout)
        except openai.APIConnectionError as error:
            raise ProviderDown(f"{self.who}: no answer from {self.connection.base_url}: {error.message}") from None
        except openai.APIError as error:
            return self.refusal_or_raise(error)
        with closing(stream):
            try:
                return read(within(stream, deadline_s))
            except (httpx2.HTTPError, openai.APIConnectionError) as error:
                raise broken(self.who, error) from None
            except openai.APIError as error:
                return self.refusal_or_raise(error, within_stream=True)

    def refusal_or_raise(self, error: Any, within_stream: bool = False) -> Turn:
        """What an error of the SDK amounts to; the status of a stream's answer was given before it went wrong."""
        complaint = complaint_of(error)
        return self.judged(replace(complaint, status=None) if within_stream else complaint)

    def judged(self, complaint: Complaint) -> Turn:
        """A turn that was refused; anything else is raised."""
        found = judged(complaint, self.who, self.connection.redact)
        if isinstance(found, Refused):
            return Turn(stop=Stop.REFUSAL, detail=str(found))
        raise found from None
