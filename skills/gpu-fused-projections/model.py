"""Decides the logits: Llama's layers, with the matrices that share an input laid one below the other.

Axes: T rows, R rows with logits, V vocabulary, C hidden.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from attention import Attention
from batch import Batch
from kv_cache import KVCache
from linear import Linear
from weights import read_config, read_weights


@dataclass(frozen=True, slots=True)
class Layer:
    """The weights of one layer."""

    attn_norm: torch.Tensor
    qkv: torch.Tensor
    o: torch.Tensor
    mlp_norm: torch.Tensor
    gate_up: torch.Tensor
    down: torch.Tensor


PARTS = (
    ("input_layernorm",),
    ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    ("self_attn.o_proj",),
    ("post_attention_layernorm",),
    ("mlp.gate_proj", "mlp.up_proj"),
    ("mlp.down_proj",),
)
"""What each field of a layer is stacked from."""


class Model:
    """Component `model`, interface 2."""

    def __init__(self, artifacts: Path, device: torch.device) -> None:
        self.config, self.device = read_config(artifacts), device
        self.linear, self.attention = Linear(self.config, device), Attention(self.config, device)
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        weights = read_weights(artifacts, device)

        def stack(*names: str) -> torch.Tensor:
            # What is stacked goes out of the dictionary, so that no more than one layer is ever there twice.
            return torch.cat([weights.pop(f"{name}.weight") for name in names]).to(dtype)

        self._embed, self._norm = stack("model.embed_tokens"), stack("model.norm")
        self._head = stack("lm_head")
        self._layers = [
            Layer(*(stack(*(f"model.layers.{index}.{name}" for name in names)) for names in PARTS))
            for index in range(self.config.num_layers)
        ]

    def forward(self, batch: Batch, kv: KVCache) -> torch.Tensor:
        """Logits (R, V) of the rows that want them; K/V of all rows go to `kv`."""
        linear = self.linear
        stream = linear.begin(batch.ids, self._embed, self._layers[0].attn_norm)
        norms = [layer.attn_norm for layer in self._layers[1:]] + [self._norm]
        for index, (layer, norm) in enumerate(zip(self._layers, norms, strict=True)):
            qkv = linear.project(stream, layer.qkv)
            mixed = self.attention.attend(index, qkv, batch, kv)
            if layer is self._layers[-1] and batch.logit_rows is not None:
                # K/V of all rows are stored: from here on nobody reads those without logits.
                stream, mixed = linear.pick(stream, batch.logit_rows), mixed.index_select(0, batch.logit_rows)
            linear.add(stream, mixed, layer.o, layer.mlp_norm)
            linear.add(stream, linear.gate(stream, layer.gate_up), layer.down, norm)
        return linear.project(stream, self._head, "head")
