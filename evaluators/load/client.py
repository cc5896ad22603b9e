"""Decides how one request travels: the same session, headers and shapes for probes, warm-up and timed load."""

from __future__ import annotations

import asyncio
import time
from types import TracebackType
from typing import Self

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError

from evaluators.load.endpoint import Endpoint
from evaluators.load.exchange import Exchange
from evaluators.load.record import Failure
from evaluators.load.verify import ProtocolError
from evaluators.pod import Pod, socket_factory

KEEPALIVE_S = 2.0
"""Idle connections are dropped before servers do it (uvicorn: 5 s), so that no request meets a connection that is being
closed."""
LONGEST_LINE_BYTES = 1 << 20
AFTER_DONE_S = 0.25
"""How long the end of the body may take after data: [DONE], before the connection is given up (which is no fault)."""

clock = time.monotonic
"""CLOCK_MONOTONIC: one clock for all processes of a machine, and the event loop's."""


class Client:
    """Sends exchanges to one endpoint. An async context manager; any number of exchanges at a time."""

    def __init__(self, endpoint: Endpoint, pod: Pod | None = None) -> None:
        self.endpoint = endpoint
        self._pod = pod
        self._url = endpoint.completions_url
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity", **dict(self.endpoint.headers)}
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0, keepalive_timeout=KEEPALIVE_S, socket_factory=socket_factory(self._pod)
            ),
            timeout=aiohttp.ClientTimeout(total=None),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=headers,
            read_bufsize=1 << 18,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def perform(self, exchange: Exchange) -> None:
        """Send and follow one exchange to its end; every fault of the server ends in `exchange.failure`, none is
        raised."""
        exchange.sent_s = clock()
        try:
            async with asyncio.timeout(self.endpoint.request_timeout_s):
                await self._stream(exchange)
            if not exchange.hung_up:
                exchange.conclude()
        except ProtocolError as error:
            exchange.failure = error.failure
        except TimeoutError:
            seconds = self.endpoint.request_timeout_s
            exchange.failure = Failure(kind="timeout", evidence=f"{exchange.tokens} tokens after {seconds:g} s")
        except (aiohttp.ClientError, HttpProcessingError, OSError) as error:
            seen = f"{type(error).__name__}: {error}"[:300]
            kind = "connection-lost" if exchange.chunk_s else "connection-failed"
            exchange.failure = Failure(kind=kind, evidence=f"{seen} (after {exchange.tokens} tokens)")
        exchange.end_s = clock()

    async def _stream(self, exchange: Exchange) -> None:
        assert self._session is not None, "use the client as a context manager"
        async with self._session.post(self._url, data=exchange.body, allow_redirects=False) as response:
            content, tail = response.content, b""
            if response.status != 200:
                evidence = f"{response.status} {response.reason}: {(await content.read(200))!r}"
                raise ProtocolError("http-status", evidence)
            while not exchange.done:
                if exchange.enough:
                    exchange.hung_up = True
                    response.close()
                    return
                data = await content.readany()
                now = clock()
                if not data:
                    break
                exchange.spend(len(data))
                *lines, tail = (tail + data).split(b"\n")
                for line in lines:
                    if line:
                        exchange.feed(line, now)
                if len(tail) > LONGEST_LINE_BYTES:
                    raise ProtocolError("garbage", f"a line of more than {LONGEST_LINE_BYTES} bytes")
            if tail.strip():
                exchange.feed(tail, clock())
            await self._finish_body(response)

    async def _finish_body(self, response: aiohttp.ClientResponse) -> None:
        """Read to the end of the body, so that the connection can serve the next request; nothing may follow [DONE]."""
        try:
            async with asyncio.timeout(AFTER_DONE_S):
                while not response.content.at_eof():
                    rest = await response.content.readany()
                    if rest.strip():
                        raise ProtocolError("data-after-done", repr(rest[:100]))
        except TimeoutError:
            response.close()
