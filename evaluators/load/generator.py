"""Decides when each request of one process leaves: on an absolute schedule (open) or as answers return (closed)."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import count

from evaluators.load.client import Client, clock
from evaluators.load.endpoint import Endpoint
from evaluators.load.exchange import Exchange
from evaluators.load.record import Request, Response
from evaluators.load.schedule import Prompts, Session, Trace
from evaluators.load.workload import Load

AFTER_FAILURE_S = 0.05
"""Pause of one closed-loop stream after a failure, so that a refusing server is not hammered at full speed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One load, or one trial or warm-up of it, for one of several client processes."""

    load: Load
    trace_seed: int
    content_seed: int
    label: str
    """Name in request ids and in the keys of contents: `load`, or `load~trial`."""
    purpose: str = "timed"
    share: tuple[int, int] = (0, 1)
    """This process is number i of n and takes every n-th session."""
    requests: tuple[Request, ...] = ()
    """Sent in place of drawn ones: all at once, or one after the other if the load is closed."""
    enough_tokens: int | None = None
    """Of each drawn request; see `Request`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareResult:
    """What one process saw. Times relative to the start that all processes agreed on."""

    responses: list[Response]
    wall_s: float
    cpu_s: float
    """CPU time of the thread that ran the event loop."""
    send_lag_s: list[float]
    """Per scheduled request, sent minus due."""


class Share:
    """One process's share of a job: prepared outside the measurement, run inside it."""

    def __init__(self, job: Job, endpoint: Endpoint, prompts: Prompts) -> None:
        self.job = job
        self._endpoint, self._prompts = endpoint, prompts
        self._exchanges: list[Exchange] = []
        self._trace = Trace(job.load, job.trace_seed)
        self._first: list[tuple[Session, Exchange]] = []
        number, shares = job.share
        if job.requests:
            self._ready = [_given(n, request, endpoint) for n, request in enumerate(job.requests)][number::shares]
            self._streams, self._finite = self._slice(job.load.concurrency or 1), True
        elif job.load.kind == "closed" and job.load.window_s is not None:
            self._upcoming = count(number, shares)
            self._streams = self._slice(job.load.concurrency or 1)
            self._ready = [self._opening(self._trace.session(next(self._upcoming))) for _ in range(2 * self._streams)]
            self._finite = False
        else:
            self._ready = [self._opening(session) for session in self._trace.sessions()[number::shares]]
            self._streams = self._slice(job.load.concurrency or 1)
            self._finite = True
        self._ready.reverse()

    async def run(self, client: Client, start_s: float) -> ShareResult:
        """Send everything, from `start_s` on the monotonic clock until the window ends or all is answered."""
        window_s = self.job.load.window_s
        cut_s = None if window_s is None else start_s + window_s
        with _quiet_collector(disabled=cut_s is not None):
            await asyncio.sleep(max(0.0, start_s - clock()))
            cpu_s = time.thread_time()
            await self._watch(self._drive(client, start_s), cut_s)
            cpu_s = time.thread_time() - cpu_s
            wall_s = clock() - start_s
        sent = [exchange for exchange in self._exchanges if exchange.sent_s is not None]
        end_s = clock() if cut_s is None else cut_s
        # A client that was stalled as the window ended may have sent one more before it was stopped: not part of it.
        responses = [e.response(start_s, end_s) for e in sent if e.sent_s is not None and e.sent_s <= end_s]
        lags = self._send_lags(sent, start_s, cut_s)
        return ShareResult(responses=responses, wall_s=wall_s, cpu_s=cpu_s, send_lag_s=lags)

    def _send_lags(self, sent: list[Exchange], start_s: float, cut_s: float | None) -> list[float]:
        """Sent minus due; a request that was due in the window and never left is late by what remained of it."""
        due = [(e.sent_s, e.request.scheduled_s) for e in sent]
        lags = [sent_s - due_s for sent_s, due_s in due if sent_s is not None and due_s is not None]
        if cut_s is not None and self.job.load.kind != "closed":
            lags += [cut_s - start_s - session.arrival_s for session, _ in self._ready]
        return lags

    async def _drive(self, client: Client, start_s: float) -> None:
        async with asyncio.TaskGroup() as group:
            if self.job.load.kind == "closed":
                for _ in range(self._streams):
                    group.create_task(self._stream(client))
                return
            while self._ready:
                session, exchange = self._ready.pop()
                due_s = start_s + session.arrival_s
                delay_s = due_s - clock()
                if delay_s > 0:
                    await asyncio.sleep(delay_s)
                group.create_task(self._converse(client, session, exchange, due_s))

    async def _watch(self, driving: Coroutine[None, None, None], cut_s: float | None) -> None:
        """Await `driving`, and cut it off at `cut_s`; what was in flight then stays without an end: censored."""
        with suppress(TimeoutError):
            async with asyncio.timeout_at(cut_s):
                await driving

    async def _stream(self, client: Client) -> None:
        while (opening := self._next_opening()) is not None:
            session, exchange = opening
            if not await self._converse(client, session, exchange, None):
                await asyncio.sleep(AFTER_FAILURE_S)

    async def _converse(self, client: Client, session: Session, exchange: Exchange, due_s: float | None) -> bool:
        """All turns of a session, each when the one before is answered. False when one failed."""
        for turn in range(len(session.turns)):
            if turn:
                history = exchange.request.prompt_ids + (exchange.output_ids or [])
                exchange = self._exchange(session, turn, history)
                due_s = clock()
            exchange.request = replace(exchange.request, scheduled_s=due_s)
            self._exchanges.append(exchange)
            await client.perform(exchange)
            if exchange.failure is not None:
                return False
        return True

    def _next_opening(self) -> tuple[Session, Exchange] | None:
        if self._ready:
            return self._ready.pop()
        return None if self._finite else self._opening(self._trace.session(next(self._upcoming)))

    def _opening(self, session: Session) -> tuple[Session, Exchange]:
        job = self.job
        shared = self._prompts.prefix(job.content_seed, job.label, session.prefix, job.load.shared_prefix_tokens)
        return session, self._exchange(session, 0, shared)

    def _exchange(self, session: Session, turn: int, history: list[int]) -> Exchange:
        job, name = self.job, f"{self.job.label}/{session.number}.{turn}"
        fresh_tokens, output_tokens = session.turns[turn]
        prompt_ids = self._prompts.extend(history, fresh_tokens, f"{job.content_seed}/{job.purpose}/{name}")
        request = Request(
            id=name, load=job.load.name, prompt_ids=prompt_ids, max_tokens=output_tokens, purpose=job.purpose,
            enough_tokens=job.enough_tokens,
        )  # fmt: skip
        return Exchange(request, self._endpoint)

    def _slice(self, total: int) -> int:
        number, shares = self.job.share
        return total // shares + (number < total % shares)


def _given(number: int, request: Request, endpoint: Endpoint) -> tuple[Session, Exchange]:
    turn = (len(request.prompt_ids), request.max_tokens)
    return Session(number=number, arrival_s=0.0, prefix=0, turns=(turn,)), Exchange(request, endpoint)


@contextmanager
def _quiet_collector(*, disabled: bool) -> Iterator[None]:
    """Keep garbage collection out of the measurement: a full one stops the event loop for tens of milliseconds.

    What exists is set aside in any case; collection is off only in windows, because runs to completion may be long.
    """
    was_enabled = gc.isenabled()
    gc.collect()
    gc.freeze()
    if disabled:
        gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if was_enabled:
            gc.enable()
