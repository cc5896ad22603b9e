"""The reference in PyTorch: weights that are the same everywhere, a forward pass that is Llama's, a working audit."""

from __future__ import annotations

import hashlib
import json
import math
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from llama import BENCHMARKS, TARGET, run_script
from safetensors.torch import save_file

FIGURES = ("mean_gap", "p999_gap", "max_gap", "flip_rate")
MODULES = ("weights", "model", "score", "variants", "calibrate")
SHAPES = ((12, 24), (2, 150))
OUTPUT_TOKENS = 40
PINNED = {
    "model.embed_tokens.weight": "447eae1d8706aaa0",
    "model.layers.1.self_attn.k_proj.weight": "4db38d0394a623bc",
    "model.norm.weight": "468cfe12b6e07d0a",
}
"""SHA-256 of tensors of the tiny model."""
HONEST = {"bf16, fused attention, batched": True, "bf16, float32 residual": True}
BROKEN = {
    "first KV row lost": False,
    "last KV row of the prompt lost": False,
    "decoded positions off by one": False,
    "RoPE without scaling": False,
    "one layer's norms without weights": False,
    "one token of one answer is its neighbour's": False,
}


@pytest.fixture(scope="module")
def parts() -> Iterator[SimpleNamespace]:
    """The target's modules; tiny-llama has some of the same names, so they leave when this file is done."""
    held = {name: sys.modules.pop(name) for name in MODULES if name in sys.modules}
    before = list(sys.path)
    sys.path[:0] = [str(TARGET / "reference"), str(BENCHMARKS)]
    import calibrate  # type: ignore[import-not-found]
    import model  # type: ignore[import-not-found]
    import score  # type: ignore[import-not-found]
    import variants  # type: ignore[import-not-found]
    import weights  # type: ignore[import-not-found]

    yield SimpleNamespace(weights=weights, model=model, score=score, variants=variants, calibrate=calibrate)
    sys.path[:] = before
    for name in MODULES:
        sys.modules.pop(name, None)
    sys.modules.update(held)


@pytest.fixture(scope="module")
def reference(parts: SimpleNamespace, artifacts: Path) -> Any:
    return parts.model.load_reference(artifacts)


def test_weights_are_the_same_bits_on_any_machine(reference: Any) -> None:
    found = {
        name: hashlib.sha256(reference.weights[name].view(torch.int16).numpy().tobytes()).hexdigest()[:16]
        for name in PINNED
    }
    assert found == PINNED


def test_weights_are_what_they_are_said_to_be(reference: Any, parts: SimpleNamespace) -> None:
    weights = reference.weights
    for name, std in {
        "model.embed_tokens.weight": 4.0,
        "model.layers.0.self_attn.q_proj.weight": 1.5 / math.sqrt(128),
        "model.layers.0.mlp.down_proj.weight": 1 / math.sqrt(352),
        "lm_head.weight": 1 / math.sqrt(128),
    }.items():
        assert weights[name].float().std().item() == pytest.approx(std, rel=0.02)
        assert abs(weights[name].float().mean().item()) < 0.02 * std
    norm = weights["model.norm.weight"].float()
    assert norm.min() >= 0.5 and norm.max() <= 1.5 and 0.25 < norm.std() < 0.33
    one, other = (weights[f"model.layers.{n}.mlp.up_proj.weight"].float().flatten() for n in (0, 1))
    assert abs(torch.corrcoef(torch.stack([one, other]))[0, 1].item()) < 0.02


def test_weights_can_be_written_into_fused_matrices(reference: Any, parts: SimpleNamespace) -> None:
    prefix = "model.layers.2.self_attn."
    fused = torch.zeros(128 + 64 + 64, 128, dtype=torch.bfloat16)
    for name, (start, end) in {"q": (0, 128), "k": (128, 192), "v": (192, 256)}.items():
        parts.weights.fill(fused[start:end], f"{prefix}{name}_proj.weight", 20261121)
    apart = torch.cat([reference.weights[f"{prefix}{name}_proj.weight"] for name in "qkv"])
    assert torch.equal(fused, apart)


def test_weights_from_files(artifacts: Path, reference: Any, parts: SimpleNamespace, tmp_path: Path) -> None:
    for name in ("config.json", "weights.json"):
        (tmp_path / name).write_bytes((artifacts / name).read_bytes())
    (tmp_path / "weights.json").write_text('{"source": "safetensors", "files": ["a.safetensors"]}')
    save_file(reference.weights, tmp_path / "a.safetensors")
    read = parts.weights.read_weights(tmp_path, "cpu")
    assert all(torch.equal(read[name], tensor) for name, tensor in reference.weights.items())
    (tmp_path / "config.json").write_text(
        (artifacts / "config.json").read_text().replace('"vocab_size": 2048', '"vocab_size": 9')
    )
    with pytest.raises(ValueError, match=r"expected model.embed_tokens.weight of shape \(9, 128\)"):
        parts.weights.read_weights(tmp_path, "cpu")


def test_rope_is_scaled_as_llama_3_1_is(parts: SimpleNamespace) -> None:
    config = parts.model.read_config(TARGET / "reference" / "config.json")
    found = parts.model.rope_frequencies(config).numpy()
    plain = 500_000.0 ** (-np.arange(64) / 64)
    wavelength = 2 * np.pi / plain
    assert np.allclose(found[wavelength < 8192 / 4], plain[wavelength < 8192 / 4], rtol=1e-12)
    assert np.allclose(found[wavelength > 8192], plain[wavelength > 8192] / 8, rtol=1e-12)
    between = (wavelength > 8192 / 4) & (wavelength < 8192)
    assert between.any()
    assert np.all((found[between] < plain[between]) & (found[between] > plain[between] / 8))


def in_numpy(config: dict[str, Any], weights: dict[str, np.ndarray], ids: list[int]) -> np.ndarray:
    """An independent forward pass of one sequence, float64, one position and one head at a time."""
    head, groups = config["head_dim"], config["num_attention_heads"] // config["num_key_value_heads"]
    base = config["rope_theta"] ** (-np.arange(head // 2) / (head // 2))
    scaling = config["rope_scaling"]
    ratio = scaling["original_max_position_embeddings"] * base / (2 * np.pi)
    smooth = np.clip(
        (ratio - scaling["low_freq_factor"]) / (scaling["high_freq_factor"] - scaling["low_freq_factor"]), 0, 1
    )
    base = (1 - smooth) * base / scaling["factor"] + smooth * base

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        return np.asarray(x / np.sqrt((x**2).mean(-1, keepdims=True) + config["rms_norm_eps"]) * weights[name])

    def turned(vector: np.ndarray, at: int) -> np.ndarray:
        pairs = (vector[: head // 2] + 1j * vector[head // 2 :]) * np.exp(1j * at * base)
        return np.concatenate([pairs.real, pairs.imag])

    x = weights["model.embed_tokens.weight"][ids]
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        normed = norm(x, prefix + "input_layernorm.weight")
        q, k, v = (normed @ weights[f"{prefix}self_attn.{n}_proj.weight"].T for n in "qkv")
        out = np.zeros_like(q)
        for at in range(len(ids)):
            for h in range(config["num_attention_heads"]):
                mine, its = slice(h * head, (h + 1) * head), slice(h // groups * head, (h // groups + 1) * head)
                query = turned(q[at, mine], at)
                scores = np.array([query @ turned(k[j, its], j) for j in range(at + 1)]) / np.sqrt(head)
                share = np.exp(scores - scores.max())
                out[at, mine] = share / share.sum() @ v[: at + 1, its]
        x = x + out @ weights[prefix + "self_attn.o_proj.weight"].T
        normed = norm(x, prefix + "post_attention_layernorm.weight")
        gate, up = (normed @ weights[f"{prefix}mlp.{n}_proj.weight"].T for n in ("gate", "up"))
        x = x + (gate / (1 + np.exp(-gate)) * up) @ weights[prefix + "mlp.down_proj.weight"].T
    return np.asarray(norm(x, "model.norm.weight") @ weights["lm_head.weight"].T)


def test_the_forward_pass_is_llamas(artifacts: Path, reference: Any) -> None:
    config = json.loads((artifacts / "config.json").read_text(encoding="utf-8"))
    ids = [100, 1999, 7, 1000, 1000, 313, 42, 2047, 555, 96, 801, 802]
    weights = {name: tensor.double().numpy() for name, tensor in reference.weights.items()}
    padded = torch.tensor([ids, [5] * len(ids)])
    found = reference.logits(reference.hidden(padded)[0]).numpy()
    assert np.abs(found - in_numpy(config, weights, ids)).max() < 1e-4


@pytest.mark.parametrize(("name", "honest"), (HONEST | BROKEN).items(), ids=str)
def test_honest_variants_pass_and_broken_ones_fail(
    reference: Any, parts: SimpleNamespace, name: str, honest: bool
) -> None:
    limits = tomllib.loads((TARGET / "target.toml").read_text(encoding="utf-8"))["audit"]
    (variant,) = [variant for variant in parts.variants.VARIANTS if variant.name == name]
    groups = parts.calibrate.draw_prompts(3, SHAPES, (96, 2000))
    found = parts.calibrate.judged(reference, variant, groups, OUTPUT_TOKENS)
    assert all(found[figure] <= limits[figure] for figure in FIGURES) == honest, found


def test_command_line(artifacts: Path, parts: SimpleNamespace, reference: Any, tmp_path: Path) -> None:
    prompts = parts.calibrate.draw_prompts(8, ((4, 20),), (96, 2000))[0]
    outputs = parts.variants.Decoder(reference.config, reference.weights, parts.variants.VARIANTS[0]).generate(
        prompts, 24
    )
    outputs[2][17] = (outputs[2][17] + 1) % 2000
    lines = [
        json.dumps({"id": f"r{i}", "prompt_ids": p, "output_ids": o[: 24 - i]})
        for i, (p, o) in enumerate(zip(prompts, outputs, strict=True))
    ]
    responses, output = tmp_path / "responses.jsonl", tmp_path / "scores.json"
    responses.write_text("\n".join(lines) + "\n", encoding="utf-8")
    options = ("--artifacts", artifacts, "--responses", responses, "--output", output)
    done = run_script("reference/score.py", *options)
    assert done.returncode == 0, done.stderr
    found = json.loads(output.read_text(encoding="utf-8"))
    assert found["tokens"] == 24 + 23 + 22 + 21
    assert [r["id"] for r in found["per_response"]] == ["r0", "r1", "r2", "r3"]
    worst = max(found["per_response"], key=lambda r: r["max_gap"])
    assert (worst["id"], worst["worst_position"]) == ("r2", 17)
    assert found["max_gap"] == worst["max_gap"] > 0.5
    assert [len(r["gaps"]) for r in found["per_response"]] == [24, 23, 22, 21]


@pytest.mark.parametrize(
    "line",
    [
        "{",
        '{"prompt_ids": [1]}',
        '{"prompt_ids": [1], "output_ids": [2048]}',
        '{"prompt_ids": [1], "output_ids": [true]}',
    ],
)
def test_malformed_responses_are_named(artifacts: Path, tmp_path: Path, line: str) -> None:
    responses, output = tmp_path / "responses.jsonl", tmp_path / "scores.json"
    responses.write_text('{"prompt_ids": [100], "output_ids": [100]}\n' + line + "\n", encoding="utf-8")
    options = ("--artifacts", artifacts, "--responses", responses, "--output", output)
    done = run_script("reference/score.py", *options)
    assert done.returncode == 1
    assert not output.exists()
    assert "responses.jsonl:2" in done.stderr
    assert "Traceback" not in done.stderr
