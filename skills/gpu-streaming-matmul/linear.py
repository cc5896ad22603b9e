"""Decides how rows meet weights: one library product each for many rows, one streaming kernel each for few.

Axes: T rows, C hidden, N output columns, K input columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from gpu import jit, tl
from knobs import read_knobs
from products import Products
from weights import ModelConfig


@dataclass(slots=True)
class Stream:
    """The residual stream of T rows on its way through the layers."""

    x: torch.Tensor
    """(T, C)"""
    h: torch.Tensor
    """(T, C) the normed x, but for a factor per row while `squares` is there."""
    squares: torch.Tensor | None
    """(T,) sums of squares of x, from which those factors follow."""
    sums: torch.Tensor | None
    """(2 L, T) where the sums of the norms to come are gathered; None where rows are normed at once."""


@dataclass(frozen=True, slots=True)
class Tiles:
    """How the streaming kernel cuts a matrix."""

    columns: int
    inputs: int
    """Input columns per step of the loop."""
    warps: int
    stages: int
    first: int
    """Input columns that are loaded before the previous kernel has ended."""
    ahead: int
    """Input columns after these that are asked for by then."""


TILES = {
    "project": Tiles(32, 128, 4, 6, 256, 256),
    "gate": Tiles(64, 128, 4, 5, 0, 256),
    "add": Tiles(32, 128, 4, 6, 256, 256),
    "head": Tiles(64, 128, 4, 5, 0, 256),
}
"""The best of a dozen each for Llama-3.1-8B's shapes on an H200, by the time of whole steps of 8 and 32 rows."""


class Linear:
    """Component `linear`, interface 2."""

    def __init__(self, config: ModelConfig, device: torch.device) -> None:
        self._eps, self._norms = config.norm_eps, 2 * config.num_layers
        self._fused, self._products = device.type == "cuda", Products(device)
        widths = (
            config.hidden_size,
            config.intermediate_size,
            config.num_kv_heads * config.head_dim,
            config.vocab_size,
        )
        # The streaming kernel has no ragged tiles; models of odd sizes take the library's way.
        self._few_rows: int = read_knobs(__file__)["few_rows"] if all(width % 128 == 0 for width in widths) else 0

    def begin(self, ids: torch.Tensor, table: torch.Tensor, norm: torch.Tensor) -> Stream:
        """The embedding of (T,) ids and its first norm."""
        if not self._fused:
            x = torch.nn.functional.embedding(ids, table)
            return Stream(x, self._normed(x, norm), None, None)
        rows, width = ids.shape[0], table.shape[1]
        x, h = table.new_empty((rows, width)), table.new_empty((rows, width))
        sums = torch.empty((self._norms, rows), device=ids.device) if rows <= self._few_rows else None
        embed_kernel[(rows,)](
            ids, table, norm, x, h, x if sums is None else sums, width, self._eps,
            NORMS=0 if sums is None else self._norms, SUMS=_power(self._norms), BLOCK=_power(width), num_warps=8,
        )  # fmt: skip
        return Stream(x, h, None, sums)

    def project(self, stream: Stream, w: torch.Tensor, kind: str = "project") -> torch.Tensor:
        """norm(x) @ w.T"""
        if self._few(stream.h):
            return self._stream(stream, w, kind)
        return self._products.multiply(stream.h, w)

    def gate(self, stream: Stream, w: torch.Tensor) -> torch.Tensor:
        """silu(gate) * up of norm(x), where w holds the gate's N rows, then up's."""
        if self._few(stream.h):
            return self._stream(stream, w, "gate")
        both = self._products.multiply(stream.h, w)
        rows, width = both.shape[0], w.shape[0] // 2
        if not self._fused:
            return torch.nn.functional.silu(both[:, :width]) * both[:, width:]
        out = both.new_empty((rows, width))
        silu_mul_kernel[(rows, -(-width // 2048))](both, out, width, BLOCK=2048, num_warps=4)
        return out

    def add(self, stream: Stream, h: torch.Tensor, w: torch.Tensor, norm: torch.Tensor) -> None:
        """x += h @ w.T; `norm` comes next."""
        if stream.sums is None:
            self._products.add(stream.x, h, w)
            stream.h = self._normed(stream.x, norm)
            return
        stream.squares, stream.sums = stream.sums[0], stream.sums[1:]
        stream.h = torch.empty_like(stream.x)
        self._launch(h, None, w, "add", stream.x, (norm, stream.h, stream.squares))

    def pick(self, stream: Stream, rows: torch.Tensor) -> Stream:
        """Only the named rows of the stream."""
        x, h = stream.x.index_select(0, rows), stream.h.index_select(0, rows)
        squares = None if stream.squares is None else stream.squares.index_select(0, rows)
        return Stream(x, h, squares, None if stream.sums is None else stream.sums[:, : len(rows)])

    def _few(self, h: torch.Tensor) -> bool:
        return self._fused and h.shape[0] <= self._few_rows

    def _normed(self, x: torch.Tensor, norm: torch.Tensor) -> torch.Tensor:
        if not self._fused:
            wide = x.float()
            return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self._eps) * norm.float()).to(x.dtype)
        out, width = torch.empty_like(x), x.shape[1]
        norm_kernel[(x.shape[0],)](x, norm, out, width, self._eps, BLOCK=_power(width), num_warps=8)
        return out

    def _stream(self, stream: Stream, w: torch.Tensor, kind: str) -> torch.Tensor:
        columns = w.shape[0] // 2 if kind == "gate" else w.shape[0]
        out = stream.h.new_empty((stream.h.shape[0], columns))
        self._launch(stream.h, stream.squares, w, kind, out, None)
        return out

    def _launch(
        self,
        h: torch.Tensor,
        squares: torch.Tensor | None,
        w: torch.Tensor,
        kind: str,
        out: torch.Tensor,
        then: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None,
    ) -> None:
        tiles, columns = TILES[kind], out.shape[1]
        norm, next_h, next_squares = then or (w, out, out)
        few_kernel[(-(-columns // tiles.columns),)](
            h, h if squares is None else squares, w, out, norm, next_h, next_squares, *h.shape, columns, self._eps,
            SCALE=squares is not None, GATED=kind == "gate", ADD=then is not None,
            FIRST=tiles.first, AHEAD=tiles.ahead, BLOCK_M=max(16, _power(h.shape[0])), BLOCK_N=tiles.columns,
            BLOCK_K=tiles.inputs, STAGES=tiles.stages, num_warps=tiles.warps, launch_pdl=True,
        )  # fmt: skip


def _power(value: int) -> int:
    """The least power of two that is not below."""
    return 1 << (value - 1).bit_length()


@jit
def embed_kernel(
    ids_ptr, table_ptr, norm_ptr, x_ptr, h_ptr, sums_ptr, width, eps,
    NORMS: tl.constexpr, SUMS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Rows of the embedding, and their first norm; zeros where the sums of the other norms will be gathered."""
    row = tl.program_id(0).to(tl.int64)
    if NORMS > 0:
        norms = tl.arange(0, SUMS)
        tl.store(sums_ptr + norms * tl.num_programs(0) + row, tl.zeros((SUMS,), tl.float32), mask=norms < NORMS)
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


@jit(do_not_specialize=["M"])
def few_kernel(
    h_ptr, squares_ptr, w_ptr, out_ptr, norm_ptr, next_h_ptr, next_squares_ptr, M, K, N, eps,
    SCALE: tl.constexpr, GATED: tl.constexpr, ADD: tl.constexpr, FIRST: tl.constexpr, AHEAD: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Few rows: products (M, N) = h (M, K) @ w (N, K).T, times the rows' norm factors if SCALE.

    GATED: w holds N gate rows, then N up rows, and out = silu(gate) * up. ADD: out += products, and the next norm
    begins: next_h = out * norm, next_squares += the sums of squares, from which the next kernel scales its products.
    """
    rows = tl.arange(0, BLOCK_M)
    columns = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    ks = tl.arange(0, BLOCK_K)
    w_ptrs = w_ptr + columns.to(tl.int64)[:, None] * K + ks[None, :]
    up_ptrs = w_ptrs + N.to(tl.int64) * K
    # Weights do not depend on the previous kernel: they travel while it ends.
    starts = w_ptr + columns.to(tl.int64)[:, None] * K
    if FIRST > 0:
        first_ks = tl.arange(0, FIRST)
        first_w = tl.load(starts + first_ks[None, :])
        if GATED:
            first_up = tl.load(starts + N.to(tl.int64) * K + first_ks[None, :])
    lines = starts + FIRST + (tl.arange(0, AHEAD // 64) * 64)[None, :]
    prefetch_l2(lines)
    if GATED:
        prefetch_l2(lines + N.to(tl.int64) * K)
    tl.extra.cuda.gdc_wait()
    h_ptrs = h_ptr + rows[:, None] * K + ks[None, :]
    row_mask = rows[:, None] < M
    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    acc_up = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    if FIRST > 0:
        first_h = tl.load(h_ptr + rows[:, None] * K + first_ks[None, :], mask=row_mask, other=0.0)
        acc = tl.dot(first_h, tl.trans(first_w), acc)
        if GATED:
            acc_up = tl.dot(first_h, tl.trans(first_up), acc_up)
    for k in tl.range(FIRST, K, BLOCK_K, num_stages=STAGES):
        h = tl.load(h_ptrs + k, mask=row_mask, other=0.0)
        acc = tl.dot(h, tl.trans(tl.load(w_ptrs + k)), acc)
        if GATED:
            acc_up = tl.dot(h, tl.trans(tl.load(up_ptrs + k)), acc_up)
    # Not earlier: programs that come while multiprocessors are full gather where room is first, and share its rate.
    tl.extra.cuda.gdc_launch_dependents()
    if SCALE:
        factor = tl.rsqrt(tl.load(squares_ptr + rows, mask=rows < M, other=1.0) / K + eps)[:, None]
        acc *= factor
        acc_up *= factor
    if GATED:
        acc = acc * tl.sigmoid(acc) * acc_up
    at = rows[:, None] * N + columns[None, :]
    if ADD:
        acc += tl.load(out_ptr + at, mask=row_mask, other=0.0).to(tl.float32)
    result = acc.to(out_ptr.dtype.element_ty)
    tl.store(out_ptr + at, result, mask=row_mask)
    if ADD:
        wide = result.to(tl.float32)
        weight = tl.load(norm_ptr + columns).to(tl.float32)
        tl.store(next_h_ptr + at, (wide * weight[None, :]).to(next_h_ptr.dtype.element_ty), mask=row_mask)
        tl.atomic_add(next_squares_ptr + rows, tl.sum(wide * wide, axis=1), mask=rows < M, sem="relaxed")


@jit
def prefetch_l2(pointers):
    """Ask for the cache lines at `pointers` without waiting for them."""
    tl.inline_asm_elementwise(
        "prefetch.global.L2 [$1]; mov.u32 $0, 0;", "=r,l", [pointers], dtype=tl.int32, is_pure=False, pack=1
    )
