"""Decides what a step computes: every running sequence one token further, and waiting ones as there is room."""

from __future__ import annotations

import asyncio
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from model import Array, Cache, Model, Segment

KNOBS = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))["knob"]


@dataclass(slots=True, kw_only=True, eq=False)
class Sequence:
    """One request: prompt and generated tokens together, and the queue on which new ones leave."""

    tokens: list[int]
    prompt_len: int
    max_tokens: int
    stop_id: int | None
    """Ends the sequence after it was emitted; None under `ignore_eos`."""
    temperature: float = 0.0
    seed: int = 0
    """With `temperature` > 0 the draw at a position depends on it and the position alone."""
    out: asyncio.Queue[tuple[list[int], str | None]] = field(default_factory=asyncio.Queue)
    """New tokens, and the finish reason with the last of them."""
    cache: Cache | None = None

    @property
    def num_generated(self) -> int:
        return len(self.tokens) - self.prompt_len

    @property
    def reason(self) -> str | None:
        if self.num_generated and self.tokens[-1] == self.stop_id:
            return "stop"
        return "length" if self.num_generated >= self.max_tokens else None


class Engine:
    """Continuous batching over one model."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []
        self._work = asyncio.Event()

    def submit(self, seq: Sequence) -> None:
        self.waiting.append(seq)
        self._work.set()

    def abort(self, seq: Sequence) -> None:
        for queue in (self.waiting, self.running):
            if seq in queue:
                queue.remove(seq)

    async def run(self) -> None:
        """Step for as long as there is work; between steps the server gets its turn."""
        while True:
            if not self.waiting and not self.running:
                self._work.clear()
                await self._work.wait()
            self.step()
            await asyncio.sleep(0)

    def step(self) -> None:
        self.admit()
        segments = [self.segment(seq) for seq in self.running]
        logits = self.model.forward(segments)
        for seq, segment, rows in zip(list(self.running), segments, logits, strict=True):
            self.advance(seq, segment, rows)

    def admit(self) -> None:
        room = min(KNOBS["max_running"]["value"] - len(self.running), KNOBS["prefills_per_step"]["value"])
        for seq in self.waiting[: max(0, room)]:
            seq.cache = self.model.cache()
            self.running.append(seq)
            self.waiting.remove(seq)

    def segment(self, seq: Sequence) -> Segment:
        assert seq.cache is not None
        return Segment(ids=seq.tokens[seq.cache.length :], cache=seq.cache)

    def advance(self, seq: Sequence, segment: Segment, rows: Array) -> None:
        self.emit(seq, [self.choose(rows[-1], seq)])

    def choose(self, row: Array, seq: Sequence) -> int:
        if seq.temperature > 0:
            return self.draw(row, seq)
        return int(row.argmax())

    def draw(self, row: Array, seq: Sequence) -> int:
        weights = np.exp((row - row.max()).astype(np.float64) / seq.temperature)
        rng = np.random.default_rng((seq.seed, len(seq.tokens)))
        return int(rng.choice(len(row), p=weights / weights.sum()))

    def emit(self, seq: Sequence, new: list[int]) -> None:
        """Append new tokens, hand them to the server, and finish the sequence where it ends."""
        seq.tokens += new
        reason = seq.reason
        seq.out.put_nowait((new, reason))
        if reason is not None:
            self.running.remove(seq)
