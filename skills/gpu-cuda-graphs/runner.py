"""Decides how a step reaches the GPU: one copy of a few integers and one recorded graph, from token ids to token ids.

Ids of decoding sequences never leave the GPU: an unknown id stands for the token that the row's slot was given last.
So a step can be launched before the one before it has ended.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence as Items
from dataclasses import dataclass

import numpy as np
import torch
from batch import QUERY_BLOCK, Batch, Rows, Span
from gpu import jit, tl
from knobs import read_knobs
from kv_cache import MAX_SLOTS, KVCache
from model import Model
from phases import phase
from sampler import Sampler
from sequence import Segment

FEW_LOGITS = (16, 64)
"""Prompt steps come with room for so many logits, or for as many as rows; 16 only where rows are not many."""
MANY_ROWS = 256
BESIDE = 32
"""Decodes beside a usual prompt that padding is kept small for."""
IDS = 64
"""Rows per program of the kernels that look after ids."""
RING = 4
"""Steps whose integers and tokens may be on their way at a time."""
FIELDS = ("counts", "ids", "positions", "slots", "logit_rows", "logit_slots", "block_rows", "block_lens")
PADDING = {"slots": MAX_SLOTS, "logit_slots": MAX_SLOTS}
"""What stands behind the fields' values, if not 0: padding rows write to a slot of their own."""


class Step:
    """A step that was launched."""

    def __init__(self, segments: list[Segment], rows: int, tokens: torch.Tensor, done: torch.cuda.Event | None) -> None:
        self.segments = segments
        """Those that get a token."""
        self.rows = rows
        """Rows that are computed, padding included."""
        self._tokens, self._done = tokens, done

    @phase("wait")
    def tokens(self) -> list[int]:
        """One token per segment of `segments`, in order; waits for the step to end."""
        if self._done is not None:
            self._done.synchronize()
        tokens: list[int] = self._tokens.tolist()
        return tokens


@dataclass(frozen=True, slots=True)
class Shape:
    """What a graph is recorded for."""

    rows: int
    logits: int
    prompts: bool

    @property
    def blocks(self) -> int:
        """Room for query blocks: every sequence but one wants logits, and may have one block that is not full."""
        return min(self.rows, self.rows // QUERY_BLOCK + self.logits + 1)


class Runner:
    """Component `runner`, interface 2."""

    def __init__(self, model: Model, kv: KVCache, sampler: Sampler) -> None:
        self._model, self._kv, self._sampler = model, kv, sampler
        self._cuda = model.device.type == "cuda"
        knobs = read_knobs(__file__)
        longest: int = knobs["graph_rows"]
        ends = np.cumsum([4 if name == "counts" else longest for name in FIELDS]).tolist()
        self._places = {name: slice(start, end) for name, start, end in zip(FIELDS, [0, *ends], ends, strict=False)}
        self._integers = torch.zeros(ends[-1], dtype=torch.int32, device=model.device)
        self._fields = {name: self._integers[place] for name, place in self._places.items()}
        self._staged = [torch.zeros(ends[-1], dtype=torch.int32, pin_memory=self._cuda) for _ in range(RING)]
        self._results = [torch.zeros(longest, dtype=torch.int32, pin_memory=self._cuda) for _ in range(RING)]
        self._turn = 0
        self._last = torch.zeros(MAX_SLOTS + 1, dtype=torch.int32, device=model.device)
        """(slots + 1,) the token that each slot was given last."""
        kept = (longest if self._cuda else 0, model.config.vocab_size)
        self._kept = torch.empty(kept, dtype=torch.bfloat16, device=model.device)
        """(T, V) logits of the step launched last, where every graph keeping its own would take too much memory."""
        self._ladder = ladder(longest, knobs["usual_prompt"])
        self._graphs: dict[Shape, tuple[torch.cuda.CUDAGraph, torch.Tensor, torch.Tensor]] = {}
        if self._cuda:
            self._record()

    @phase("launch")
    def launch(self, segments: Items[Segment]) -> Step:
        """Start computing the segments: K/V of all their rows, and a token for those that want one."""
        rows = Rows(segments, self._kv.slot)
        shape = self._shape(len(rows.ids), len(rows.wanted), len(rows.block_rows), rows.prompts)
        self._turn = (self._turn + 1) % RING
        staged = self._staged[self._turn].numpy()
        for name, place in self._places.items():
            values = getattr(rows, name)
            staged[place][: len(values)] = values
            # Nothing beyond the largest shape's rows is ever read.
            staged[place][len(values) : max(shape.rows, shape.logits)] = PADDING.get(name, 0)
        self._integers.copy_(self._staged[self._turn], non_blocking=True)
        if self._cuda:
            graph, logits, tokens = self._graphs[shape]
            graph.replay()
        else:
            logits, tokens = self._compute(shape, rows.spans())
        self._draw(rows.wanted, logits, tokens)
        result = self._results[self._turn][: len(rows.wanted)]
        result.copy_(tokens[: len(rows.wanted)], non_blocking=True)
        done = torch.cuda.Event() if self._cuda else None
        if done is not None:
            done.record()
        return Step(rows.wanted, shape.rows, result, done)

    def _shape(self, rows: int, logits: int, blocks: int, prompts: bool) -> Shape:
        if rows > self._ladder[-1]:
            raise ValueError(
                f"a step has at most {self._ladder[-1]} rows, got {rows}: lower the scheduler's step_tokens"
            )
        if not self._cuda:
            return Shape(rows, logits, True)
        padded = self._ladder[bisect.bisect_left(self._ladder, rows)]
        if not prompts:
            return Shape(padded, padded, False)
        padded = max(padded, QUERY_BLOCK)
        for few in FEW_LOGITS[padded > MANY_ROWS :]:
            if few < padded and logits <= few and blocks <= Shape(padded, few, True).blocks:
                return Shape(padded, few, True)
        return Shape(padded, padded, True)

    def _compute(self, shape: Shape, spans: tuple[Span, ...]) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits and tokens of what lies in the fields; this is what graphs record."""
        cut = {name: self._fields[name][: shape.rows] for name in ("ids", "positions", "slots")}
        cut |= {name: self._fields[name][: shape.blocks] for name in ("block_rows", "block_lens")}
        cut["ids"] = self._known(cut["ids"], cut["slots"])
        picked = self._fields["logit_rows"][: shape.logits] if shape.prompts else None
        counts = self._fields["counts"][:2]
        batch = Batch(**cut, counts=counts, logit_rows=picked, prompts=shape.prompts, spans=spans)
        logits = self._model.forward(batch, self._kv)
        tokens = self._sampler.greedy(logits)
        self._remember(self._fields["logit_slots"][: shape.logits], tokens)
        if self._cuda and shape.logits > FEW_LOGITS[-1]:
            logits = self._kept[: shape.logits].copy_(logits)
        return logits, tokens

    def _known(self, ids: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
        """(T,) ids, with those that the host does not know yet."""
        if not self._cuda:
            return torch.where(ids < 0, self._last[slots], ids)
        known, blocks = torch.empty_like(ids), -(-ids.shape[0] // IDS)
        known_kernel[(blocks,)](ids, slots, self._last, known, ids.shape[0], BLOCK=IDS, num_warps=1)
        return known

    def _remember(self, slots: torch.Tensor, tokens: torch.Tensor) -> None:
        """The token that each of these slots was given."""
        if not self._cuda:
            self._last[slots] = tokens
            return
        blocks = -(-tokens.shape[0] // IDS)
        remember_kernel[(blocks,)](slots, tokens, self._last, tokens.shape[0], BLOCK=IDS, num_warps=1)

    def _draw(self, segments: list[Segment], logits: torch.Tensor, tokens: torch.Tensor) -> None:
        """Replace the greedy tokens of the sequences that ask for a draw."""
        chosen = [number for number, segment in enumerate(segments) if segment.seq.sampling.temperature > 0]
        if chosen:
            seqs, positions = [segments[i].seq for i in chosen], [segments[i].end for i in chosen]
            drawn = self._sampler.draw(logits[chosen], [seq.sampling for seq in seqs], positions)
            tokens[chosen] = drawn
            self._last[[self._kv.slot(seq) for seq in seqs]] = drawn

    def _record(self) -> None:
        """One graph per shape, the largest first, all in one pool of memory."""
        shapes = {self._shape(rows, rows, rows, False) for rows in (min(rows, MAX_SLOTS) for rows in self._ladder)}
        logits = (1, FEW_LOGITS[-1], self._ladder[-1])
        shapes |= {self._shape(rows, min(rows, most), 1, True) for rows in self._ladder for most in logits}
        pool, stream = torch.cuda.graph_pool_handle(), torch.cuda.Stream()
        # The side stream sees the zeros above only once the current one has written them.
        stream.wait_stream(torch.cuda.current_stream())
        with torch.inference_mode():
            for shape in sorted(shapes, key=lambda s: (-s.rows, -s.logits, s.prompts)):
                with torch.cuda.stream(stream):
                    self._compute(shape, ())
                stream.synchronize()
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph, pool=pool, stream=stream):
                    logits, tokens = self._compute(shape, ())
                self._graphs[shape] = (graph, logits, tokens)
        torch.cuda.synchronize()


@jit
def known_kernel(ids_ptr, slots_ptr, last_ptr, known_ptr, count, BLOCK: tl.constexpr):
    rows = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = rows < count
    ids = tl.load(ids_ptr + rows, mask=mask, other=0)
    last = tl.load(last_ptr + tl.load(slots_ptr + rows, mask=mask, other=0), mask=mask & (ids < 0), other=0)
    tl.store(known_ptr + rows, tl.where(ids < 0, last, ids), mask=mask)


@jit
def remember_kernel(slots_ptr, tokens_ptr, last_ptr, count, BLOCK: tl.constexpr):
    rows = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = rows < count
    tl.store(last_ptr + tl.load(slots_ptr + rows, mask=mask, other=0), tl.load(tokens_ptr + rows, mask=mask), mask=mask)


def ladder(longest: int, usual_prompt: int) -> list[int]:
    """Row counts that graphs are recorded for: 8 apart, from 256 on a thirty-second, so that padding stays small.

    Just above the usual prompt, which comes with a few decodes, they are 8 apart as well.
    """
    rows = [1, 2, 4, 8, 12, 16]
    while rows[-1] < longest:
        rows.append(min(longest, rows[-1] + (1 << max(3, rows[-1].bit_length() - 6))))
    near = {usual_prompt + beside for beside in range(0, BESIDE + 1, 8)}
    return sorted({*rows, *(count for count in near if count <= longest)})
