"""Compares the kernels of a tree with plain arithmetic on a GPU: python gpu_checks.py TREE; prints errors as JSON.

It runs in a process of its own, because every tree brings modules of the same names. Errors are relative, in the
Frobenius norm, against float32 or against the same tree's path for CPUs, run on the GPU.
"""

from __future__ import annotations

import json
import sys

sys.path.insert(0, sys.argv[1])

import torch
from attention import Attention  # type: ignore[import-not-found]
from batch import Batch, Rows  # type: ignore[import-not-found]
from kv_cache import KVCache  # type: ignore[import-not-found]
from linear import Linear, Stream  # type: ignore[import-not-found]
from sampler import Sampler  # type: ignore[import-not-found]
from sequence import Segment, Sequence  # type: ignore[import-not-found]
from weights import ModelConfig  # type: ignore[import-not-found]

GPU = torch.device("cuda:0")
CONFIG = ModelConfig(
    hidden_size=4096, num_layers=2, num_heads=32, num_kv_heads=8, head_dim=128, intermediate_size=14336,
    vocab_size=128256, max_len=8192, rope_theta=5e5, rope_scaling=None, norm_eps=1e-5, bos_id=0, eos_ids=frozenset(),
)  # fmt: skip


def error(got: torch.Tensor, expected: torch.Tensor) -> float:
    return float((got.float() - expected.float()).norm() / expected.float().norm())


def random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, device=GPU, dtype=torch.bfloat16)


def attention(spans: list[tuple[int, int]]) -> float:
    """Spans (start, count) of one sequence each, over caches full of noise."""
    kv, attend = KVCache(CONFIG, GPU), Attention(CONFIG, GPU)
    segments = []
    for number, (start, count) in enumerate(spans):
        seq = Sequence(id=number, tokens=[1] * (start + count), prompt_len=start + count, max_new_tokens=1)
        assert kv.allocate(seq)
        segments.append(Segment(seq, start, start + count, True))
    kv.keys.normal_()
    kv.values.normal_()
    rows = Rows(segments, kv.slot)
    names = ("ids", "positions", "slots", "counts", "block_rows", "block_lens", "logit_rows")
    tensors = {name: torch.from_numpy(getattr(rows, name)).to(GPU) for name in names}
    batch = Batch(**tensors, prompts=rows.prompts, spans=rows.spans())
    qkv = random(len(rows.ids), 48 * 128)
    before = kv.keys[1].clone(), kv.values[1].clone()
    expected = attend._attend_gathered(1, qkv.clone(), batch, kv)
    stored = kv.keys[1].clone(), kv.values[1].clone()
    kv.keys[1], kv.values[1] = before
    got = attend.attend(1, qkv.clone(), batch, kv)
    assert torch.equal(kv.values[1], stored[1])
    return max(error(got, expected), error(kv.keys[1], stored[0]))


def products(rows: int) -> dict[str, float]:
    """A stream through `add`, `gate` and `project` as a layer does it."""
    linear = Linear(CONFIG, GPU)
    table, norms = random(64, 4096), torch.rand(3, 4096, device=GPU).add(0.5).bfloat16()
    ids = torch.arange(rows, device=GPU, dtype=torch.int32) % 64
    gate_up, down, head = random(28672, 4096) / 64, random(4096, 14336) / 120, random(6144, 4096) / 64
    stream: Stream = linear.begin(ids, table, norms[0])
    first = linear.gate(stream, gate_up)
    linear.add(stream, first, down, norms[1])
    last = linear.project(stream, head)

    def norm(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5) * weight.float()

    x = table.float()[ids.long()]
    gate, up = (norm(x, norms[0]) @ gate_up.float().T).chunk(2, dim=-1)
    x = x + (torch.nn.functional.silu(gate) * up) @ down.float().T
    expected = norm(x, norms[1]) @ head.float().T
    return {
        "gate": error(first, torch.nn.functional.silu(gate) * up),
        "x": error(stream.x, x),
        "y": error(last, expected),
    }


def main() -> None:
    found: dict[str, object] = {
        "decode": [attention([(length, 1)] * count) for length in (1, 63, 64, 1000) for count in (1, 3, 40)],
        "prompts": [attention([(0, 77), (30, 100), (70, 1), (0, 2), (5, 1), (640, 15)]), attention([(0, 3)] * 60)],
        "products": {rows: products(rows) for rows in (1, 5, 16, 17, 32, 33, 200)},
    }
    logits = random(7, 128256)
    logits[3, [500, 128000]] = 30.0
    sampler = Sampler(CONFIG, GPU)
    found["greedy"] = sampler.greedy(logits).tolist() == logits.float().cpu().argmax(-1).tolist()
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    with torch.inference_mode():
        main()
