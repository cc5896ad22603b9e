"""Decides how rows attend: over pages of the KV cache, by Triton kernels on a GPU and by gathered pages on a CPU.

Axes: T rows, H query heads, K key/value heads, G query heads per key/value head, D head dimension.
"""

from __future__ import annotations

import torch
from batch import QUERY_BLOCK, Batch
from gpu import jit, tl
from knobs import read_knobs
from kv_cache import PAGE, KVCache
from rope import Rope
from weights import ModelConfig

LOG2_E = 1.4426950408889634
DECODE = {"BLOCK": 32, "BLOCKS_AHEAD": 2, "num_warps": 2, "num_stages": 3}
"""Keys per turn of the loop, turns whose keys are asked for before the previous kernel has ended, and pipelining."""


class Attention:
    """Component `attention`, interface 2."""

    def __init__(self, config: ModelConfig, device: torch.device) -> None:
        self._config = config
        self._rope = Rope(config, device)
        self._group = config.num_heads // config.num_kv_heads
        self._scale = config.head_dim**-0.5 * LOG2_E
        self._programs = 1
        if device.type == "cuda":
            knobs = read_knobs(__file__)
            processors = torch.cuda.get_device_properties(device).multi_processor_count
            self._programs = int(knobs["programs_per_processor"] * processors)
            self._parts = torch.empty(self._programs * self._group * config.head_dim, device=device)
            self._stats = torch.empty(self._programs * self._group * 2, device=device)
            self._arrived = torch.zeros(self._programs, dtype=torch.int32, device=device)

    def attend(self, layer: int, qkv: torch.Tensor, batch: Batch, kv: KVCache) -> torch.Tensor:
        """Rotate, store K/V of all rows, attend: (T, (H + 2 K) D) → (T, H D). `qkv` may be overwritten."""
        if not qkv.is_cuda:
            return self._attend_gathered(layer, qkv, batch, kv)
        config, keys, values, width = self._config, kv.keys[layer], kv.values[layer], kv.table.shape[1]
        shape = {"KV_HEADS": config.num_kv_heads, "GROUP": self._group, "D": config.head_dim, "PAGE": PAGE}
        rows, out = qkv.shape[0], qkv.new_empty((qkv.shape[0], config.num_heads * config.head_dim))
        where = (kv.table, batch.positions, batch.slots)
        if batch.prompts:
            rotate_store_kernel[(rows,)](
                qkv, self._rope.cos, self._rope.sin, keys, values, *where, batch.counts, width,
                HEADS_P=1 << (config.num_heads - 1).bit_length(), **shape, num_warps=4,
            )  # fmt: skip
            blocks_kernel[(batch.block_rows.shape[0], config.num_kv_heads)](
                qkv, out, keys, values, *where, batch.block_rows, batch.block_lens, batch.counts, width, self._scale,
                BLOCK_Q=QUERY_BLOCK, **shape, num_warps=4, num_stages=3,
            )  # fmt: skip
            return out
        splits = self.splits(rows)
        decode_kernel[(rows, config.num_kv_heads, splits)](
            qkv, out, keys, values, self._rope.cos, self._rope.sin, *where, batch.counts, self._parts, self._stats,
            self._arrived, width, self._scale,
            SPLITS=splits, **shape, **DECODE, launch_pdl=True,
        )  # fmt: skip
        return out

    def splits(self, rows: int) -> int:
        """Parts that each sequence's pages are attended in, so that few sequences keep the GPU busy: 1, 2, 4 or 8."""
        share = self._programs // (rows * self._config.num_kv_heads)
        return 1 << (min(8, max(1, share)).bit_length() - 1)

    def _attend_gathered(self, layer: int, qkv: torch.Tensor, batch: Batch, kv: KVCache) -> torch.Tensor:
        """The same, one sequence after another over copies of its pages."""
        config = self._config
        heads, kv_heads, dim = config.num_heads, config.num_kv_heads, config.head_dim
        out = qkv.new_empty((qkv.shape[0], heads * dim))
        for span in batch.spans:
            rows, end = slice(span.row, span.row + span.count), span.start + span.count
            at = batch.positions[rows].long()
            q, k, v = qkv[rows].view(span.count, -1, dim).split([heads, kv_heads, kv_heads], dim=1)
            pages = kv.table[span.slot].long()
            kv.keys[layer, pages[at // PAGE], :, at % PAGE] = self._rope.rotate(k, at)
            kv.values[layer, pages[at // PAGE], :, at % PAGE] = v
            used = pages[: -(-end // PAGE)]
            keys, values = (x[layer, used].transpose(0, 1).reshape(kv_heads, -1, dim) for x in (kv.keys, kv.values))
            mask = torch.arange(end, device=at.device)[None, :] <= at[:, None]
            mixed = torch.nn.functional.scaled_dot_product_attention(
                self._rope.rotate(q, at).transpose(0, 1)[None], keys[None, :, :end], values[None, :, :end],
                attn_mask=mask, enable_gqa=True,
            )  # fmt: skip
            out[rows] = mixed[0].transpose(0, 1).reshape(span.count, -1)
        return out


@jit
def rotate_store_kernel(
    qkv_ptr, cos_ptr, sin_ptr, k_ptr, v_ptr, table_ptr, positions_ptr, slots_ptr, head_ptr, table_width,
    KV_HEADS: tl.constexpr, GROUP: tl.constexpr, HEADS_P: tl.constexpr, D: tl.constexpr, PAGE: tl.constexpr,
):  # fmt: skip
    """Rotate q in place, rotate k, and write k and v to their page."""
    row = tl.program_id(0)
    if row >= tl.load(head_ptr):
        return
    HALF: tl.constexpr = D // 2
    HEADS: tl.constexpr = KV_HEADS * GROUP
    position = tl.load(positions_ptr + row)
    slot = tl.load(slots_ptr + row)
    half = tl.arange(0, HALF)
    cos = tl.load(cos_ptr + position * HALF + half)[None, :]
    sin = tl.load(sin_ptr + position * HALF + half)[None, :]
    base = qkv_ptr + row.to(tl.int64) * (HEADS + 2 * KV_HEADS) * D
    heads = tl.arange(0, HEADS_P)
    mask = (heads < HEADS)[:, None]
    at = base + heads[:, None] * D + half[None, :]
    a = tl.load(at, mask=mask, other=0.0).to(tl.float32)
    b = tl.load(at + HALF, mask=mask, other=0.0).to(tl.float32)
    tl.store(at, (a * cos - b * sin).to(qkv_ptr.dtype.element_ty), mask=mask)
    tl.store(at + HALF, (b * cos + a * sin).to(qkv_ptr.dtype.element_ty), mask=mask)
    page = tl.load(table_ptr + slot * table_width + position // PAGE).to(tl.int64)
    kv_heads = tl.arange(0, KV_HEADS)
    target = (page * KV_HEADS + kv_heads[:, None]) * PAGE * D + (position % PAGE) * D + half[None, :]
    at = base + HEADS * D + kv_heads[:, None] * D + half[None, :]
    a = tl.load(at).to(tl.float32)
    b = tl.load(at + HALF).to(tl.float32)
    tl.store(k_ptr + target, (a * cos - b * sin).to(k_ptr.dtype.element_ty))
    tl.store(k_ptr + target + HALF, (b * cos + a * sin).to(k_ptr.dtype.element_ty))
    at += KV_HEADS * D
    tl.store(v_ptr + target, tl.load(at))
    tl.store(v_ptr + target + HALF, tl.load(at + HALF))


@jit
def blocks_kernel(
    qkv_ptr, out_ptr, k_ptr, v_ptr, table_ptr, positions_ptr, slots_ptr, block_row_ptr, block_len_ptr, head_ptr,
    table_width, scale,
    KV_HEADS: tl.constexpr, GROUP: tl.constexpr, D: tl.constexpr, PAGE: tl.constexpr, BLOCK_Q: tl.constexpr,
):  # fmt: skip
    """BLOCK_Q rows of one sequence against its pages up to the diagonal, for one key/value head."""
    block, head = tl.program_id(0), tl.program_id(1)
    if block >= tl.load(head_ptr + 1):
        return
    HEADS: tl.constexpr = KV_HEADS * GROUP
    first = tl.load(block_row_ptr + block)
    count = tl.load(block_len_ptr + block)
    slot = tl.load(slots_ptr + first)
    position = tl.load(positions_ptr + first)
    line = tl.arange(0, BLOCK_Q * GROUP)
    row = first + line // GROUP
    q_position = position + line // GROUP
    inside = (line // GROUP < count)[:, None]
    column = (head * GROUP + line % GROUP) * D
    dims = tl.arange(0, D)
    at = row.to(tl.int64) * (HEADS + 2 * KV_HEADS) * D + column
    q = tl.load(qkv_ptr + at[:, None] + dims[None, :], mask=inside, other=0.0)
    top = tl.full((BLOCK_Q * GROUP,), -float("inf"), tl.float32)
    total = tl.zeros((BLOCK_Q * GROUP,), tl.float32)
    acc = tl.zeros((BLOCK_Q * GROUP, D), tl.float32)
    keys = tl.arange(0, PAGE)
    stop = (position + count - 1) // PAGE + 1
    for first_page in range(0, stop, 8):
        p0, p1, p2, p3, p4, p5, p6, p7 = eight_pages(table_ptr + slot * table_width, first_page, stop)
        for index in range(first_page, tl.minimum(first_page + 8, stop)):
            page = chosen(index - first_page, p0, p1, p2, p3, p4, p5, p6, p7)
            base = (page * KV_HEADS + head) * PAGE * D
            k = tl.load(k_ptr + base + keys[:, None] * D + dims[None, :])
            v = tl.load(v_ptr + base + keys[:, None] * D + dims[None, :])
            scores = tl.dot(q, tl.trans(k)) * scale
            scores = tl.where((index * PAGE + keys)[None, :] <= q_position[:, None], scores, -float("inf"))
            higher = tl.maximum(top, tl.max(scores, axis=1))
            weights = tl.exp2(scores - higher[:, None])
            shrink = tl.exp2(top - higher)
            total = total * shrink + tl.sum(weights, axis=1)
            acc = tl.dot(weights.to(v.dtype), v, acc * shrink[:, None])
            top = higher
    result = acc / total[:, None]
    at = row.to(tl.int64) * HEADS * D + column
    tl.store(out_ptr + at[:, None] + dims[None, :], result.to(out_ptr.dtype.element_ty), mask=inside)


@jit
def decode_kernel(
    qkv_ptr, out_ptr, k_ptr, v_ptr, cos_ptr, sin_ptr, table_ptr, positions_ptr, slots_ptr, head_ptr,
    part_ptr, stat_ptr, arrived_ptr, table_width, scale,
    KV_HEADS: tl.constexpr, GROUP: tl.constexpr, D: tl.constexpr, PAGE: tl.constexpr, SPLITS: tl.constexpr,
    BLOCK: tl.constexpr, BLOCKS_AHEAD: tl.constexpr,
):  # fmt: skip
    """One new token of one sequence for one key/value head: rotate, write k and v, attend; the pages in SPLITS parts.

    The part that arrives last puts the parts together.
    """
    row, head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    if row >= tl.load(head_ptr):
        return
    HALF: tl.constexpr = D // 2
    HEADS: tl.constexpr = KV_HEADS * GROUP
    ROWS: tl.constexpr = 16
    position = tl.load(positions_ptr + row)
    slot = tl.load(slots_ptr + row)
    half = tl.arange(0, HALF)
    dims = tl.arange(0, D)
    cos = tl.load(cos_ptr + position * HALF + half)
    sin = tl.load(sin_ptr + position * HALF + half)
    blocks = (position + BLOCK - 1) // BLOCK
    each = (blocks + SPLITS - 1) // SPLITS
    start = split * each
    stop = tl.minimum(start + each, blocks)
    keys = tl.arange(0, BLOCK)
    # The step's integers and what earlier steps stored do not depend on the previous kernel.
    for block in tl.static_range(BLOCKS_AHEAD):
        if start + block < stop:
            ahead = tl.load(table_ptr + slot * table_width + (start + block) * BLOCK // PAGE).to(tl.int64)
            lines = ((start + block) * BLOCK % PAGE + keys)[:, None] * D + tl.arange(0, D // 64)[None, :] * 64
            places = (ahead * KV_HEADS + head) * PAGE * D + lines
            prefetch_l2(k_ptr + places)
            prefetch_l2(v_ptr + places)
    tl.extra.cuda.gdc_wait()
    base = qkv_ptr + row.to(tl.int64) * (HEADS + 2 * KV_HEADS) * D
    lines = tl.arange(0, ROWS)
    real = (lines < GROUP)[:, None]
    at = base + (head * GROUP + lines)[:, None] * D + half[None, :]
    a = tl.load(at, mask=real, other=0.0).to(tl.float32)
    b = tl.load(at + HALF, mask=real, other=0.0).to(tl.float32)
    q1 = (a * cos[None, :] - b * sin[None, :]).to(qkv_ptr.dtype.element_ty)
    q2 = (b * cos[None, :] + a * sin[None, :]).to(qkv_ptr.dtype.element_ty)
    top = tl.full((ROWS,), -float("inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    acc = tl.zeros((ROWS, D), tl.float32)
    if split == 0:
        new_k = base + (HEADS + head) * D + half
        c = tl.load(new_k).to(tl.float32)
        d = tl.load(new_k + HALF).to(tl.float32)
        k1 = (c * cos - d * sin).to(qkv_ptr.dtype.element_ty)
        k2 = (d * cos + c * sin).to(qkv_ptr.dtype.element_ty)
        new_v = tl.load(base + (HEADS + KV_HEADS + head) * D + dims)
        new_page = tl.load(table_ptr + slot * table_width + position // PAGE).to(tl.int64)
        target = (new_page * KV_HEADS + head) * PAGE * D + (position % PAGE) * D
        tl.store(k_ptr + target + half, k1)
        tl.store(k_ptr + target + HALF + half, k2)
        tl.store(v_ptr + target + dims, new_v)
        products = q1.to(tl.float32) * k1.to(tl.float32)[None, :] + q2.to(tl.float32) * k2.to(tl.float32)[None, :]
        top = tl.sum(products, axis=1) * scale
        total += 1.0
        acc += new_v.to(tl.float32)[None, :]
    RATIO: tl.constexpr = PAGE // BLOCK
    for first_page in range(start // RATIO, (stop + RATIO - 1) // RATIO, 8):
        p0, p1, p2, p3, p4, p5, p6, p7 = eight_pages(
            table_ptr + slot * table_width, first_page, (stop + RATIO - 1) // RATIO
        )
        first, last = tl.maximum(first_page * RATIO, start), tl.minimum((first_page + 8) * RATIO, stop)
        for index in range(first, last):
            page = chosen(index // RATIO - first_page, p0, p1, p2, p3, p4, p5, p6, p7)
            line = (page * KV_HEADS + head) * PAGE * D + (index % RATIO * BLOCK + keys)[:, None] * D
            k1s = tl.load(k_ptr + line + half[None, :])
            k2s = tl.load(k_ptr + line + HALF + half[None, :])
            v = tl.load(v_ptr + line + dims[None, :])
            scores = tl.dot(q1, tl.trans(k1s))
            scores = tl.dot(q2, tl.trans(k2s), scores) * scale
            scores = tl.where((index * BLOCK + keys)[None, :] < position, scores, -float("inf"))
            higher = tl.maximum(top, tl.max(scores, axis=1))
            weights = tl.exp2(scores - higher[:, None])
            shrink = tl.exp2(top - higher)
            total = total * shrink + tl.sum(weights, axis=1)
            acc = tl.dot(weights.to(v.dtype), v, acc * shrink[:, None])
            top = higher
    tl.extra.cuda.gdc_launch_dependents()
    out = out_ptr + row.to(tl.int64) * HEADS * D + (head * GROUP + lines)[:, None] * D + dims[None, :]
    if SPLITS == 1:
        tl.store(out, (acc / total[:, None]).to(out_ptr.dtype.element_ty), mask=real)
    else:
        cell = (row * KV_HEADS + head) * SPLITS
        tl.store(part_ptr + ((cell + split) * GROUP + lines)[:, None] * D + dims[None, :], acc, mask=real)
        stats = stat_ptr + ((cell + split) * GROUP + lines) * 2
        tl.store(stats, top, mask=lines < GROUP)
        tl.store(stats + 1, total, mask=lines < GROUP)
        tl.debug_barrier()
        order = tl.atomic_add(arrived_ptr + row * KV_HEADS + head, 1, sem="acq_rel", scope="gpu")
        if order == SPLITS - 1:
            tl.store(arrived_ptr + row * KV_HEADS + head, 0)
            all_top = tl.full((ROWS,), -float("inf"), tl.float32)
            all_total = tl.zeros((ROWS,), tl.float32)
            all_acc = tl.zeros((ROWS, D), tl.float32)
            for part in range(SPLITS):
                # Written by other multiprocessors: read from L2, not from a stale L1.
                its = ((cell + part) * GROUP + lines) * 2
                its_top = tl.load(stat_ptr + its, mask=lines < GROUP, other=0.0, cache_modifier=".cg")
                its_total = tl.load(stat_ptr + its + 1, mask=lines < GROUP, other=1.0, cache_modifier=".cg")
                values = part_ptr + ((cell + part) * GROUP + lines)[:, None] * D + dims[None, :]
                its_acc = tl.load(values, mask=real, other=0.0, cache_modifier=".cg")
                highest = tl.maximum(all_top, its_top)
                keep, grow = tl.exp2(all_top - highest), tl.exp2(its_top - highest)
                all_total = all_total * keep + its_total * grow
                all_acc = all_acc * keep[:, None] + its_acc * grow[:, None]
                all_top = highest
            tl.store(out, (all_acc / all_total[:, None]).to(out_ptr.dtype.element_ty), mask=real)


@jit
def eight_pages(pages_ptr, first, stop):
    """Numbers of eight pages that follow each other: with these at hand no load of the loop waits for another."""
    p0 = tl.load(pages_ptr + first)
    p1 = tl.load(pages_ptr + tl.minimum(first + 1, stop - 1))
    p2 = tl.load(pages_ptr + tl.minimum(first + 2, stop - 1))
    p3 = tl.load(pages_ptr + tl.minimum(first + 3, stop - 1))
    p4 = tl.load(pages_ptr + tl.minimum(first + 4, stop - 1))
    p5 = tl.load(pages_ptr + tl.minimum(first + 5, stop - 1))
    p6 = tl.load(pages_ptr + tl.minimum(first + 6, stop - 1))
    p7 = tl.load(pages_ptr + tl.minimum(first + 7, stop - 1))
    return p0, p1, p2, p3, p4, p5, p6, p7


@jit
def chosen(number, p0, p1, p2, p3, p4, p5, p6, p7):
    low = tl.where(number < 2, tl.where(number < 1, p0, p1), tl.where(number < 3, p2, p3))
    high = tl.where(number < 6, tl.where(number < 5, p4, p5), tl.where(number < 7, p6, p7))
    return tl.where(number < 4, low, high).to(tl.int64)


@jit
def prefetch_l2(pointers):
    """Ask for the cache lines at `pointers` without waiting for them."""
    tl.inline_asm_elementwise(
        "prefetch.global.L2 [$1]; mov.u32 $0, 0;", "=r,l", [pointers], dtype=tl.int32, is_pure=False, pack=1
    )
