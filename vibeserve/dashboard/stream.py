"""Decides when a browser is told that a run has changed: server-sent events with the revision of every run."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import StreamingResponse

from vibeserve.follower import Followed

_POLL_S = 0.5
_HEARTBEAT_POLLS = 30
"""A comment now and then lets a proxy keep the connection, and us notice that the browser has gone."""


class Stream:
    """Endpoint `/api/stream`. Sends the present revisions at once, and again whenever one grows."""

    def __init__(self, runs: Sequence[Followed], closing: asyncio.Event) -> None:
        self._runs, self._closing = runs, closing

    async def answer(self, request: Request) -> StreamingResponse:
        """The endpoint."""
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        return StreamingResponse(self._messages(request), media_type="text/event-stream", headers=headers)

    async def _messages(self, request: Request) -> AsyncIterator[str]:
        told: dict[str, int] = {}
        quiet = 0
        yield "retry: 2000\n\n"
        while not self._closing.is_set() and not await request.is_disconnected():
            now = await run_in_threadpool(lambda: {run.name: run.refresh() for run in self._runs})
            changed = {name: revision for name, revision in now.items() if told.get(name) != revision}
            told, quiet = now, 0 if changed else quiet + 1
            if changed:
                yield f"event: revision\ndata: {json.dumps(changed)}\n\n"
            elif quiet % _HEARTBEAT_POLLS == 0:
                yield ": still here\n\n"
            await _wait(self._closing, _POLL_S)


async def _wait(closing: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(closing.wait(), seconds)
    except TimeoutError:
        return
