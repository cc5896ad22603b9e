"""A scriptable completions server: known delays, known chunks, known faults; every request it saw is remembered."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self

from aiohttp import web

VOCAB = tuple(f" t{number}" for number in range(1000))


@dataclass(slots=True, kw_only=True)
class Script:
    """What the server does with each request."""

    first_s: float = 0.0
    per_token_s: float = 0.0
    tokens_per_chunk: int = 1
    slots: int | None = None
    """Requests answered at a time; the others queue. None: all."""
    fault: str | None = None
    with_ids: bool = True
    with_usage: bool = True
    role_first: bool = False
    nagle: bool = False
    """Small writes wait for acknowledgements, as in servers that do not set TCP_NODELAY."""
    fail_every: int = 0
    """Every n-th request gets status 500."""


@dataclass(slots=True, kw_only=True)
class Seen:
    """One request as the server saw it."""

    body: dict[str, Any]
    headers: dict[str, str]
    arrived_s: float
    in_flight: int
    finished: bool = False


@dataclass(slots=True)
class ToyServer:
    """Runs on its own thread and event loop; a context manager. `url` is valid inside it."""

    script: Script = field(default_factory=Script)
    seen: list[Seen] = field(default_factory=list)
    url: str = ""
    _in_flight: int = 0
    _thread: threading.Thread | None = None
    _loop: asyncio.AbstractEventLoop | None = None
    _stop: asyncio.Event | None = None
    _slots: asyncio.Semaphore | None = None

    def __enter__(self) -> Self:
        running = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(running)), daemon=True)
        self._thread.start()
        assert running.wait(10), "the toy server did not start"
        return self

    def __exit__(self, *_: object) -> None:
        assert self._loop is not None
        assert self._stop is not None
        assert self._thread is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    async def _serve(self, running: threading.Event) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._slots = asyncio.Semaphore(self.script.slots or 10_000)
        app = web.Application(client_max_size=1 << 24)
        app.router.add_post("/v1/completions", self._completions)
        app.router.add_get("/v1/models", self._models)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        running.set()
        await self._stop.wait()
        await runner.cleanup()

    async def _models(self, _: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "toy"}]})

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        assert self._slots is not None
        body = await request.json()
        self._in_flight += 1
        seen = Seen(body=body, headers=dict(request.headers), arrived_s=time.monotonic(), in_flight=self._in_flight)
        self.seen.append(seen)
        try:
            async with self._slots:
                answer = await self._answer(request, body, len(self.seen))
            seen.finished = True
            return answer
        finally:
            self._in_flight -= 1

    async def _answer(self, request: web.Request, body: dict[str, Any], number: int) -> web.StreamResponse:
        script = self.script
        if script.fault == "status-500" or (script.fail_every and number % script.fail_every == 0):
            return web.Response(status=500, text="out of luck")
        if script.fault == "redirect":
            return web.Response(status=302, headers={"Location": "/v1/models"})
        if script.fault == "never":
            await asyncio.sleep(3600)
        if script.nagle and request.transport is not None:
            request.transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        if script.role_first:
            await self._send(response, [], None)
        known = script.fault == "memory" and [seen.body["prompt"] for seen in self.seen].count(body["prompt"]) > 1
        await asyncio.sleep(0 if known else script.first_s)
        with suppress(ConnectionError):  # the client may leave in the middle
            await self._stream(request, response, body, 0 if known else script.per_token_s)
        return response

    async def _stream(
        self, request: web.Request, response: web.StreamResponse, body: dict[str, Any], per_token_s: float
    ) -> None:
        script, (answer, cut) = self.script, self._planned(body)
        begun_s, sent = time.monotonic(), 0
        for at in range(0, len(answer), script.tokens_per_chunk):
            if per_token_s:
                await asyncio.sleep(max(0.0, begun_s + at * per_token_s - time.monotonic()))
            ids = answer[at : at + script.tokens_per_chunk]
            stopped = script.fault == "early-stop" or cut is not None
            reason = None if at + len(ids) < len(answer) else "stop" if stopped else "length"
            if at and await self._midway(request, response):
                return
            text = "".join(VOCAB[i] for i in ids)
            await self._send(response, ids, reason, text if cut is None else text[: max(0, cut - sent)])
            sent += len(text)
        await self._close(response, body, len(answer))

    def _planned(self, body: dict[str, Any]) -> tuple[list[int], int | None]:
        """The ids to send, and where a stop string cuts their text."""
        asked, fault = body["max_tokens"], self.script.fault or ""
        total = {"too-many": asked + 2, "too-few": asked - 2, "early-stop": asked - 2}.get(fault, asked)
        shift = random.randrange(500) if fault == "unseeded" and body["temperature"] else 0
        ids = [(len(body["prompt"]) + shift + k) % len(VOCAB) for k in range(total)]
        text = "".join(VOCAB[i] for i in ids)
        found = [(text.find(word), len(word)) for word in body.get("stop", ()) if word in text]
        if not found or fault == "ignores-stop":
            return ids, None
        cut, length = min(found)
        needed = next(n for n in range(1, total + 1) if sum(len(VOCAB[i]) for i in ids[:n]) >= cut + length)
        return ids[:needed], cut

    async def _midway(self, request: web.Request, response: web.StreamResponse) -> bool:
        """Break off, or spoil, a stream that has begun. True: it is over."""
        fault = self.script.fault
        if fault == "reset":
            assert request.transport is not None
            request.transport.abort()
            return True
        spoilers = {
            "garbage": b"<html>oops</html>\n\n",
            "bad-json": b'data: {"choices": [\n\n',
            "nan": b'data: {"x": NaN}\n\n',
        }
        if fault in spoilers:
            await response.write(spoilers[fault])
        return fault == "no-done"

    async def _send(self, response: web.StreamResponse, ids: list[int], reason: str | None, text: str = "") -> None:
        choice: dict[str, Any] = {"index": 0, "text": text, "finish_reason": reason}
        if self.script.with_ids:
            choice["token_ids"] = [*ids[:-1], 5_000] if self.script.fault == "bad-id" else ids
        if self.script.fault == "wrong-text":
            choice["text"] = "x" * len(choice["text"])
        await response.write(b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n")

    async def _close(self, response: web.StreamResponse, body: dict[str, Any], total: int) -> None:
        if self.script.with_usage:
            claimed = total + (7 if self.script.fault == "wrong-usage" else 0)
            usage = {"prompt_tokens": len(body["prompt"]), "completion_tokens": claimed}
            await response.write(b"data: " + json.dumps({"choices": [], "usage": usage}).encode() + b"\r\n\r\n")
        await response.write(b"data: [DONE]\n\n")
        if self.script.fault == "after-done":
            await response.write(b'data: {"choices": []}\n\n')
