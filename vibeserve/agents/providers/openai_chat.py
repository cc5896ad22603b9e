"""Speaks Chat Completions, as OpenAI and every server compatible with it do, vLLM among them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from population.spending import Usage
from vibeserve.agents.conversation import Conversation, Exchange, Stop, ToolCall, Turn
from vibeserve.agents.providers.connection import Connection, broken
from vibeserve.agents.providers.openai_client import BASE_URL, OpenAIClient


@dataclass(slots=True)
class _Draft:
    """What has come of an answer so far."""

    text: str = ""
    refusal: str = ""
    finish: str | None = None
    usage: Any = None
    calls: dict[int, dict[str, str]] = field(default_factory=dict)
    """By the index that the server gives them; arguments come in pieces."""

    def add(self, chunk: Any) -> None:
        self.usage = getattr(chunk, "usage", None) or self.usage
        for choice in chunk.choices:
            self.finish = choice.finish_reason or self.finish
            self.text += choice.delta.content or ""
            self.refusal += getattr(choice.delta, "refusal", None) or ""
            for piece in choice.delta.tool_calls or ():
                call = self.calls.setdefault(piece.index, {"id": "", "name": "", "arguments": ""})
                call["id"] = piece.id or call["id"]
                if piece.function is not None:
                    call["name"] += piece.function.name or ""
                    call["arguments"] += piece.function.arguments or ""


class OpenAIChat:
    """One model of a server that speaks Chat Completions."""

    def __init__(self, connection: Connection) -> None:
        self._client = OpenAIClient(connection)
        self._connection = connection

    @property
    def model(self) -> str:
        return self._connection.model

    def close(self) -> None:
        self._client.close()

    def respond(self, conversation: Conversation, deadline_s: float) -> Turn:
        """See `Provider.respond`."""

        def create(**options: Any) -> Any:
            return self._client.sdk.chat.completions.create(**self._request(conversation), stream=True, **options)

        return self._client.streamed(create, deadline_s, self._read)

    def _request(self, conversation: Conversation) -> dict[str, Any]:
        # OpenAI's own models refuse the older name, and some servers do not know the newer one.
        limit = "max_completion_tokens" if self._connection.base_url == BASE_URL else "max_tokens"
        request: dict[str, Any] = {
            "model": self._connection.model,
            "messages": messages(conversation),
            "tools": [
                {
                    "type": "function",
                    "function": {
                        "name": tool.name,
                        "description": tool.description,
                        "parameters": dict(tool.parameters),
                    },
                }
                for tool in conversation.tools
            ],
            limit: self._connection.max_output_tokens,
            "stream_options": {"include_usage": True},
        }
        if self._connection.effort is not None:
            request["reasoning_effort"] = self._connection.effort
        return request

    def _read(self, events: Iterator[Any]) -> Turn:
        draft = _Draft()
        for chunk in events:
            draft.add(chunk)
        if draft.finish is None:
            raise broken(self._client.who, EOFError())
        return _turn(draft)


def _turn(draft: _Draft) -> Turn:
    usage = None if draft.usage is None else _usage(draft.usage)
    if draft.refusal or draft.finish == "content_filter":
        return Turn(stop=Stop.REFUSAL, usage=usage, detail=draft.refusal or "content filter")
    if draft.finish == "length":  # half a call is none
        draft.calls = {}
    calls = tuple(
        ToolCall(id=call["id"] or f"call_{index}", name=call["name"], arguments=call["arguments"])
        for index, call in sorted(draft.calls.items())
    )
    stop = Stop.LENGTH if draft.finish == "length" else Stop.TOOLS if calls else Stop.END
    return Turn(text=draft.text, calls=calls, stop=stop, usage=usage)


def messages(conversation: Conversation) -> list[dict[str, Any]]:
    """Everything said so far, as messages."""
    found: list[dict[str, Any]] = [
        {"role": "system", "content": conversation.instructions},
        {"role": "user", "content": conversation.task},
    ]
    for exchange in conversation.exchanges:
        found += _messages(exchange)
    return found


def _messages(exchange: Exchange) -> Iterator[dict[str, Any]]:
    turn = exchange.turn
    message: dict[str, Any] = {"role": "assistant", "content": turn.text}
    if turn.calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments or "{}"}}
            for call in turn.calls
        ]
    yield message
    for result in exchange.results:
        text = f"Error: {result.text}" if result.failed else result.text
        yield {"role": "tool", "tool_call_id": result.call_id, "content": text}
    if exchange.note:
        yield {"role": "user", "content": exchange.note}


def _usage(usage: Any) -> Usage:
    details = getattr(usage, "prompt_tokens_details", None)
    return Usage(
        input_tokens=usage.prompt_tokens,
        cached_tokens=getattr(details, "cached_tokens", None) or 0,
        cache_write_tokens=getattr(details, "cache_write_tokens", None) or 0,
        output_tokens=usage.completion_tokens,
    )
