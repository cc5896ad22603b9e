"""Decides how a step reaches the device: tensors made anew, operations launched one by one, tokens waited for."""

from __future__ import annotations

from collections.abc import Sequence as Items

import torch
from batch import Batch, Rows
from kv_cache import KVCache
from model import Model
from phases import phase
from sampler import Sampler
from sequence import Segment


class Step:
    """A step that was launched."""

    def __init__(self, segments: list[Segment], rows: int, tokens: torch.Tensor) -> None:
        self.segments = segments
        """Those that get a token."""
        self.rows = rows
        """Rows that are computed, padding included."""
        self._tokens = tokens

    @phase("wait")
    def tokens(self) -> list[int]:
        """One token per segment of `segments`, in order; waits for the step to end."""
        tokens: list[int] = self._tokens.tolist()
        return tokens


class Runner:
    """Component `runner`, interface 2."""

    def __init__(self, model: Model, kv: KVCache, sampler: Sampler) -> None:
        self._model, self._kv, self._sampler = model, kv, sampler

    @phase("launch")
    def launch(self, segments: Items[Segment]) -> Step:
        """Start computing the segments: K/V of all their rows, and a token for those that want one."""
        rows = Rows(segments, self._kv.slot)
        names = ("ids", "positions", "slots", "counts", "block_rows", "block_lens", "logit_rows")
        tensors = {name: torch.from_numpy(getattr(rows, name)).to(self._model.device) for name in names}
        batch = Batch(**tensors, prompts=rows.prompts, spans=rows.spans())
        logits = self._model.forward(batch, self._kv)
        tokens = self._sampler.greedy(logits)
        drawn = [number for number, segment in enumerate(rows.wanted) if segment.seq.sampling.temperature > 0]
        if drawn:
            samplings = [rows.wanted[i].seq.sampling for i in drawn]
            tokens[drawn] = self._sampler.draw(logits[drawn], samplings, [rows.wanted[i].end for i in drawn])
        return Step(rows.wanted, len(rows.ids), tokens)
