"""The files of the target: valid, in small as well, and what VibeServe's preset makes of them."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest
from llama import BENCHMARKS, CHECKOUT, TARGET, TOY, run_script

from evaluators.load.session import auto_processes
from evaluators.roofline import Work
from evaluators.target import load_target, validate_target
from vibeserve.layers import Sources, load_config

RATES = {"64x128": [8, 32, 64, 128], "1024x128": [4, 8, 16, 32]}


def test_the_target_has_the_loads_of_the_comparison() -> None:
    target = load_target(TARGET)
    loads = {load.name: load for load in target.loads}
    wanted = [(shape, rate) for shape, rates in RATES.items() for rate in rates]
    for shape, rate in wanted:
        load = loads[f"{shape}r{rate}"]
        assert (load.rate_per_s, f"{load.input_tokens[0]}x{load.output_tokens[0]}") == (rate, shape)
    assert set(loads) == {f"{shape}r{rate}" for shape, rate in wanted} | {"max", "slo"}
    assert {o.name for o in target.objectives if set(o.loads) == {f"{s}r{r}" for s, r in wanted}} == {
        "median_ttft_ms",
        "median_tpot_ms",
    }
    assert target.vocab_is_built
    assert auto_processes(target.loads, target.resources.client_cpus) == target.resources.client_cpus


def test_the_tiny_target(artifacts: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    command = [sys.executable, BENCHMARKS / "tiny_target.py", folder, "--seed", TOY]
    subprocess.run(command, check=True, timeout=60)
    assert validate_target(folder) == []
    target = load_target(folder)
    assert (target.resources.num_gpus, target.resources.cpus) == (0, 2)
    assert [load.name for load in target.loads] == [load.name for load in load_target(TARGET).loads]
    vocab = target.vocabulary(artifacts) or ()
    assert all(len(vocab[token]) > 1 for token in target.prompt_ids)
    longest = json.loads((artifacts / "config.json").read_text())["max_model_len"]
    assert max(load.longest_request_tokens for load in target.loads) <= longest
    assert (folder / "seed" / "server.py").is_file()


def test_the_preset_needs_no_ray() -> None:
    config = load_config(Sources(preset="recipes"))
    assert config.cluster.executor == "inline"
    assert config.budget.wall_time_s is not None
    assert config.budget.wall_time_s <= 3600
    assert config.target == TARGET
    assert load_target(TARGET).resources.num_gpus == 1


def test_the_roofline_follows_from_the_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("torch") is None:  # the module imports it, its arithmetic needs none
        monkeypatch.setitem(sys.modules, "torch", type(sys)("torch"))
    spec = importlib.util.spec_from_file_location("llama_roofline", TARGET / "reference" / "roofline.py")
    assert spec is not None
    assert spec.loader is not None
    roofline = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(roofline)
    config = json.loads((TARGET / "reference" / "config.json").read_text())
    settings = tomllib.loads((TARGET / "target.toml").read_text())
    body, head = roofline.parameters(config)
    meta = json.loads((TARGET / "reference" / "meta.json").read_text())
    norms = (2 * config["num_hidden_layers"] + 1) * config["hidden_size"]
    assert body + 2 * head + norms == meta["parameters"]
    best = roofline.ceilings(config, settings, 790e12, 4.3e12)
    # Honest servers in bf16 cannot come near: half the bytes, twice the speed, and a quarter of margin are given away.
    assert 0.3 * 18.4 < best["median_ttft_ms@1024x128r4"] < 0.5 * 18.4
    assert 1 < best["median_ttft_ms@64x128r8"] < 3.5 / 2
    assert best["p99_tpot_ms@64x128r128"] < 3.5 / 32
    assert 2 * 30_000 < best["output_throughput@max"] < 4 * 52_600
    work = roofline.work(config, 790e12, 4.3e12, 2)
    assert set(work) == {field.name for field in fields(Work)}
    assert work["flop_per_output_token"] == 2 * (body + head) == work["flop_per_prompt_token"] + 2 * head
    assert work["bytes_per_step"] / work["bytes_per_s"] == pytest.approx(3.50e-3, rel=0.02)  # measured: one at a time


def test_weights_of_a_users_own(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    done = run_script("reference/build.py", "--output", tmp_path / "out", "--model", model)
    assert done.returncode == 1
    assert "expected config.json, tokenizer.json, *.safetensors in the model folder" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_checkout_says_where_things_are() -> None:
    said = (TARGET / "README.md").read_text(encoding="utf-8")
    for path in ("benchmarks/llama-3.1-8b/tiny_target.py", "benchmarks/llama-3.1-8b/calibrate.py"):
        assert path in said
        assert (CHECKOUT / path).is_file()
