"""Decides what one event stream amounts to: which chunk brought which verified tokens, and whether it was valid."""

from __future__ import annotations

import json
from bisect import bisect_right
from typing import Any, NoReturn

from evaluators.load.body import request_body
from evaluators.load.endpoint import Endpoint
from evaluators.load.record import Failure, Request, Response
from evaluators.load.verify import (
    ProtocolError,
    Retokenizer,
    apportion,
    check_finish,
    check_ids,
    check_stop,
    check_text,
    check_usage,
)

IGNORED_FIELDS = (b":", b"event:", b"id:", b"retry:")
"""Lines that the event-stream format allows beside `data:`."""
BYTES_PER_TOKEN = 4096
"""An answer may be this long per token asked for, and no longer."""


class Exchange:
    """One request and the answer so far. Remains readable at any moment, so that a window can cut it off."""

    __slots__ = (
        "_bytes_left",
        "_endpoint",
        "body",
        "chunk_s",
        "chunk_tokens",
        "counted_by",
        "done",
        "end_s",
        "failure",
        "finish_reason",
        "hung_up",
        "output_ids",
        "request",
        "sent_s",
        "texts",
        "tokens",
        "usage",
        "waiting",
    )

    def __init__(self, request: Request, endpoint: Endpoint) -> None:
        self.request = request
        self.body = request_body(request, endpoint)
        self.sent_s: float | None = None
        self.end_s: float | None = None
        self.chunk_s: list[float] = []
        self.chunk_tokens: list[int] = []
        self.output_ids: list[int] | None = None
        self.texts: list[str] = []
        self.waiting = ""
        """Whitespace that came without ids: its tokens count with the next visible text."""
        self.tokens = 0
        self.counted_by = "ids"
        self.finish_reason: str | None = None
        self.usage: Any = None
        self.done = False
        self.hung_up = False
        """The client left because it had seen enough."""
        self.failure: Failure | None = None
        self._endpoint = endpoint
        self._bytes_left = BYTES_PER_TOKEN * (request.max_tokens + 16)

    @property
    def enough(self) -> bool:
        """Whether the client has seen what it wanted to see of an answer that goes on."""
        enough = self.request.enough_tokens
        return enough is not None and self.tokens >= enough and not self.done

    def spend(self, size: int) -> None:
        """Account for received bytes. Raises ProtocolError when the answer is absurdly long."""
        self._bytes_left -= size
        if self._bytes_left < 0:
            raise ProtocolError("too-much-data", f"more than {BYTES_PER_TOKEN} bytes per token asked for")

    def feed(self, line: bytes, now: float) -> None:
        """Take one line of the stream, received at `now`. Raises ProtocolError."""
        if line.startswith(b"data:"):
            payload = line[5:].strip()
            if self.done:
                raise ProtocolError("data-after-done", repr(payload[:100]))
            if payload == b"[DONE]":
                self.done = True
            else:
                self._event(payload, now)
        elif line.strip() and not line.startswith(IGNORED_FIELDS):
            raise ProtocolError("garbage", f"not an event-stream line: {line[:100]!r}")

    def conclude(self) -> None:
        """The stream has ended by itself. Raises ProtocolError when what came is not what was asked for."""
        if not self.done:
            raise ProtocolError("no-done", f"the stream ended after {self.tokens} tokens without data: [DONE]")
        if self.output_ids is not None:
            check_usage(self.request, self._endpoint, self.usage, self.tokens)
            check_text(self._endpoint, self.output_ids, "".join(self.texts), self.request.stop)
            check_stop(self.request, self._endpoint, self.output_ids, self.finish_reason)
        else:
            check_usage(self.request, self._endpoint, self.usage, None)
            self._count_without_ids()
        check_finish(self.request, self._endpoint, self.tokens, self.finish_reason)

    def response(self, origin_s: float, cut_s: float) -> Response:
        """The record of this exchange, times relative to `origin_s`.

        What came after `cut_s`, while the client was being stopped, is left out: the exchange then counts as cut off.
        """
        request, censored = self.request, self.end_s is None or self.end_s > cut_s or self.hung_up
        sent_s = self.sent_s if self.sent_s is not None else cut_s
        scheduled_s = request.scheduled_s if request.scheduled_s is not None else sent_s
        kept, text = bisect_right(self.chunk_s, cut_s), "".join(self.texts)
        chunk_s, chunk_tokens = [round(at - origin_s, 6) for at in self.chunk_s[:kept]], self.chunk_tokens[:kept]
        return Response(
            id=request.id,
            load=request.load,
            purpose=request.purpose,
            prompt_ids=request.prompt_ids,
            max_tokens=request.max_tokens,
            output_ids=None if self.output_ids is None else self.output_ids[: sum(chunk_tokens)],
            text=text,
            scheduled_s=round(scheduled_s - origin_s, 6),
            sent_s=round(sent_s - origin_s, 6),
            first_s=chunk_s[0] if chunk_s else None,
            last_s=chunk_s[-1] if chunk_s else None,
            chunk_s=chunk_s,
            chunk_tokens=chunk_tokens,
            finish_reason=None if censored else self.finish_reason,
            counted_by=self.counted_by,
            censored=censored,
            end_s=round(min(cut_s, self.end_s or cut_s) - origin_s, 6),
            failure=self._unfinished_fault(text) if censored else self.failure,
        )

    def _unfinished_fault(self, text: str) -> Failure | None:
        """What is wrong with an answer that was cut off: the text so far must begin as the ids so far decode."""
        try:
            check_text(self._endpoint, self.output_ids or (), text, self.request.stop, ended=False)
        except ProtocolError as error:
            return error.failure
        return None

    def _event(self, payload: bytes, now: float) -> None:
        try:
            event = _DECODER.decode(payload.decode())
        except (ValueError, RecursionError) as error:
            raise ProtocolError("invalid-json", f"{error}: {payload[:100]!r}") from error
        if type(event) is not dict:
            raise ProtocolError("invalid-json", f"an event should be an object, got {payload[:100]!r}")
        if event.get("error") is not None:
            raise ProtocolError("server-error", repr(event["error"]))
        if event.get("usage") is not None:
            self.usage = event["usage"]
        choices = event.get("choices")
        if choices:
            if type(choices) is not list or len(choices) != 1 or type(choices[0]) is not dict:
                raise ProtocolError("bad-choices", f"one choice was asked for, got {payload[:100]!r}")
            if (index := choices[0].get("index", 0)) != 0 or type(index) is not int:
                raise ProtocolError("bad-choices", f"the one choice should have index 0, got {index!r}")
            self._choice(choices[0], now)

    def _choice(self, choice: dict[str, Any], now: float) -> None:
        text, ids = choice.get("text", ""), choice.get("token_ids")
        if type(text) is not str:
            raise ProtocolError("bad-text", f"text should be a string, got {text!r}")
        if (text or ids) and self.finish_reason is not None:
            raise ProtocolError("tokens-after-finish", f"after finish_reason {self.finish_reason!r} came {text[:40]!r}")
        echoed = choice.get("prompt_token_ids")
        if echoed is not None and not self._endpoint.prompt_as_text and echoed != self.request.prompt_ids:
            raise ProtocolError("prompt-mismatch", "prompt_token_ids is not the prompt that was sent")
        if text:
            self.texts.append(text)
        if ids:
            check_ids(ids, self._endpoint)
            if self.output_ids is None:
                if self.chunk_s:
                    raise ProtocolError("no-token-ids", "some chunks carry token_ids, earlier ones do not")
                self.output_ids = []
            self.output_ids.extend(ids)
            self._arrived(len(ids), now)
        elif text and self.output_ids is None:
            self._text_without_ids(text, ids, now)
        reason = choice.get("finish_reason")
        if reason is not None:
            if self.finish_reason is not None:
                raise ProtocolError("bad-finish-reason", f"{reason!r} after {self.finish_reason!r}")
            self.finish_reason = reason

    def _text_without_ids(self, text: str, ids: Any, now: float) -> None:
        if self._endpoint.strict:
            raise ProtocolError(
                "no-token-ids", f"return_token_ids was asked for, got token_ids = {ids!r} with text {text[:40]!r}"
            )
        text = self.waiting + text
        if text.isspace():
            self.waiting = text
            return
        self.waiting = ""
        self.counted_by = "text" if self._endpoint.vocab else "usage"
        self._arrived(_retokenizer(self._endpoint.vocab).count(text) if self._endpoint.vocab else 1, now)

    def _arrived(self, count: int, now: float) -> None:
        self.tokens += count
        self.chunk_s.append(now)
        self.chunk_tokens.append(count)
        if self.tokens > self.request.max_tokens and self.counted_by == "ids":
            raise ProtocolError(
                "too-many-tokens", f"{self.tokens} tokens arrived, {self.request.max_tokens} were asked for"
            )

    def _count_without_ids(self) -> None:
        """A full answer without ids: the server's count, spread over the chunks, unless a vocabulary gave a better
        one."""
        if self.counted_by == "usage" and self.usage is not None:
            self.chunk_tokens = apportion(self.usage["completion_tokens"], self.chunk_tokens)
            self.tokens = sum(self.chunk_tokens)
        if self.tokens != self.request.max_tokens and self.counted_by == "text" and self.finish_reason == "length":
            claimed = self.usage["completion_tokens"] if self.usage is not None else None
            if claimed == self.request.max_tokens:
                self.chunk_tokens = apportion(claimed, self.chunk_tokens)
                self.tokens = claimed


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)
_RETOKENIZERS: dict[int, tuple[tuple[str, ...], Retokenizer]] = {}


def _retokenizer(vocab: tuple[str, ...]) -> Retokenizer:
    """One per vocabulary; keyed by identity because hashing thousands of strings per chunk would cost more than
    counting."""
    known = _RETOKENIZERS.get(id(vocab))
    if known is None or known[0] is not vocab:
        known = _RETOKENIZERS[id(vocab)] = (vocab, Retokenizer(vocab))
    return known[1]
