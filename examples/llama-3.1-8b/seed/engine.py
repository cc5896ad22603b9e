"""Decides the loop: one thread; a step is schedule, run, take in; results leave by one callback per step."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

import torch
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
        self._on_step, self._on_exit = on_step, on_exit
        self._inbox: deque[tuple[str, Sequence]] = deque()
        self._wake = threading.Event()
        self._stopping = False
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
        try:
            with torch.inference_mode():
                running: Step | None = None
                while not self._stopping:
                    running = self.turn(running)
        finally:
            self._on_exit()

    def turn(self, running: Step | None) -> Step | None:
        """Launch a step and take in its tokens; returns the step under way, of which this loop never has one."""
        self._drain_inbox()
        if not self.scheduler.has_work():
            self._wake.wait()
            self._wake.clear()
            return None
        step = self._launch()
        if step is None:
            raise RuntimeError("the scheduler has work but scheduled nothing: no sequence fits the KV cache")
        self._take_in(step)
        return None

    def _launch(self) -> Step | None:
        segments = self.scheduler.schedule(self.kv)
        if not segments:
            return None
        step = self.runner.launch(segments)
        for segment in segments:
            self.kv.commit(segment.seq, segment.end)
            segment.seq.in_flight += segment.want
        return step

    @phase("take in")
    def _take_in(self, step: Step) -> None:
        outputs = []
        for segment, token in zip(step.segments, step.tokens(), strict=True):
            seq = segment.seq
            seq.in_flight -= 1
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
