"""Decides the loop: one thread, one step ahead of the GPU, each step launched as late as the GPU does not notice.

A step that waits in the GPU's queue cannot take in a request that arrives meanwhile. So the next step is put together
shortly before the one under way is expected to end, and its tokens are read while the next one runs.
"""

from __future__ import annotations

import gc
import threading
import time
from collections import deque
from collections.abc import Callable

import torch
from knobs import read_knobs
from kv_cache import KVCache
from model import Model
from phases import phase
from runner import Runner, Step
from sampler import Sampler
from scheduler import Scheduler
from sequence import Output, Sequence


class Engine:
    """Component `engine`, interface 2. `submit` and `abort` may be called from any thread."""

    def __init__(self, model: Model, on_step: Callable[[list[Output]], None], on_exit: Callable[[], None]) -> None:
        """`on_step` gets a step's outputs, `on_exit` is called when the loop ends; both run in the engine's thread."""
        self.scheduler = Scheduler()
        self.kv = KVCache(model.config, model.device)
        self.runner = Runner(model, self.kv, Sampler(model.config, model.device))
        self._lead_s: float = read_knobs(__file__)["lead_us"] / 1e6
        self._on_step, self._on_exit = on_step, on_exit
        self._inbox: deque[tuple[str, Sequence]] = deque()
        self._wake = threading.Event()
        self._stopping = False
        self._pace = Pace()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def submit(self, seq: Sequence) -> None:
        self._inbox.append(("add", seq))
        self._wake.set()

    def abort(self, seq: Sequence) -> None:
        """Stop working on `seq`: no output follows once the engine has seen it. Finished sequences stay as they are."""
        self._inbox.append(("abort", seq))
        self._wake.set()

    def stop(self, timeout_s: float) -> None:
        """End the loop after the current step, waiting at most `timeout_s`."""
        self._stopping = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def _run(self) -> None:
        gc.collect()
        gc.freeze()
        try:
            with torch.inference_mode():
                running: Step | None = None
                while not self._stopping:
                    running = self.turn(running)
        finally:
            self._on_exit()

    def turn(self, running: Step | None) -> Step | None:
        """With a step under way (or none), launch the next one, then take in the first; returns what is under way."""
        self._drain_inbox()
        if running is None:
            following = self._launch()
            if following is None and not self.scheduler.has_work():
                self._wake.wait()
                self._wake.clear()
            return following
        self._wait_for_arrivals()
        following = self._launch()
        self._take_in(running)
        return following

    def _wait_for_arrivals(self) -> None:
        """Until the step under way is about to end."""
        while (left_s := self._pace.ends_at - self._lead_s - self._pace.launch_s - time.perf_counter()) > 0:
            if self._wake.wait(left_s):
                self._wake.clear()
                self._drain_inbox()

    def _launch(self) -> Step | None:
        begin = time.perf_counter()
        segments = self.scheduler.schedule(self.kv)
        if not segments:
            return None
        step = self.runner.launch(segments)
        for segment in segments:
            self.kv.commit(segment.seq, segment.end)
            segment.seq.in_flight += segment.want
        self._pace.launched(step.rows, begin)
        return step

    @phase("take in")
    def _take_in(self, step: Step) -> None:
        tokens = step.tokens()
        self._pace.ended(step.rows)
        outputs = []
        for segment, token in zip(step.segments, tokens, strict=True):
            seq = segment.seq
            seq.in_flight -= 1
            if seq.finish_reason is not None:
                # It ended while this step was under way.
                continue
            seq.tokens.append(token)
            reason = None
            if token in seq.sampling.stop_ids:
                reason = "stop"
            elif len(seq.tokens) == seq.max_len:
                reason = "length"
            if reason is not None:
                self._finish(seq, reason)
            outputs.append(Output(seq, [token], reason))
        if outputs:
            self._on_step(outputs)

    def _drain_inbox(self) -> None:
        while self._inbox:
            command, seq = self._inbox.popleft()
            if command == "add":
                self.scheduler.add(seq)
            elif seq.finish_reason is None:
                self._finish(seq, "abort")

    def _finish(self, seq: Sequence, reason: str) -> None:
        seq.finish_reason = reason
        self.scheduler.remove(seq)
        self.kv.free(seq)


class Pace:
    """How long steps take, learned from those that ended: expected end of the step under way."""

    def __init__(self) -> None:
        self.ends_at = 0.0
        """On `time.perf_counter`'s clock; 0 while it is unknown."""
        self.launch_s = 0.0
        """What it takes to put a step together: the slower of the recent ones."""
        self._last_end = 0.0
        self._starts: deque[float] = deque()
        self._durations: dict[int, float] = {}
        self._rows: deque[int] = deque()

    def launched(self, rows: int, begin: float) -> None:
        now = time.perf_counter()
        self.launch_s = max(now - begin, 0.9 * self.launch_s)
        self._starts.append(now)
        self._rows.append(rows)
        if len(self._rows) == 1:
            self._expect(now)

    def ended(self, rows: int) -> None:
        now = time.perf_counter()
        duration = now - max(self._starts.popleft(), self._last_end)
        self._rows.popleft()
        known = self._durations.get(rows, duration)
        # Shorter at once, longer slowly: what is launched too early costs a wait, too late an idle GPU.
        self._durations[rows] = min(duration, known + 0.1 * (duration - known))
        self._last_end = now
        if self._rows:
            self._expect(now)

    def _expect(self, start: float) -> None:
        duration = self._durations.get(self._rows[0])
        self.ends_at = 0.0 if duration is None else start + duration
