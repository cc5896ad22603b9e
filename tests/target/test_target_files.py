"""The files of the tiny-llama target: valid for VibeServe, and a seed whose components say what they are."""

from __future__ import annotations

from tiny_llama import TARGET

from evaluators.target import load_target
from population.genome import parse_genome


def test_target_is_valid() -> None:
    target = load_target(TARGET)
    assert target.name == "tiny-llama"
    assert {load.name for load in target.loads} == {"high", "low", "shared"}
    assert target.vocabulary() is not None


def test_seed_components() -> None:
    files = {path.name: path.read_text(encoding="utf-8") for path in (TARGET / "seed").glob("*.toml")}
    genome = parse_genome(files)
    assert set(genome.components) == {"server", "engine", "scheduler", "kv_cache", "model", "sampler"}
    assert all(component.interface == 1 for component in genome.components.values())
    assert genome.capabilities == frozenset()
    assert all((TARGET / "seed" / f"{name}.py").is_file() for name in genome.components)
