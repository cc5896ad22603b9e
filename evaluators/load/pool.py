"""Decides where the client runs: on a thread of this process, or on processes that speak JSON lines on their pipes.

Several processes agree on one start on the system-wide monotonic clock, after all of them have prepared their requests.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, Protocol

from evaluators.load.client import Client, clock
from evaluators.load.endpoint import Endpoint
from evaluators.load.generator import Job, Share, ShareResult
from evaluators.load.schedule import Prompts
from evaluators.load.wire import endpoint_to_json, job_to_json, share_from_json
from evaluators.pod import Pod
from population.errors import ConfigError, InfrastructureError

CHECKOUT = Path(__file__).resolve().parents[2]
LEAD_S = 0.02
"""From the agreement on a start to the start."""
WORKER_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "SYSTEMROOT")


class Clients(Protocol):
    """One or more client processes, kept for all loads of an evaluation."""

    def start(self) -> None:
        """Begin to start up; returns at once, so that it overlaps with the server's own start."""
        ...

    def run(self, job: Job, endpoint: Endpoint) -> list[ShareResult]:
        """Run one job to its end."""
        ...

    def close(self) -> None:
        """Leave no thread or process behind; idempotent."""
        ...


class ThreadClient:
    """One client on its own thread and event loop, pinned to `cpus`; cheapest to start."""

    def __init__(self, cpus: Sequence[int] = (), pod: Pod | None = None) -> None:
        self._cpus, self._pod = tuple(cpus), pod
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stop: asyncio.Event | None = None
        self._prompts: dict[tuple[int, int], Prompts] = {}

    def start(self) -> None:
        """Start the thread; returns when its event loop runs."""
        if self._thread is None:
            running = threading.Event()
            self._thread = threading.Thread(target=self._serve, args=(running,), name="load-client", daemon=True)
            self._thread.start()
            running.wait()

    def run(self, job: Job, endpoint: Endpoint) -> list[ShareResult]:
        """Run one job; an interrupt of the waiting thread cancels it."""
        self.start()
        assert self._loop is not None
        prompts = self._prompts.setdefault(endpoint.prompt_ids, Prompts(endpoint.prompt_ids))
        future = asyncio.run_coroutine_threadsafe(run_share(job, endpoint, prompts, self._pod), self._loop)
        return [_wait(future)]

    def close(self) -> None:
        """Cancel what runs, end the loop and join the thread."""
        if self._thread is not None and self._loop is not None and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()
            self._thread = self._loop = self._stop = None

    def _serve(self, running: threading.Event) -> None:
        pin(self._cpus)
        with asyncio.Runner() as runner:
            runner.run(self._until_closed(running))

    async def _until_closed(self, running: threading.Event) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        running.set()
        await self._stop.wait()


class WorkerClients:
    """Several client processes; `prefix` is put before each command line (to enter a network namespace, say)."""

    def __init__(self, processes: int, cpus: Sequence[int] = (), prefix: Sequence[str] = ()) -> None:
        self._count, self._cpus, self._prefix = processes, tuple(cpus), tuple(prefix)
        self._workers: list[_Worker] = []
        self._vocab: tuple[str, ...] | None = None
        """What the workers were told; None: nothing yet."""

    def start(self) -> None:
        """Spawn the workers."""
        if not self._workers:
            self._workers = [_Worker(self._cpus_of(number), self._prefix) for number in range(self._count)]

    def run(self, job: Job, endpoint: Endpoint) -> list[ShareResult]:
        """Prepare everywhere, agree on a start, run, collect.

        Raises:
            InfrastructureError: a worker died.
        """
        self.start()
        message: dict[str, Any] = {"job": job_to_json(job), "endpoint": endpoint_to_json(replace(endpoint, vocab=()))}
        if endpoint.vocab is not self._vocab:  # large, and the same for all jobs of an evaluation
            message["vocab"], self._vocab = endpoint.vocab, endpoint.vocab
        for number, worker in enumerate(self._workers):
            worker.tell(message | {"job": message["job"] | {"share": (number, self._count)}})
        for worker in self._workers:
            worker.hear()
        start_s = clock() + LEAD_S
        for worker in self._workers:
            worker.tell({"start_s": start_s})
        return [share_from_json(worker.hear()) for worker in self._workers]

    def close(self) -> None:
        """End the workers: their input closes, and they leave; what does not is killed."""
        for worker in self._workers:
            worker.close()
        self._workers, self._vocab = [], None

    def _cpus_of(self, number: int) -> tuple[int, ...]:
        return (self._cpus[number % len(self._cpus)],) if len(self._cpus) >= self._count else self._cpus


class _Worker:
    def __init__(self, cpus: tuple[int, ...], prefix: Sequence[str]) -> None:
        environment = {key: os.environ[key] for key in WORKER_ENVIRONMENT if key in os.environ}
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the worker)
        self._process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "evaluators.load", ",".join(map(str, cpus))],
            cwd=CHECKOUT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
        )

    def tell(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
        except OSError as error:
            raise self._death() from error

    def hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._death()
        message: dict[str, Any] = json.loads(line)
        if "problem" in message:
            raise ConfigError(message["problem"])
        return message

    def close(self) -> None:
        process = self._process
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:
                    continue
        try:
            process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._stderr.close()

    def _death(self) -> InfrastructureError:
        self._process.kill()
        code = self._process.wait()
        self._stderr.seek(0)
        last = self._stderr.read().decode(errors="replace")[-500:].strip()
        return InfrastructureError(
            f"a load generator process ended with code {code}; its last words: {last or '(none)'}"
        )


async def run_share(job: Job, endpoint: Endpoint, prompts: Prompts, pod: Pod | None = None) -> ShareResult:
    """Prepare and run one share in this event loop, starting as soon as it is prepared."""
    share = Share(job, endpoint, prompts)
    async with Client(endpoint, pod) as client:
        return await share.run(client, clock() + LEAD_S)


def pin(cpus: Sequence[int]) -> None:
    """Keep the calling thread on `cpus`, where the system can do that; nothing for none."""
    if cpus and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cpus)


def _wait(future: Future[ShareResult]) -> ShareResult:
    """Like `future.result()`, but wakes often enough for signals to reach this thread, and cancels when they do."""
    try:
        while True:
            try:
                return future.result(timeout=0.5)
            except TimeoutError:
                if future.done():
                    raise
    except (KeyboardInterrupt, SystemExit, CancelledError):
        future.cancel()
        raise
