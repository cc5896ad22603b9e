"""Decides what the OpenAI wire format means here: requests become Completion values, replies become JSON objects.

Chat template: every message is "ROLE: CONTENT" and a newline, then "assistant:" opens the reply.
"""

from __future__ import annotations

import json
import math
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sequence import Sampling
from tokenizer import Tokenizer
from weights import ModelConfig

MODEL_NAME = "llama-3.1-8b"
Json = dict[str, Any]


class RequestError(ValueError):
    """The request is refused: OpenAI error body with `status`, `param` and a message."""

    def __init__(self, message: str, param: str | None = None, status: int = 400) -> None:
        super().__init__(message)
        self.param, self.status = param, status

    def body(self) -> Json:
        kind = "not_found_error" if self.status == 404 else "invalid_request_error"
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.status}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """A parsed and checked request."""

    chat: bool
    prompt_ids: list[int]
    max_tokens: int
    sampling: Sampling
    stop: tuple[str, ...]
    stream: bool
    include_usage: bool
    return_token_ids: bool


def parse_request(text: str, chat: bool, tokenizer: Tokenizer, config: ModelConfig) -> Completion:
    """Check a request body.

    Raises:
        RequestError: saying which field was wrong and what was expected.
    """
    try:
        body = json.loads(text)
    except ValueError as error:
        raise RequestError(f"the body is not valid JSON: {error}") from error
    if not isinstance(body, dict):
        raise RequestError(f"expected a JSON object, got {type(body).__name__}")
    if body.get("model", MODEL_NAME) != MODEL_NAME:
        raise RequestError(f"the model {body['model']!r} does not exist; this server has {MODEL_NAME!r}", "model", 404)
    if body.get("n", 1) not in (1, None):
        raise RequestError("only n = 1 is supported", "n")
    prompt_ids = _chat_ids(body.get("messages"), tokenizer) if chat else _prompt_ids(body.get("prompt"), tokenizer)
    room = config.max_len - len(prompt_ids)
    default = room if chat else 16
    longest = body.get("max_completion_tokens") if chat and "max_completion_tokens" in body else body.get("max_tokens")
    max_tokens = int(
        _number({"max_tokens": longest}, "max_tokens", min(default, room), lambda v: v >= 1, "at least 1", whole=True)
    )
    if max_tokens > room:
        raise RequestError(
            f"a sequence has at most {config.max_len} tokens: {len(prompt_ids)} of prompt + {max_tokens} do not fit",
            "max_tokens",
        )
    options = body.get("stream_options") or {}
    return Completion(
        chat=chat,
        prompt_ids=prompt_ids,
        max_tokens=max_tokens,
        sampling=_sampling(body, config),
        stop=_stop(body.get("stop")),
        stream=_flag(body, "stream"),
        include_usage=isinstance(options, dict) and _flag(options, "include_usage"),
        return_token_ids=_flag(body, "return_token_ids"),
    )


def _sampling(body: Json, config: ModelConfig) -> Sampling:
    seed = _number(body, "seed", None, lambda v: 0 <= v < 2**63, "between 0 and 2^63 - 1", whole=True)
    return Sampling(
        temperature=_number(body, "temperature", 1.0, lambda v: 0 <= v <= 2, "between 0 and 2"),
        top_p=_number(body, "top_p", 1.0, lambda v: 0 < v <= 1, "above 0 and at most 1"),
        seed=secrets.randbits(62) if seed is None else seed,
        stop_ids=frozenset() if _flag(body, "ignore_eos") else config.eos_ids,
    )


def _prompt_ids(prompt: Any, tokenizer: Tokenizer) -> list[int]:
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str | list):
        prompt = prompt[0]
    if isinstance(prompt, str):
        prompt = tokenizer.encode(prompt)
    if not isinstance(prompt, list) or not prompt:
        raise RequestError("'prompt' must be one non-empty string or list of token ids", "prompt")
    size = len(tokenizer.vocab)
    if not all(isinstance(i, int) and not isinstance(i, bool) and 0 <= i < size for i in prompt):
        raise RequestError(f"'prompt' must hold whole token ids from 0 to {size - 1}; one prompt per request", "prompt")
    return prompt


def _chat_ids(messages: Any, tokenizer: Tokenizer) -> list[int]:
    if not isinstance(messages, list) or not messages:
        raise RequestError("'messages' must be a non-empty list", "messages")
    text = ""
    for message in messages:
        role, content = (message.get("role"), message.get("content")) if isinstance(message, dict) else (None, None)
        if isinstance(content, list) and all(isinstance(p, dict) and p.get("type") == "text" for p in content):
            content = "".join(str(part.get("text", "")) for part in content)
        if not isinstance(role, str) or not isinstance(content, str):
            raise RequestError("every message needs a 'role' and a text 'content'", "messages")
        text += f"{role}: {content}\n"
    return tokenizer.encode(text + "assistant:")


def _stop(stop: Any) -> tuple[str, ...]:
    stops = [stop] if isinstance(stop, str) else stop or []
    if not isinstance(stops, list) or len(stops) > 4 or not all(isinstance(s, str) and s for s in stops):
        raise RequestError("'stop' must be a non-empty string or a list of at most 4", "stop")
    return tuple(stops)


def _flag(body: Json, name: str) -> bool:
    value = body.get(name)
    if value not in (None, True, False):
        raise RequestError(f"'{name}' must be true or false, got {value!r}", name)
    return bool(value)


def _number(
    body: Json, name: str, default: Any, admits: Callable[[Any], bool], range_: str, whole: bool = False
) -> Any:
    value = body.get(name)
    if value is None:
        return default
    kind = int if whole else int | float
    if isinstance(value, bool) or not isinstance(value, kind) or not math.isfinite(value) or not admits(value):
        raise RequestError(f"'{name}' must be a {'whole ' if whole else ''}number {range_}, got {value!r}", name)
    return value


class StopText:
    """Cuts text at the first stop string; holds back what could still become one."""

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops = stops
        self._longest = max(map(len, stops), default=1)
        self._held = ""
        self.hit = False

    def push(self, text: str, final: bool) -> str:
        """The text that may leave now; sets `hit` when a stop string was completed."""
        if not self._stops:
            return text
        text = self._held + text
        found = [at for at in (text.find(stop) for stop in self._stops) if at >= 0]
        if found:
            self.hit, self._held = True, ""
            return text[: min(found)]
        keep = 0
        if not final:
            sizes = range(min(self._longest - 1, len(text)), 0, -1)
            keep = next((n for n in sizes if any(stop.startswith(text[-n:]) for stop in self._stops)), 0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


class Replies:
    """The JSON objects of one request, streamed or whole."""

    def __init__(self, completion: Completion) -> None:
        self._completion = completion
        chat = completion.chat
        kind = "chat.completion" if chat else "text_completion"
        self._head = {
            "id": ("chatcmpl-" if chat else "cmpl-") + secrets.token_hex(12),
            "object": kind + ".chunk" if chat and completion.stream else kind,
            "created": int(time.time()),
            "model": MODEL_NAME,
        }

    def opening(self) -> list[Json]:
        """Chunks sent before any token: the role of a chat reply."""
        if not self._completion.chat:
            return []
        choice = {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
        return [self._head | {"choices": [choice]}]

    def chunk(self, text: str, ids: list[int], reason: str | None) -> Json:
        content: Json = {"delta": {"content": text}} if self._completion.chat else {"text": text}
        return self._head | {"choices": [self._choice(content, ids, reason)]}

    def whole(self, text: str, ids: list[int], reason: str) -> Json:
        content: Json = {"message": {"role": "assistant", "content": text}} if self._completion.chat else {"text": text}
        choice = self._choice(content, ids, reason)
        if self._completion.return_token_ids:
            choice["prompt_token_ids"] = self._completion.prompt_ids
        return self._head | {"choices": [choice], "usage": self._usage(len(ids))}

    def closing(self, num_generated: int) -> list[Json]:
        """The usage chunk, if asked for."""
        return (
            [self._head | {"choices": [], "usage": self._usage(num_generated)}]
            if self._completion.include_usage
            else []
        )

    def _choice(self, content: Json, ids: list[int], reason: str | None) -> Json:
        choice = {"index": 0} | content | {"logprobs": None, "finish_reason": reason}
        return choice | {"token_ids": ids} if self._completion.return_token_ids else choice

    def _usage(self, num_generated: int) -> Json:
        prompt = len(self._completion.prompt_ids)
        return {"prompt_tokens": prompt, "completion_tokens": num_generated, "total_tokens": prompt + num_generated}
