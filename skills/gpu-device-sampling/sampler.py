"""Decides the next tokens: the largest logit, or a draw at the request's temperature, both on the device."""

from __future__ import annotations

import torch
from gpu import jit, tl
from sequence import Sampling
from weights import ModelConfig

PART = 1024
"""Logits that one program looks through."""


class Sampler:
    """Component `sampler`, interface 2. Axes: R rows, V vocabulary."""

    def __init__(self, config: ModelConfig, device: torch.device) -> None:
        self._device, self._vocab = device, config.vocab_size

    def greedy(self, logits: torch.Tensor) -> torch.Tensor:
        """(R, V) → (R,) int32: the first of each row's largest logits."""
        if not logits.is_cuda:
            return logits.argmax(dim=-1).to(torch.int32)
        (rows, width), parts = logits.shape, -(-logits.shape[1] // PART)
        best, where = logits.new_empty((rows, parts)), logits.new_empty((rows, parts), dtype=torch.int32)
        out = where.new_empty(rows)
        part_kernel[(rows, parts)](logits, best, where, width, parts, BLOCK=PART, num_warps=4)
        whole_kernel[(rows,)](best, where, out, parts, BLOCK=1 << (parts - 1).bit_length(), num_warps=4)
        return out

    def draw(self, logits: torch.Tensor, samplings: list[Sampling], positions: list[int]) -> torch.Tensor:
        """(R, V) → (R,) int32; the draw at a position depends on (seed, position) and the logits alone."""
        wanted = torch.tensor([max(s.temperature, 1e-4) for s in samplings], device=self._device)[:, None]
        scaled = (logits.float() - logits.float().amax(dim=-1, keepdim=True)) / wanted
        if any(s.top_p < 1 for s in samplings):
            scaled = self._top(scaled, torch.tensor([s.top_p for s in samplings], device=self._device)[:, None])
        keys = torch.tensor([_key(s.seed, p) for s, p in zip(samplings, positions, strict=True)], device=self._device)
        # Gumbel 1954: the largest of logit + noise is a draw from the softmax.
        return (scaled + self._gumbel(keys)).argmax(dim=-1).to(torch.int32)

    def _top(self, scaled: torch.Tensor, top_p: torch.Tensor) -> torch.Tensor:
        ordered, order = scaled.softmax(dim=-1).sort(dim=-1, descending=True)
        # A token stays while the mass before it is below top_p, so that at least one stays.
        gone = (ordered.cumsum(dim=-1) - ordered >= top_p).scatter(1, order, ordered.cumsum(dim=-1) - ordered >= top_p)
        return scaled.masked_fill(gone, -torch.inf)

    def _gumbel(self, keys: torch.Tensor) -> torch.Tensor:
        """(R, V) noise from (R,) int64 keys: a hash of key and token."""
        bits = keys[:, None] + torch.arange(self._vocab, device=self._device) * 0x9E3779B97F4A7C1
        for shift, factor in ((30, 0xBF58476D1CE4E5B), (27, 0x94D049BB133111E), (31, 1)):
            bits = (bits ^ ((bits >> shift) & ((1 << (64 - shift)) - 1))) * factor
        uniform = ((bits >> 24) & 0xFFFFFFFF).double().add_(0.5).mul_(2.0**-32)
        return uniform.log().neg_().log_().neg_().float()


def _key(seed: int, position: int) -> int:
    return (seed * 0x2545F4914F6CDD1D + position * 0xD1342543DE82EF95) % (1 << 63)


@jit
def part_kernel(logits_ptr, best_ptr, where_ptr, width, parts, BLOCK: tl.constexpr):
    row, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    columns = part * BLOCK + tl.arange(0, BLOCK)
    values = tl.load(logits_ptr + row * width + columns, mask=columns < width, other=-float("inf")).to(tl.float32)
    best, index = tl.max(values, axis=0, return_indices=True)
    tl.store(best_ptr + row * parts + part, best.to(best_ptr.dtype.element_ty))
    tl.store(where_ptr + row * parts + part, part * BLOCK + index)


@jit
def whole_kernel(best_ptr, where_ptr, out_ptr, parts, BLOCK: tl.constexpr):
    """Of the first best of each part, the first of the best."""
    row = tl.program_id(0)
    at = tl.arange(0, BLOCK)
    values = tl.load(best_ptr + row * parts + at, mask=at < parts, other=-float("inf")).to(tl.float32)
    index = tl.argmax(values, axis=0)
    tl.store(out_ptr + row, tl.load(where_ptr + row * parts + index))
