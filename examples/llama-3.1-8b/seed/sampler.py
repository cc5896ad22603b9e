"""Decides the next tokens: the largest logit, or a draw at the request's temperature on the host, row by row."""

from __future__ import annotations

import torch
from sequence import Sampling
from weights import ModelConfig


class Sampler:
    """Component `sampler`, interface 2. Axes: R rows, V vocabulary."""

    def __init__(self, config: ModelConfig, device: torch.device) -> None:
        self._device = device

    def greedy(self, logits: torch.Tensor) -> torch.Tensor:
        """(R, V) → (R,) int32: the first of each row's largest logits."""
        return logits.argmax(dim=-1).to(torch.int32)

    def draw(self, logits: torch.Tensor, samplings: list[Sampling], positions: list[int]) -> torch.Tensor:
        """(R, V) → (R,) int32; the draw at a position depends on (seed, position) and the logits alone."""
        drawn = [self._draw(*item) for item in zip(logits.double().cpu(), samplings, positions, strict=True)]
        return torch.tensor(drawn, dtype=torch.int32, device=self._device)

    def _draw(self, row: torch.Tensor, sampling: Sampling, position: int) -> int:
        probabilities = torch.softmax(row / sampling.temperature, dim=-1)
        if sampling.top_p < 1:
            ordered, order = probabilities.sort(descending=True)
            # A token stays while the mass before it is below top_p, so that at least one stays.
            probabilities[order[ordered.cumsum(-1) - ordered >= sampling.top_p]] = 0
        generator = torch.Generator().manual_seed((sampling.seed * 1_000_003 + position) % 2**63)
        return int(torch.multinomial(probabilities, 1, generator=generator))
