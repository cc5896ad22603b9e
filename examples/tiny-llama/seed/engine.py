"""Decides the loop: one thread; a step is schedule, run, postprocess; results leave by one callback per step."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from kv_cache import KVCache
from model import Model
from phases import phase
from sampler import Sampler
from scheduler import Scheduler
from sequence import Output, Segment, Sequence
from weights import Array


class Engine:
    """Component `engine`, interface 1. `submit` and `abort` may be called from any thread."""

    def __init__(self, model: Model, on_step: Callable[[list[Output]], None], on_exit: Callable[[], None]) -> None:
        """`on_step` gets a step's outputs, `on_exit` is called when the loop ends; both run in the engine's thread."""
        self.model = model
        self.scheduler = Scheduler()
        self.kv = KVCache(model.config)
        self.sampler = Sampler()
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
            while not self._stopping:
                self._drain_inbox()
                if not self.scheduler.has_work():
                    self._wake.wait()
                    self._wake.clear()
                    continue
                self._step()
        finally:
            self._on_exit()

    def _drain_inbox(self) -> None:
        while self._inbox:
            command, seq = self._inbox.popleft()
            if command == "add":
                self.scheduler.add(seq)
            elif seq.finish_reason is None:
                self._finish(seq, "abort")

    def _step(self) -> None:
        with phase("schedule"):
            segments = self.scheduler.schedule(self.kv, self.sampler)
        if not segments:
            raise RuntimeError("the scheduler has work but scheduled nothing: no sequence fits the KV cache")
        with phase("prefill" if any(segment.seq.num_generated == 0 for segment in segments) else "decode"):
            logits = self.model.forward(segments, self.kv)
        with phase("sample"):
            outputs = [self._advance(segment, rows) for segment, rows in zip(segments, logits, strict=True)]
        with phase("emit"):
            self._on_step([output for output in outputs if output is not None])

    def _advance(self, segment: Segment, rows: Array) -> Output | None:
        """Take in what a segment computed; None for a prefill chunk that is not the last."""
        seq = segment.seq
        token_ids: list[int] = []
        reason = None
        if segment.want:
            for token in self.sampler.accept(segment, rows):
                token_ids.append(token)
                if token in seq.sampling.stop_ids:
                    reason = "stop"
                elif len(token_ids) == seq.remaining:
                    reason = "length"
                if reason is not None:
                    break
        seq.tokens.extend(token_ids)
        # The last token was chosen, not computed: its K/V come with the next step. Rejected drafts fall out here too.
        self.kv.commit(seq, min(segment.end, len(seq.tokens) - 1))
        if reason is not None:
            self._finish(seq, reason)
        return Output(seq=seq, token_ids=token_ids, finish_reason=reason) if token_ids else None

    def _finish(self, seq: Sequence, reason: str) -> None:
        seq.finish_reason = reason
        self.scheduler.remove(seq)
        self.kv.free(seq)
        self.sampler.release(seq)
