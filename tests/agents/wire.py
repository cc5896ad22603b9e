"""What the three providers send, event by event: Anthropic Messages, OpenAI Responses, Chat Completions.

Each `Format` says the same things in its own words, so that one test holds for all of them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from tests.agents.endpoint import Answer, Asked
from vibeserve.agents.conversation import ToolCall
from vibeserve.agents.provider import Provider
from vibeserve.agents.providers.anthropic_messages import AnthropicMessages
from vibeserve.agents.providers.connection import Connection
from vibeserve.agents.providers.openai_chat import OpenAIChat
from vibeserve.agents.providers.openai_responses import OpenAIResponses

READ, CACHED, WRITTEN = 100, 60, 7
"""Tokens that every answer reports: input in all, of it cached, output."""


class Format(Protocol):
    """One wire format."""

    name: str

    def open(self, connection: Connection) -> Provider: ...

    def base_url(self, url: str) -> str: ...

    def says(self, text: str, calls: Sequence[ToolCall] = (), stop: str | None = None) -> Answer:
        """`stop`: None for the usual one, or `length`, `refusal`."""
        ...

    def error(self, status: int, kind: str, message: str, **headers: str) -> Answer: ...

    def breaks(self, kind: str, message: str) -> Answer:
        """An error within a stream that has begun."""
        ...

    def results(self, asked: Asked) -> list[str]:
        """The texts of the tool results in a request."""
        ...

    def system(self, asked: Asked) -> str: ...

    def said(self, asked: Asked) -> list[str]:
        """The texts of the user's messages in a request, results not among them."""
        ...


def _event(name: str, data: dict[str, Any]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


def _pieces(text: str) -> list[str]:
    half = len(text) // 2
    return [piece for piece in (text[:half], text[half:]) if piece]


class Anthropic:
    name = "anthropic"

    def open(self, connection: Connection) -> Provider:
        return AnthropicMessages(connection)

    def base_url(self, url: str) -> str:
        return url

    def says(self, text: str, calls: Sequence[ToolCall] = (), stop: str | None = None) -> Answer:
        events = [*self.beginning()]
        blocks: list[tuple[dict[str, Any], list[dict[str, Any]]]] = []
        if text:
            deltas = [{"type": "text_delta", "text": piece} for piece in _pieces(text)]
            blocks.append(({"type": "text", "text": ""}, deltas))
        for call in calls:
            start = {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}
            blocks.append((start, [{"type": "input_json_delta", "partial_json": p} for p in _pieces(call.arguments)]))
        for index, (start, deltas) in enumerate(blocks):
            events.append(_data("content_block_start", index=index, content_block=start))
            events += [_data("content_block_delta", index=index, delta=delta) for delta in deltas]
            events.append(_data("content_block_stop", index=index))
        reason = {None: "tool_use" if calls else "end_turn", "length": "max_tokens"}.get(stop, stop)
        delta = {"stop_reason": reason, "stop_sequence": None}
        if stop == "refusal":
            delta["stop_details"] = {"type": "refusal", "category": "cyber", "explanation": "not this"}  # type: ignore[assignment]
        events.append(_data("message_delta", delta=delta, usage={"output_tokens": WRITTEN}))
        events.append(_data("message_stop"))
        return Answer(events=tuple(events))

    def beginning(self) -> list[bytes]:
        usage: ClassVar[dict[str, Any]] = {
            "input_tokens": READ - CACHED - 10,
            "cache_read_input_tokens": CACHED,
            "cache_creation_input_tokens": 10,
            "output_tokens": 1,
        }
        message = {
            "id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "content": [],
            "stop_reason": None, "stop_sequence": None, "usage": usage,
        }  # fmt: skip
        return [_data("message_start", message=message), _event("ping", {"type": "ping"})]

    def error(self, status: int, kind: str, message: str, **headers: str) -> Answer:
        body = {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}
        return Answer(status=status, body=body, headers={k.replace("_", "-"): v for k, v in headers.items()})

    def breaks(self, kind: str, message: str) -> Answer:
        error = _event("error", {"type": "error", "error": {"type": kind, "message": message}})
        return Answer(events=(*self.beginning(), error))

    def results(self, asked: Asked) -> list[str]:
        return [block["content"] for block in self._user(asked) if block["type"] == "tool_result"]

    def said(self, asked: Asked) -> list[str]:
        return [block["text"] for block in self._user(asked) if block["type"] == "text"]

    def system(self, asked: Asked) -> str:
        return str(asked.body["system"][0]["text"])

    def _user(self, asked: Asked) -> list[dict[str, Any]]:
        return [block for m in asked.body["messages"] if m["role"] == "user" for block in m["content"]]


def _data(kind: str, **fields: Any) -> bytes:
    return _event(kind, {"type": kind, **fields})


class Responses:
    name = "openai responses"

    def open(self, connection: Connection) -> Provider:
        return OpenAIResponses(connection)

    def base_url(self, url: str) -> str:
        return f"{url}/v1"

    def says(self, text: str, calls: Sequence[ToolCall] = (), stop: str | None = None) -> Answer:
        output: list[dict[str, Any]] = []
        events = self.beginning()
        if text or stop == "refusal":
            part = {"type": "output_text", "text": text, "annotations": []}
            if stop == "refusal":
                part = {"type": "refusal", "refusal": "not this"}
            output.append(
                {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [part]}
            )
            events.append(_data("response.output_item.added", output_index=0, item={**output[0], "content": []}))
            for piece in _pieces(text):
                where = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
                events.append(_data("response.output_text.delta", **where, delta=piece, logprobs=[]))
        for call in calls:
            item = {
                "id": f"fc_{call.id}", "type": "function_call", "call_id": call.id, "name": call.name,
                "arguments": call.arguments, "status": "completed",
            }  # fmt: skip
            index = len(output)
            output.append(item)
            events.append(_data("response.output_item.added", output_index=index, item={**item, "arguments": ""}))
            for piece in _pieces(call.arguments):
                where = {"item_id": item["id"], "output_index": index}
                events.append(_data("response.function_call_arguments.delta", **where, delta=piece))
        events += [_data("response.output_item.done", output_index=i, item=item) for i, item in enumerate(output)]
        status = "incomplete" if stop == "length" else "completed"
        details = {"reason": "max_output_tokens"} if stop == "length" else None
        last = self.response(status, output=output, incomplete_details=details, usage=self.usage)
        events.append(_data(f"response.{status}", response=last))
        return Answer(events=tuple(events))

    usage: ClassVar[dict[str, Any]] = {
        "input_tokens": READ, "input_tokens_details": {"cached_tokens": CACHED, "cache_write_tokens": 10},
        "output_tokens": WRITTEN, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": READ + WRITTEN,
    }  # fmt: skip

    def response(self, status: str, **fields: Any) -> dict[str, Any]:
        return {
            "id": "resp_1", "object": "response", "created_at": 1, "status": status, "model": "gpt", "output": [],
            "error": None, "incomplete_details": None, "instructions": None, "metadata": {}, "tools": [],
            "parallel_tool_calls": True, "tool_choice": "auto", "temperature": 1.0, "top_p": 1.0, "usage": None,
            **fields,
        }  # fmt: skip

    def beginning(self) -> list[bytes]:
        response = self.response("in_progress")
        return [_data("response.created", response=response), _data("response.in_progress", response=response)]

    def error(self, status: int, kind: str, message: str, **headers: str) -> Answer:
        body = {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": kind}}
        return Answer(status=status, body=body, headers={k.replace("_", "-"): v for k, v in headers.items()})

    def breaks(self, kind: str, message: str) -> Answer:
        failed = self.response("failed", error={"code": kind, "message": message})
        return Answer(events=(*self.beginning(), _data("response.failed", response=failed)))

    def results(self, asked: Asked) -> list[str]:
        return [item["output"] for item in asked.body["input"] if item.get("type") == "function_call_output"]

    def said(self, asked: Asked) -> list[str]:
        return [item["content"] for item in asked.body["input"] if item.get("role") == "user"]

    def system(self, asked: Asked) -> str:
        return str(asked.body["instructions"])


class Chat:
    name = "openai chat"

    def open(self, connection: Connection) -> Provider:
        return OpenAIChat(connection)

    def base_url(self, url: str) -> str:
        return f"{url}/v1"

    def says(self, text: str, calls: Sequence[ToolCall] = (), stop: str | None = None) -> Answer:
        events = self.beginning()
        events += [self.chunk({"content": piece}) for piece in _pieces(text)]
        if stop == "refusal":
            events.append(self.chunk({"refusal": "not this"}))
        for index, call in enumerate(calls):
            first = {
                "index": index,
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": ""},
            }
            events.append(self.chunk({"tool_calls": [first]}))
            for piece in _pieces(call.arguments):
                events.append(self.chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]}))
        finish = {None: "tool_calls" if calls else "stop", "refusal": "stop"}.get(stop, stop)
        events.append(self.chunk({}, finish))
        usage: ClassVar[dict[str, Any]] = {
            "prompt_tokens": READ, "completion_tokens": WRITTEN, "total_tokens": READ + WRITTEN,
            "prompt_tokens_details": {"cached_tokens": CACHED, "cache_write_tokens": 10},
        }  # fmt: skip
        last = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [], "usage": usage}
        events += [f"data: {json.dumps(last)}\n\n".encode(), b"data: [DONE]\n\n"]
        return Answer(events=tuple(events))

    def chunk(self, delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
        data = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
        return f"data: {json.dumps(data)}\n\n".encode()

    def beginning(self) -> list[bytes]:
        return [self.chunk({"role": "assistant", "content": ""})]

    def error(self, status: int, kind: str, message: str, **headers: str) -> Answer:
        return Responses().error(status, kind, message, **headers)

    def breaks(self, kind: str, message: str) -> Answer:
        error = {"error": {"message": message, "type": kind, "code": None}}
        return Answer(events=(*self.beginning(), f"data: {json.dumps(error)}\n\n".encode()))

    def results(self, asked: Asked) -> list[str]:
        return [message["content"] for message in asked.body["messages"] if message["role"] == "tool"]

    def said(self, asked: Asked) -> list[str]:
        return [message["content"] for message in asked.body["messages"] if message["role"] == "user"]

    def system(self, asked: Asked) -> str:
        return str(asked.body["messages"][0]["content"])


FORMATS: tuple[Format, ...] = (Anthropic(), Responses(), Chat())


@dataclass(frozen=True)
class Call:
    """A call as a test writes it."""

    name: str
    arguments: dict[str, Any]
    id: str = "call_1"

    @property
    def raw(self) -> ToolCall:
        return ToolCall(id=self.id, name=self.name, arguments=json.dumps(self.arguments))
