"""Decides how rows meet weights: one library product each, norms and activations as one kernel each.

Axes: T rows, C hidden, N output columns, K input columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from gpu import jit, tl
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
        self._eps, self._fused, self._products = config.norm_eps, device.type == "cuda", Products(device)

    def begin(self, ids: torch.Tensor, table: torch.Tensor, norm: torch.Tensor) -> Stream:
        """The embedding of (T,) ids and its first norm."""
        if not self._fused:
            x = torch.nn.functional.embedding(ids, table)
            return Stream(x, self._normed(x, norm))
        rows, width = ids.shape[0], table.shape[1]
        x, h = table.new_empty((rows, width)), table.new_empty((rows, width))
        embed_kernel[(rows,)](ids, table, norm, x, h, width, self._eps, BLOCK=_power(width), num_warps=8)
        return Stream(x, h)

    def project(self, stream: Stream, w: torch.Tensor, kind: str = "project") -> torch.Tensor:
        """norm(x) @ w.T; `kind` is "project", or "head" for logits."""
        return self._products.multiply(stream.h, w)

    def gate(self, stream: Stream, w: torch.Tensor) -> torch.Tensor:
        """silu(gate) * up of norm(x), where w holds the gate's N rows, then up's."""
        both = self._products.multiply(stream.h, w)
        rows, width = both.shape[0], w.shape[0] // 2
        if not self._fused:
            return torch.nn.functional.silu(both[:, :width]) * both[:, width:]
        out = both.new_empty((rows, width))
        silu_mul_kernel[(rows, -(-width // 2048))](both, out, width, BLOCK=2048, num_warps=4)
        return out

    def add(self, stream: Stream, h: torch.Tensor, w: torch.Tensor, norm: torch.Tensor) -> None:
        """x += h @ w.T; `norm` comes next."""
        self._products.add(stream.x, h, w)
        stream.h = self._normed(stream.x, norm)

    def pick(self, stream: Stream, rows: torch.Tensor) -> Stream:
        """Only the named rows of the stream."""
        return Stream(stream.x.index_select(0, rows), stream.h.index_select(0, rows))

    def _normed(self, x: torch.Tensor, norm: torch.Tensor) -> torch.Tensor:
        if not self._fused:
            wide = x.float()
            return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self._eps) * norm.float()).to(x.dtype)
        out, width = torch.empty_like(x), x.shape[1]
        norm_kernel[(x.shape[0],)](x, norm, out, width, self._eps, BLOCK=_power(width), num_warps=8)
        return out


def _power(value: int) -> int:
    """The least power of two that is not below."""
    return 1 << (value - 1).bit_length()


@jit
def embed_kernel(ids_ptr, table_ptr, norm_ptr, x_ptr, h_ptr, width, eps, BLOCK: tl.constexpr):
    """Rows of the embedding, and their first norm."""
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    mask = columns < width
    token = tl.load(ids_ptr + row).to(tl.int64)
    x = tl.load(table_ptr + token * width + columns, mask=mask, other=0.0)
    wide = x.to(tl.float32)
    weight = tl.load(norm_ptr + columns, mask=mask, other=0.0).to(tl.float32)
    h = wide * tl.rsqrt(tl.sum(wide * wide) / width + eps) * weight
    tl.store(x_ptr + row * width + columns, x, mask=mask)
    tl.store(h_ptr + row * width + columns, h.to(h_ptr.dtype.element_ty), mask=mask)


@jit
def norm_kernel(x_ptr, weight_ptr, out_ptr, width, eps, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    mask = columns < width
    x = tl.load(x_ptr + row * width + columns, mask=mask, other=0.0).to(tl.float32)
    weight = tl.load(weight_ptr + columns, mask=mask, other=0.0).to(tl.float32)
    h = x * tl.rsqrt(tl.sum(x * x) / width + eps) * weight
    tl.store(out_ptr + row * width + columns, h.to(out_ptr.dtype.element_ty), mask=mask)


@jit
def silu_mul_kernel(gate_up_ptr, out_ptr, width, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = columns < width
    gate = tl.load(gate_up_ptr + row * 2 * width + columns, mask=mask).to(tl.float32)
    up = tl.load(gate_up_ptr + row * 2 * width + width + columns, mask=mask).to(tl.float32)
    tl.store(out_ptr + row * width + columns, (gate * tl.sigmoid(gate) * up).to(out_ptr.dtype.element_ty), mask=mask)
