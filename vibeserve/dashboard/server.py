"""Decides how the dashboard listens: one process, one loopback socket, ended by Ctrl-C without waiting for browsers."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from population.errors import InfrastructureError, UsageError
from vibeserve.dashboard.app import make_app
from vibeserve.dashboard.assets import plotly_script
from vibeserve.dashboard.security import TOKEN, new_token
from vibeserve.dashboard.spending import Prices
from vibeserve.follower import Followed

HOST = "127.0.0.1"
PORT = 8642
_GRACE_S = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the command line says. `port` None is 8642, or any free one if that is taken."""

    runs: Sequence[Path]
    port: int | None = None
    prices: Prices
    service_level: str = ""


def listen(port: int | None) -> socket.socket:
    """A socket on loopback.

    Raises:
        InfrastructureError: the port is taken.
    """
    for wanted in (PORT, 0) if port is None else (port,):
        found = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            found.bind((HOST, wanted))
        except OSError as error:
            found.close()
            if wanted == 0 or port is not None:
                raise InfrastructureError(
                    f"{HOST}:{wanted} cannot be used: {error.strerror}; choose another with --port, or none"
                ) from error
            continue
        return found
    raise AssertionError("port 0 either binds or raises")


def serve(settings: Settings, announce: Callable[[str], None]) -> None:
    """Serve until interrupted. `announce` is called with the address once it can be opened.

    Raises:
        UsageError: two runs have the same name.
        InfrastructureError: the port is taken, or plotly is not installed.
    """
    plotly_script()
    names = [path.name for path in settings.runs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(f"the dashboard tells runs apart by their folder's name; several are called {twice[0]}")
    token, door = new_token(), listen(settings.port)
    with door, suppress(KeyboardInterrupt):  # the way to end it, and no failure
        asyncio.run(_serve(settings, token, door, announce))


async def _serve(settings: Settings, token: str, door: socket.socket, announce: Callable[[str], None]) -> None:
    closing = asyncio.Event()
    runs = [Followed(path) for path in settings.runs]
    app = make_app(runs, token, settings.prices, closing, settings.service_level)
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, lifespan="off",
        timeout_graceful_shutdown=_GRACE_S,
    )  # fmt: skip
    server = _Server(config, closing, lambda: announce(f"http://{HOST}:{door.getsockname()[1]}/?{TOKEN}={token}"))
    await server.serve(sockets=[door])


class _Server(uvicorn.Server):
    """Says when it listens, and ends the streams when it shuts down: a browser would hold them open forever."""

    def __init__(self, config: uvicorn.Config, closing: asyncio.Event, announce: Callable[[], None]) -> None:
        super().__init__(config)
        self._closing, self._announce = closing, announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self._announce()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._closing.set()
        await super().shutdown(sockets=sockets)
