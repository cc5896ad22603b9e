"""The engine: up to `max_batch` sequences at once; a step slows down with every running one."""

import asyncio
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path

from model import Model

KNOBS = tomllib.loads(Path(__file__).with_suffix(".toml").read_text())["knob"]


class Engine:
    def __init__(self, model: Model) -> None:
        self._model = model
        self._places = asyncio.Semaphore(KNOBS["max_batch"]["value"])
        self._running = 0

    async def generate(self, prompt: list[int], max_tokens: int) -> AsyncIterator[int]:
        async with self._places:
            self._running += 1
            try:
                tokens = list(prompt)
                for _ in range(max_tokens):
                    slowdown = 1 + 0.05 * (self._running - 1)
                    await asyncio.sleep(KNOBS["delay_ms"]["value"] * slowdown / 1000)
                    tokens.append(self._model.next_id(tokens))
                    yield tokens[-1]
            finally:
                self._running -= 1
