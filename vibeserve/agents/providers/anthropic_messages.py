"""Speaks Anthropic's Messages: streamed, with tools, prompt caching, pauses and refusals."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from population.errors import ProviderDown
from population.spending import Usage
from vibeserve.agents.conversation import Conversation, Exchange, Stop, ToolCall, Turn
from vibeserve.agents.provider import ContextOverflow
from vibeserve.agents.providers.connection import Connection, broken, patience, plain, within
from vibeserve.agents.providers.failures import Refused, complaint_of, judged, no_long_waits

if TYPE_CHECKING:
    from anthropic.types import Message

_CACHED = {"cache_control": {"type": "ephemeral"}}
_STOPS = {
    "end_turn": Stop.END,
    "stop_sequence": Stop.END,
    "tool_use": Stop.TOOLS,
    "max_tokens": Stop.LENGTH,
    "pause_turn": Stop.PAUSE,
    "refusal": Stop.REFUSAL,
}
_OURS_ALONE = ("parsed_output",)
"""What the SDK adds to blocks, and the API does not take back."""


class AnthropicMessages:
    """One model of Anthropic's API, or of whoever speaks like it."""

    def __init__(self, connection: Connection) -> None:
        import anthropic

        self._connection = connection
        self._who = f"anthropic {connection.model}"
        self._http = anthropic.DefaultHttpxClient(event_hooks={"response": [no_long_waits]})
        # An explicit key, so that the SDK looks for no other credentials on this machine.
        self._client = anthropic.Anthropic(
            api_key=connection.key,
            base_url=connection.base_url,
            max_retries=connection.retries,
            http_client=self._http,
        )

    @property
    def model(self) -> str:
        return self._connection.model

    def close(self) -> None:
        self._client.close()

    def respond(self, conversation: Conversation, deadline_s: float) -> Turn:
        """See `Provider.respond`."""
        import anthropic
        import httpx2

        silence_s = patience(self._connection, deadline_s)
        timeout = httpx2.Timeout(silence_s, connect=min(self._connection.connect_s, silence_s))
        try:
            with self._client.messages.stream(**self._request(conversation), timeout=timeout) as stream:
                try:
                    for _ in within(stream, deadline_s):
                        pass
                    message = stream.get_final_message()
                # AssertionError: not even the beginning of a message came.
                except (httpx2.HTTPError, anthropic.APIConnectionError, AssertionError) as error:
                    raise broken(self._who, error) from None
        except anthropic.APIConnectionError as error:
            raise ProviderDown(f"{self._who}: no answer from {self._connection.base_url}: {error.message}") from None
        except anthropic.APIError as error:
            return self._refusal_or_raise(error)
        return self._turn(message)

    def _refusal_or_raise(self, error: Any) -> Turn:
        found = judged(complaint_of(error), self._who, self._connection.redact)
        if isinstance(found, Refused):
            return Turn(stop=Stop.REFUSAL, detail=str(found))
        raise found from None

    def _request(self, conversation: Conversation) -> dict[str, Any]:
        request: dict[str, Any] = {
            "model": self._connection.model,
            "max_tokens": self._connection.max_output_tokens,
            # Tools come before the system prompt in what is cached: this mark covers both.
            "system": [{"type": "text", "text": conversation.instructions, **_CACHED}],
            "tools": [
                {"name": tool.name, "description": tool.description, "input_schema": dict(tool.parameters)}
                for tool in conversation.tools
            ],
            "messages": messages(conversation),
        }
        if self._connection.effort is not None:
            request["output_config"] = {"effort": self._connection.effort}
        return request

    def _turn(self, message: Message) -> Turn:
        if message.stop_reason is None:
            raise broken(self._who, message)
        if message.stop_reason == "model_context_window_exceeded":
            raise ContextOverflow
        stop = _STOPS.get(message.stop_reason, Stop.END)
        content = [{k: v for k, v in plain(block).items() if k not in _OURS_ALONE} for block in message.content]
        if stop is Stop.LENGTH:  # a call without a result is refused, and half a call is none
            content = [block for block in content if block["type"] != "tool_use"]
            if not any(block["type"] == "text" for block in content):
                content.append({"type": "text", "text": "(cut off)"})
        details = getattr(message, "stop_details", None)
        return Turn(
            text="".join(block["text"] for block in content if block["type"] == "text"),
            calls=tuple(
                ToolCall(id=block["id"], name=block["name"], arguments=json.dumps(block["input"]))
                for block in content
                if block["type"] == "tool_use"
            ),
            stop=stop,
            usage=_usage(message.usage),
            native=content,
            detail=" ".join(filter(None, [getattr(details, "category", None), getattr(details, "explanation", None)])),
        )


def messages(conversation: Conversation) -> list[dict[str, Any]]:
    """Alternating user and assistant messages; what was cached so far ends where the last one does."""
    found = [_user([{"type": "text", "text": conversation.task}])]
    for exchange in conversation.exchanges:
        found.append({"role": "assistant", "content": exchange.turn.native or _words(exchange.turn)})
        if answer := list(_answer(exchange)):
            found.append(_user(answer))
    if found[-1]["role"] == "user":
        last = found[-1]["content"]
        found[-1] = _user([*last[:-1], {**last[-1], **_CACHED}])
    return found


def _user(content: list[dict[str, Any]]) -> dict[str, Any]:
    return {"role": "user", "content": content}


def _words(turn: Turn) -> list[dict[str, Any]]:
    """A turn that came from elsewhere, or was empty: the API takes no message without content."""
    calls = [
        {"type": "tool_use", "id": call.id, "name": call.name, "input": json.loads(call.arguments or "{}")}
        for call in turn.calls
    ]
    text = turn.text.strip() or ("" if calls else "(nothing)")
    return [*([{"type": "text", "text": text}] if text else []), *calls]


def _answer(exchange: Exchange) -> Iterator[dict[str, Any]]:
    for result in exchange.results:
        block = {"type": "tool_result", "tool_use_id": result.call_id, "content": result.text or "(nothing)"}
        yield {**block, "is_error": True} if result.failed else block
    if exchange.note:
        yield {"type": "text", "text": exchange.note}


def _usage(usage: Any) -> Usage:
    """The API counts what was cached apart from the rest of the input."""
    cached, written = usage.cache_read_input_tokens or 0, usage.cache_creation_input_tokens or 0
    return Usage(
        input_tokens=usage.input_tokens + cached + written,
        cached_tokens=cached,
        cache_write_tokens=written,
        output_tokens=usage.output_tokens,
    )
