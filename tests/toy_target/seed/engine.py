"""The engine: one sequence at a time, `delay_ms` per token."""

import asyncio
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path

from model import Model

KNOBS = tomllib.loads(Path(__file__).with_suffix(".toml").read_text())["knob"]


class Engine:
    def __init__(self, model: Model) -> None:
        self._model = model
        self._turn = asyncio.Lock()

    async def generate(self, prompt: list[int], max_tokens: int) -> AsyncIterator[int]:
        async with self._turn:
            tokens = list(prompt)
            for _ in range(max_tokens):
                await asyncio.sleep(KNOBS["delay_ms"]["value"] / 1000)
                tokens.append(self._model.next_id(tokens))
                yield tokens[-1]
