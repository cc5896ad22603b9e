"""Decides what an artifacts folder holds: the shape of the model and its float32 weights."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """config.json of the artifacts."""

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
    norm_eps: float
    bos_id: int
    eos_id: int
    unk_id: int


def read_config(artifacts: Path) -> ModelConfig:
    data = json.loads((artifacts / "config.json").read_text(encoding="utf-8"))
    return ModelConfig(**{name: data[name] for name in ModelConfig.__dataclass_fields__})


def read_weights(artifacts: Path) -> dict[str, Array]:
    """Name → read-only float32 view of weights.bin, mapped into memory; weights.json holds shapes and byte offsets."""
    index = json.loads((artifacts / "weights.json").read_text(encoding="utf-8"))
    data = np.memmap(artifacts / "weights.bin", dtype=np.float32, mode="r").view(np.ndarray)
    return {
        name: data[entry["offset"] // 4 :][: int(np.prod(entry["shape"]))].reshape(entry["shape"])
        for name, entry in index.items()
    }
