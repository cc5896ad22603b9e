"""Decides what an artifacts folder holds: the shape of the model, and its weights, which may be made from a seed.

Names and layouts are those of Hugging Face's Llama: (out, in) matrices, y = x @ W.T. `weights.json` of the artifacts
says where they come from: {"source": "seed", "seed": N} makes them where they are needed, on a GPU in about a second
and without 16 GB of files; {"source": "safetensors", "files": […]} reads a user's own.

A generator of random numbers gives other numbers on another kind of device. Here an element is the sum of the four
bytes of a hashed index (nearly normal, within 3.45 standard deviations), scaled in float32 and rounded once:
whole-number arithmetic and two roundings that IEEE 754 fixes.

Fan-in scaling alone makes a bad target, for three reasons. Norms of one hide a server that skips them: they are
U(0.5, 1.5). Weak attention hides a lost KV row: q, k and v have a gain, so that attention is peaked. And greedy answers
run in circles, because 32 layers' worth of context drowns the last token: embeddings are as large as that.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

Json = dict[str, Any]
ATTENTION_GAIN = 1.5
EMBED_STD = 4.0
BYTES_STD = math.sqrt(4 * (256**2 - 1) / 12)
"""Standard deviation of the sum of four uniform bytes."""
CHUNK = 1 << 25
"""Elements that are made at a time: 128 MiB of hashes, and as much again in passing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """config.json of the artifacts, in words of our own."""

    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    max_len: int
    """Longest sequence in tokens, prompt and output together."""
    rope_theta: float
    rope_scaling: Json | None
    norm_eps: float
    bos_id: int
    eos_ids: frozenset[int]


def read_config(artifacts: Path) -> ModelConfig:
    data = json.loads((artifacts / "config.json").read_text(encoding="utf-8"))
    ends = data["eos_token_id"]
    return ModelConfig(
        hidden_size=data["hidden_size"],
        num_layers=data["num_hidden_layers"],
        num_heads=data["num_attention_heads"],
        num_kv_heads=data["num_key_value_heads"],
        head_dim=data["head_dim"],
        intermediate_size=data["intermediate_size"],
        vocab_size=data["vocab_size"],
        max_len=data["max_model_len"],
        rope_theta=data["rope_theta"],
        rope_scaling=data.get("rope_scaling"),
        norm_eps=data["rms_norm_eps"],
        bos_id=data["bos_token_id"],
        eos_ids=frozenset([ends] if isinstance(ends, int) else ends),
    )


def weight_shapes(config: Json) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Every tensor of the model: name and shape."""
    hidden, mlp, head = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    queries, keys = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    yield "model.embed_tokens.weight", (config["vocab_size"], hidden)
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        yield prefix + "input_layernorm.weight", (hidden,)
        yield prefix + "self_attn.q_proj.weight", (queries, hidden)
        yield prefix + "self_attn.k_proj.weight", (keys, hidden)
        yield prefix + "self_attn.v_proj.weight", (keys, hidden)
        yield prefix + "self_attn.o_proj.weight", (hidden, queries)
        yield prefix + "post_attention_layernorm.weight", (hidden,)
        yield prefix + "mlp.gate_proj.weight", (mlp, hidden)
        yield prefix + "mlp.up_proj.weight", (mlp, hidden)
        yield prefix + "mlp.down_proj.weight", (hidden, mlp)
    yield "model.norm.weight", (hidden,)
    yield "lm_head.weight", (config["vocab_size"], hidden)


def fill(out: torch.Tensor, name: str, seed: int) -> None:
    """Write the tensor called `name` into `out`, contiguous and of its true shape: the rows of a fused matrix, say."""
    flat = out.view(-1)
    for start in range(0, flat.numel(), CHUNK):
        piece = flat[start : start + CHUNK]
        bits = _hashes(start, piece.numel(), f"{seed}/{name}", out.device)
        if name.endswith("norm.weight"):
            piece.copy_(((bits >> 8) & 0xFFFFFF).float().mul_(2.0**-24).add_(0.5).to(torch.bfloat16))
        else:
            piece.copy_(_byte_sum(bits).float().mul_(_scale(name, out.shape[-1])).to(torch.bfloat16))


def _scale(name: str, fan_in: int) -> float:
    if name.endswith("embed_tokens.weight"):
        return EMBED_STD / BYTES_STD
    gain = ATTENTION_GAIN if name.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight")) else 1.0
    return gain / math.sqrt(fan_in) / BYTES_STD


def _hashes(start: int, count: int, key: str, device: torch.device) -> torch.Tensor:
    """One int32 per index from `start` on: two keyed rounds of lowbias32 (Ellis 2018), which wrap around."""
    digest = hashlib.sha256(key.encode()).digest()
    x = torch.arange(start, start + count, dtype=torch.int32, device=device)
    for number in range(2):
        x ^= int.from_bytes(digest[4 * number : 4 * number + 4], "little", signed=True)
        x ^= (x >> 16) & 0xFFFF
        x *= 0x7FEB352D
        x ^= (x >> 15) & 0x1FFFF
        x *= 0x846CA68B - (1 << 32)
        x ^= (x >> 16) & 0xFFFF
    return x


def _byte_sum(bits: torch.Tensor) -> torch.Tensor:
    """The four bytes added up, less their mean."""
    total = bits & 0xFF
    for shift in (8, 16, 24):
        total += (bits >> shift) & 0xFF
    return total.sub_(510)


def read_weights(artifacts: Path, device: torch.device | str) -> dict[str, torch.Tensor]:
    """Name → bf16 tensor on `device`, from the seed or from the files that weights.json names.

    Raises:
        ValueError: a tensor is missing or has another shape than config.json gives it.
    """
    config = json.loads((artifacts / "config.json").read_text(encoding="utf-8"))
    source = json.loads((artifacts / "weights.json").read_text(encoding="utf-8"))
    if source["source"] == "seed":
        weights = {}
        for name, shape in weight_shapes(config):
            weights[name] = torch.empty(shape, dtype=torch.bfloat16, device=device)
            fill(weights[name], name, source["seed"])
        return weights
    return _from_files(artifacts, source["files"], config, str(device))


def _from_files(artifacts: Path, files: list[str], config: Json, device: str) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    found = {name: tensor for file in files for name, tensor in load_file(artifacts / file, device=device).items()}
    weights = {}
    for name, shape in weight_shapes(config):
        if name not in found or tuple(found[name].shape) != shape:
            got = tuple(found[name].shape) if name in found else "nothing"
            raise ValueError(f"{artifacts}: expected {name} of shape {shape} in {', '.join(files)}, found {got}")
        weights[name] = found[name].to(torch.bfloat16)
    return weights
