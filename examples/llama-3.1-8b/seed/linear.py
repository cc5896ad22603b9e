"""Decides how rows meet weights: every norm, product and activation by itself, as the framework offers them.

Axes: T rows, C hidden, N output columns, K input columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from products import Products
from weights import ModelConfig


@dataclass(slots=True)
class Stream:
    """The residual stream of T rows on its way through the layers."""

    x: torch.Tensor
    """(T, C)"""
    h: torch.Tensor
    """(T, C) the normed x."""


class Linear:
    """Component `linear`, interface 2."""

    def __init__(self, config: ModelConfig, device: torch.device) -> None:
        self._eps, self._products = config.norm_eps, Products(device)

    def begin(self, ids: torch.Tensor, table: torch.Tensor, norm: torch.Tensor) -> Stream:
        """The embedding of (T,) ids and its first norm."""
        x = torch.nn.functional.embedding(ids, table)
        return Stream(x, self._normed(x, norm))

    def project(self, stream: Stream, w: torch.Tensor, kind: str = "project") -> torch.Tensor:
        """norm(x) @ w.T; `kind` is "project", or "head" for logits."""
        return self._products.multiply(stream.h, w)

    def gate(self, stream: Stream, w: torch.Tensor) -> torch.Tensor:
        """silu(gate) * up of norm(x), where w holds the gate's N rows, then up's."""
        gate, up = self._products.multiply(stream.h, w).chunk(2, dim=-1)
        return torch.nn.functional.silu(gate) * up

    def add(self, stream: Stream, h: torch.Tensor, w: torch.Tensor, norm: torch.Tensor) -> None:
        """x += h @ w.T; `norm` comes next."""
        stream.x = stream.x + self._products.multiply(h, w)
        stream.h = self._normed(stream.x, norm)

    def pick(self, stream: Stream, rows: torch.Tensor) -> Stream:
        """Only the named rows of the stream."""
        return Stream(stream.x.index_select(0, rows), stream.h.index_select(0, rows))

    def _normed(self, x: torch.Tensor, norm: torch.Tensor) -> torch.Tensor:
        wide = x.float()
        return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self._eps) * norm.float()).to(x.dtype)
