"""A Ray Serve application: every replica starts this folder's server and passes requests on to it, streams too."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp

HERE = Path(__file__).resolve().parent
SETTINGS = json.loads((HERE / "deployment.json").read_text(encoding="utf-8"))
READY_PATH, START_S, GRACE_S = SETTINGS["ready_path"], SETTINGS["start_s"], SETTINGS["grace_s"]
HOP_BY_HOP = frozenset(b"connection keep-alive transfer-encoding te trailer upgrade host content-length".split())
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]


class Proxy:
    """An ASGI application that owns the server's process from its startup to its shutdown."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._session: aiohttp.ClientSession | None = None
        self._url = ""

    def __reduce__(self) -> str:
        return "proxy"  # Ray ships the application by name, so that a replica's `check_health` asks the one that serves

    def alive(self) -> bool:
        """Whether the server's process is there; true before it was started."""
        return self._process is None or self._process.poll() is None

    async def start(self) -> None:
        """Start the server on a free port and wait until it is ready.

        Raises:
            RuntimeError: it ended, or was not ready in time.
        """
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        env = {**os.environ, "HOST": "127.0.0.1", "PORT": str(port), "PYTHON": os.environ.get("PYTHON", sys.executable)}
        env.pop("PYTHONPATH", None)  # it names this folder for Ray, not for the server
        self._process = subprocess.Popen([str(HERE / "serve.sh")], cwd=HERE, env=env, preexec_fn=_end_with_parent)
        self._url = f"http://127.0.0.1:{port}"
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=2), timeout=aiohttp.ClientTimeout(total=None)
        )
        deadline = asyncio.get_running_loop().time() + START_S
        while not await self._ready():
            if not self.alive() or asyncio.get_running_loop().time() > deadline:
                await self.stop()
                raise RuntimeError(f"the server was not ready within {START_S} s; see its output above")
            await asyncio.sleep(0.1)

    async def stop(self) -> None:
        """End the server."""
        if self._session is not None:
            await self._session.close()
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                await asyncio.to_thread(self._process.wait, GRACE_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                await asyncio.to_thread(self._process.wait)

    async def _ready(self) -> bool:
        assert self._session is not None
        try:
            async with self._session.get(self._url + READY_PATH) as answer:
                return 200 <= answer.status < 300
        except aiohttp.ClientError:
            return False

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            await self._forward(scope, receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self.start()
        except RuntimeError as error:
            return await send({"type": "lifespan.startup.failed", "message": str(error)})
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.stop()
        await send({"type": "lifespan.shutdown.complete"})

    async def _forward(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        assert self._session is not None
        body, more = b"", True
        while more:
            part = await receive()
            if part["type"] == "http.disconnect":
                return
            body, more = body + part.get("body", b""), part.get("more_body", False)
        headers = [
            (k.decode("latin-1"), v.decode("latin-1")) for k, v in scope["headers"] if k.lower() not in HOP_BY_HOP
        ]
        query = scope.get("query_string", b"").decode("latin-1")
        address = self._url + scope["path"] + (f"?{query}" if query else "")
        try:
            async with self._session.request(scope["method"], address, data=body, headers=headers) as answer:
                kept = [(k, v) for k, v in answer.raw_headers if k.lower() not in HOP_BY_HOP]
                await send({"type": "http.response.start", "status": answer.status, "headers": kept})
                async for part in answer.content.iter_any():
                    await send({"type": "http.response.body", "body": part, "more_body": True})
        except aiohttp.ClientConnectorError:
            await send({"type": "http.response.start", "status": 502, "headers": []})
        await send({"type": "http.response.body", "body": b""})


def _end_with_parent() -> None:
    """The server does not outlive a replica that is killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)


proxy = Proxy()


def _application() -> Any:
    from ray import serve

    @serve.deployment
    @serve.ingress(proxy)
    class Server:
        """One replica."""

        def check_health(self) -> None:
            """Ray replaces a replica whose server has ended."""
            if not proxy.alive():
                raise RuntimeError("the server has ended")

    return Server.bind()


def __getattr__(name: str) -> Any:
    if name == "app":  # built when Ray asks for it, so that the proxy can be used and tested without Ray
        return _application()
    raise AttributeError(name)
