"""Speaks OpenAI's Responses: streamed, stateless (nothing is stored there), reasoning sent back encrypted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from population.spending import Usage
from vibeserve.agents.conversation import Conversation, Stop, ToolCall, Turn
from vibeserve.agents.providers.connection import Connection, broken, plain
from vibeserve.agents.providers.failures import Complaint
from vibeserve.agents.providers.openai_client import OpenAIClient


class OpenAIResponses:
    """One model of OpenAI's API."""

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
            return self._client.sdk.responses.create(**self._request(conversation), stream=True, **options)

        return self._client.streamed(create, deadline_s, self._read)

    def _request(self, conversation: Conversation) -> dict[str, Any]:
        request: dict[str, Any] = {
            "model": self._connection.model,
            "instructions": conversation.instructions,
            "input": items(conversation),
            "tools": [
                {
                    "type": "function",
                    "name": tool.name,
                    "description": tool.description,
                    "parameters": dict(tool.parameters),
                    "strict": False,
                }
                for tool in conversation.tools
            ],
            "max_output_tokens": self._connection.max_output_tokens,
            "store": False,
        }
        if self._connection.effort is not None:
            request["reasoning"] = {"effort": self._connection.effort}
            request["include"] = ["reasoning.encrypted_content"]
        return request

    def _read(self, events: Iterator[Any]) -> Turn:
        """Everything is in the last event; those before it only show that something happens."""
        for event in events:
            match event.type:
                case "response.completed" | "response.incomplete":
                    return self._turn(event.response)
                case "response.failed":
                    return self._failed(event.response.error)
                case "error":
                    return self._failed(event)
        raise broken(self._client.who, EOFError())

    def _failed(self, error: Any) -> Turn:
        kind, message = getattr(error, "code", None), getattr(error, "message", None)
        return self._client.judged(Complaint(kind=str(kind or ""), message=str(message or "")))

    def _turn(self, response: Any) -> Turn:
        output = [plain(item) for item in response.output]
        reason = response.incomplete_details.reason if response.incomplete_details else None
        usage = None if response.usage is None else _usage(response.usage)
        refusals = [part["refusal"] for part in _parts(output) if part["type"] == "refusal"]
        if refusals or reason == "content_filter":
            return Turn(stop=Stop.REFUSAL, usage=usage, native=output, detail=" ".join(refusals) or "content filter")
        if response.status == "incomplete":  # a call without a result is refused, and half a call is none
            output = [item for item in output if item["type"] == "message"]
        calls = tuple(
            ToolCall(id=item["call_id"], name=item["name"], arguments=item["arguments"])
            for item in output
            if item["type"] == "function_call"
        )
        return Turn(
            text="".join(part["text"] for part in _parts(output) if part["type"] == "output_text"),
            calls=calls,
            stop=Stop.LENGTH if response.status == "incomplete" else Stop.TOOLS if calls else Stop.END,
            usage=usage,
            native=[item for item in output if item["type"] != "reasoning" or item.get("encrypted_content")],
        )


def items(conversation: Conversation) -> list[dict[str, Any]]:
    """Everything said so far, as input items."""
    found: list[dict[str, Any]] = [{"role": "user", "content": conversation.task}]
    for exchange in conversation.exchanges:
        turn = exchange.turn
        found += turn.native if turn.native is not None else _words(turn)
        for result in exchange.results:
            text = f"Error: {result.text}" if result.failed else result.text
            found.append({"type": "function_call_output", "call_id": result.call_id, "output": text})
        if exchange.note:
            found.append({"role": "user", "content": exchange.note})
    return found


def _words(turn: Turn) -> list[dict[str, Any]]:
    """A turn that came from elsewhere."""
    said = [{"role": "assistant", "content": turn.text}] if turn.text else []
    calls = [
        {"type": "function_call", "call_id": call.id, "name": call.name, "arguments": call.arguments}
        for call in turn.calls
    ]
    return [*said, *calls]


def _parts(output: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for item in output:
        if item["type"] == "message":
            yield from item["content"]


def _usage(usage: Any) -> Usage:
    details = getattr(usage, "input_tokens_details", None)
    return Usage(
        input_tokens=usage.input_tokens,
        cached_tokens=getattr(details, "cached_tokens", None) or 0,
        cache_write_tokens=getattr(details, "cache_write_tokens", None) or 0,
        output_tokens=usage.output_tokens,
    )
