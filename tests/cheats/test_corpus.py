"""What the corpus is: enough of every class, each cheat with a twin, and small enough for CI."""

from __future__ import annotations

import json
import re
import tomllib
from collections import Counter
from pathlib import Path

from tests.cheats.corpus import load_corpus
from tests.cheats.workshop import TARGET

ROOT = Path(__file__).parents[2]
CHEATS, TWINS = load_corpus()
CLASSES = {
    "clocks", "detection", "git", "harness", "inference", "judge", "logs", "persistence", "protocol", "siblings",
}  # fmt: skip


def test_there_are_fixtures_of_every_class() -> None:
    assert len(CHEATS) >= 50
    assert {cheat.kind for cheat in CHEATS} == CLASSES
    assert min(Counter(cheat.kind for cheat in CHEATS).values()) >= 3


def test_names_are_unique_and_every_cheat_has_a_twin() -> None:
    names = [cheat.name for cheat in CHEATS] + list(TWINS)
    assert len(set(names)) == len(names)
    assert {cheat.twin for cheat in CHEATS} == set(TWINS)


def test_the_thresholds_are_those_of_the_calibration() -> None:
    report = (ROOT / "benchmarks" / "cheats" / "calibration.md").read_text()
    measured = {name: float(limit) for name, limit in re.findall(r"`(\w+)` (\d[\d.]*\d)", report)}
    declared = tomllib.loads((TARGET / "target.toml").read_text())["audit"]
    assert measured
    assert measured == {name: declared[name] for name in measured}


def test_the_model_and_the_windows_are_small() -> None:
    config = json.loads((TARGET / "reference" / "config.json").read_text())
    width, heads = config["hidden_size"], config["num_heads"] + config["num_kv_heads"]
    layer = 2 * width * heads * config["head_dim"] + 3 * width * config["intermediate_size"]
    assert config["num_layers"] * layer + 2 * width * config["vocab_size"] < 2_000_000
    loads = tomllib.loads((TARGET / "target.toml").read_text())["load"]
    assert sum(load["window_s"] for load in loads) <= 2.0
