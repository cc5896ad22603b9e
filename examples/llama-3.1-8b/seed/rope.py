"""Decides the angles of rotary positions: Llama 3.1's, whose low frequencies are stretched."""

from __future__ import annotations

import math

import torch
from weights import Json, ModelConfig


class Rope:
    """Cosines and sines (max_len, D / 2) in float32; pairs are the two halves of a head, as in Hugging Face."""

    def __init__(self, config: ModelConfig, device: torch.device) -> None:
        half = config.head_dim // 2
        frequencies = config.rope_theta ** (-torch.arange(half, dtype=torch.float64) / half)
        if config.rope_scaling is not None:
            frequencies = _stretched(frequencies, config.rope_scaling)
        angles = torch.outer(torch.arange(config.max_len, dtype=torch.float64), frequencies)
        self.cos, self.sin = angles.cos().float().to(device), angles.sin().float().to(device)

    def rotate(self, x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """(T, heads, D) at (T,) positions."""
        cos, sin = self.cos[positions][:, None], self.sin[positions][:, None]
        a, b = x.float().chunk(2, dim=-1)
        return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1).to(x.dtype)


def _stretched(frequencies: torch.Tensor, scaling: Json) -> torch.Tensor:
    """`rope_type` "llama3": long waves are slowed by `factor`, short ones kept, those between blended."""
    turns = scaling["original_max_position_embeddings"] * frequencies / (2 * math.pi)
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    kept = ((turns - low) / (high - low)).clamp(0, 1)
    return frequencies * (kept + (1 - kept) / scaling["factor"])
