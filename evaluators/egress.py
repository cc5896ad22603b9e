"""Decides what leaves a sandbox: requests to one API, which get their key here, outside.

A sandboxed command has no network. Through a socket that it can reach it speaks plain HTTP to this proxy, which adds
the credentials and forwards to one fixed address over TLS. The key is in no file, environment or memory of the sandbox,
and nothing else can be reached.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import aiohttp
from aiohttp import web

from evaluators.pod import Pod
from population.errors import InfrastructureError

_START_TIMEOUT_S = 20.0
_CONNECT_TIMEOUT_S = 30.0
_LONGEST_REQUEST_BYTES = 32 << 20
_BACKLOG = 64
_WORDS_BYTES = 4096
_DROPPED = frozenset({
    # Of one connection only (RFC 9110, 7.6.1), or written anew for the next.
    "connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "host",
    "content-length", "expect",
    # Who the command says it is does not count, and what identifies us does not come back.
    "authorization", "proxy-authorization", "proxy-authenticate", "x-api-key", "api-key", "x-goog-api-key", "cookie",
    "set-cookie", "forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto",
})  # fmt: skip
_AUTO = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
"""What aiohttp would add by itself; the request stays the command's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """The one API that can be reached."""

    url: str
    """Scheme, host and, where the API has one, a path that is put before every request's, such as `https://host/v1`."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The credentials, as the API wants them; never shown."""
    paths: tuple[str, ...] = ("/",)
    """Beginnings of the paths that may be asked for."""
    timeout_s: float = 600.0
    """Longest silence within an answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """How a request that went out was answered."""

    method: str
    path: str
    """With its query."""
    status: int
    """502 where the API could not be reached."""
    headers: Mapping[str, str] = field(default_factory=dict)
    words: bytes = b""
    """The beginning of an answer that is an error."""
    whole: bool = True
    """False: it broke off while the command was still there to read it."""


@dataclass(slots=True)
class Traffic:
    """What went through, for the record of whoever pays."""

    requests: int = 0
    refused: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0


class Egress:
    """The proxy, on a thread of its own. A context manager; nothing gets through before it is entered or afterwards.

    Attributes:
        traffic: what went through so far.
    """

    def __init__(
        self, upstream: Upstream, listener: socket.socket, observe: Callable[[Answered], None] | None = None
    ) -> None:
        """`listener`: bound, of `unix_listener` or `pod_listener`; this object closes it. `observe`: told of every
        answer at its end, on the proxy's thread."""
        self._upstream = upstream
        self._observe = observe or (lambda _: None)
        self._listener = listener
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._end = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="egress", daemon=True)
        self.traffic = Traffic()

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._ready.wait(_START_TIMEOUT_S):
            raise InfrastructureError(f"the egress proxy did not start within {_START_TIMEOUT_S:g} s")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_TIMEOUT_S, sock_read=self._upstream.timeout_s)
        async with aiohttp.ClientSession(timeout=timeout, trust_env=True, auto_decompress=False) as session:

            async def handle(request: web.BaseRequest) -> web.StreamResponse:
                return await self._handle(request, session)

            runner = web.ServerRunner(web.Server(handle, access_log=None), handle_signals=False, shutdown_timeout=0)
            await runner.setup()
            await web.SockSite(runner, self._listener, backlog=_BACKLOG).start()
            self._ready.set()
            await self._end.wait()
            await runner.cleanup()

    async def _handle(self, request: web.BaseRequest, session: aiohttp.ClientSession) -> web.StreamResponse:
        if (problem := self._problem(request)) is not None:
            self.traffic.refused += 1
            return _refusal(403, problem)
        body = await _body(request)
        if body is None:
            self.traffic.refused += 1
            return _refusal(413, f"expected at most {_LONGEST_REQUEST_BYTES >> 20} MiB in a request")
        self.traffic.requests += 1
        self.traffic.sent_bytes += len(body)
        url = self._upstream.url.rstrip("/") + request.raw_path
        added = {name.lower() for name in self._upstream.headers}
        own = {name: text for name, text in _kept(request.headers).items() if name.lower() not in added}
        headers = {**own, **self._upstream.headers}
        try:
            # A redirect is handed back, not followed: it could carry the key elsewhere.
            async with session.request(
                request.method, url, headers=headers, data=body or None, allow_redirects=False, skip_auto_headers=_AUTO
            ) as answer:
                return await self._relay(request, answer)
        except (aiohttp.ClientError, TimeoutError) as error:
            words = f"the API did not answer: {type(error).__name__}"
            self._observe(_answered(request, 502, {}, words.encode()))
            return _refusal(502, words)

    async def _relay(self, request: web.BaseRequest, answer: aiohttp.ClientResponse) -> web.StreamResponse:
        """Every chunk as it comes: tokens are streamed."""
        response = web.StreamResponse(status=answer.status, headers=_kept(answer.headers))
        await response.prepare(request)
        words = bytearray()
        try:
            async for chunk in answer.content.iter_any():
                self.traffic.received_bytes += len(chunk)
                if answer.status >= 400 and len(words) < _WORDS_BYTES:
                    words += chunk
                await response.write(chunk)
        except (aiohttp.ClientError, TimeoutError):
            # The status is sent already: only a broken connection can still say that the answer is not whole.
            asking = request.transport is not None and not request.transport.is_closing()
            self._observe(_answered(request, answer.status, answer.headers, bytes(words), whole=not asking))
            if request.transport is not None:
                request.transport.abort()
            return response
        # Before the command knows that the answer is whole: it may end at once.
        self._observe(_answered(request, answer.status, answer.headers, bytes(words)))
        await response.write_eof()
        return response

    def _problem(self, request: web.BaseRequest) -> str | None:
        """Why this request does not go out."""
        path = request.raw_path
        if request.method not in ("GET", "POST"):
            return f"expected GET or POST, got {request.method}"
        # A proxy's absolute form, and dots that a server might resolve, could leave the allowed paths.
        if not path.startswith("/") or "/.." in request.path or "\\" in request.path:
            return f"expected a plain path, got {path!r}"
        if not path.startswith(self._upstream.paths):
            return f"expected a path below {' or '.join(self._upstream.paths)}, got {path!r}"
        return None


def unix_listener(folder: Path) -> socket.socket:
    """A listener at `folder`/egress.sock; grant the folder to the command (`Launch.readable`).

    Raises:
        InfrastructureError: it cannot be made, for instance because the path has more than 107 bytes.
    """
    path = folder / "egress.sock"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        os.chmod(path, 0o666)  # the command is another user; nobody else gets into its sandbox
    except OSError as error:
        listener.close()
        raise InfrastructureError(f"cannot listen at {path}: {error}; choose a shorter path") from error
    return listener


def pod_listener(pod: Pod) -> socket.socket:
    """A listener on a port of the pod's loopback, for programs that take no unix socket; `getsockname` has the port.

    Raises:
        InfrastructureError: the pod is gone.
    """
    listener = pod.socket()
    listener.bind(("127.0.0.1", 0))
    return listener


def _kept(headers: Mapping[str, str]) -> dict[str, str]:
    named = {token.strip().lower() for token in headers.get("Connection", "").split(",")}
    return {name: text for name, text in headers.items() if name.lower() not in _DROPPED | named}


def _answered(
    request: web.BaseRequest, status: int, headers: Mapping[str, str], words: bytes, whole: bool = True
) -> Answered:
    lower = {name.lower(): text for name, text in headers.items()}
    return Answered(
        method=request.method, path=request.raw_path, status=status, headers=lower, words=words, whole=whole
    )


async def _body(request: web.BaseRequest) -> bytes | None:
    """The whole body, None if it is too long."""
    found = bytearray()
    async for chunk in request.content.iter_any():
        found += chunk
        if len(found) > _LONGEST_REQUEST_BYTES:
            return None
    return bytes(found)


def _refusal(status: int, words: str) -> web.Response:
    return web.json_response({"error": {"type": "egress", "message": words}}, status=status)
