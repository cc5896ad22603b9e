"""The recipes for the llama-3.1-8b target: every order in which they claim to apply works, and merges equal both."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from llama import TARGET
from trees import FUSED, GPU_RECIPES, PAGED, RECIPES, make_tree

from evaluators.judge import static_check
from evaluators.target import load_target
from population.candidate import Operator, Proposal
from population.evaluation import Rejected
from vibeserve.mutators import Mutation, RecipeMutator, read_genome


def test_recipes_of_the_other_target_do_not_apply() -> None:
    seed, tiny = read_genome(TARGET / "seed"), read_genome(TARGET.parent / "tiny-llama" / "seed")
    assert not isinstance(seed, Rejected)
    assert not isinstance(tiny, Rejected)
    assert {name for name, recipe in RECIPES.items() if recipe.applies(seed)} <= set(GPU_RECIPES)
    assert not {name for name, recipe in GPU_RECIPES.items() if recipe.applies(tiny)}


def test_every_order_in_which_recipes_claim_to_apply_works(tmp_path: Path) -> None:
    rng, mutator, applied = np.random.default_rng(0), RecipeMutator(RECIPES), set()
    inspection = load_target(TARGET).inspection
    for walk in range(12):
        tree = make_tree(tmp_path / str(walk))
        for name in rng.permutation(sorted(GPU_RECIPES) * 3):
            genome = read_genome(tree)
            assert not isinstance(genome, Rejected)
            if not GPU_RECIPES[name].applies(genome):
                continue
            outcome = mutator.mutate(tree, Proposal(number=1, operator=Operator.RECIPE, recipe=str(name)), "")
            assert isinstance(outcome, Mutation), (name, genome.capabilities, outcome)
            after = read_genome(tree)
            assert not isinstance(after, Rejected)
            assert after.capabilities >= set(GPU_RECIPES[name].provides)
            applied.add(str(name))
        for path in tree.glob("*.py"):
            compile(path.read_text(), str(path), "exec")
        assert static_check(tree, inspection) is None
    assert applied == set(GPU_RECIPES)


@pytest.mark.parametrize(
    ("base", "left", "right"),
    [
        (("gpu-static-kv",), "gpu-mixed-batching", "gpu-fused-projections"),
        (PAGED, "gpu-cuda-graphs", "gpu-fused-kernels"),
        ((*FUSED, "gpu-cuda-graphs"), "gpu-streaming-matmul", "gpu-async-scheduling"),
        (FUSED, "gpu-http-process", "gpu-cuda-graphs"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_merging_two_recipes_equals_applying_both(tmp_path: Path, base: tuple[str, ...], left: str, right: str) -> None:
    trees = {
        name: make_tree(tmp_path / name, *base, *more)
        for name, more in {"base": (), "left": (left,), "right": (right,), "both": (left, right)}.items()
    }
    for path in sorted(trees["both"].iterdir()):
        sides = [str(trees[side] / path.name) for side in ("left", "base", "right")]
        merged = subprocess.run(["git", "merge-file", "-p", *sides], capture_output=True, timeout=30)
        assert merged.returncode == 0, f"{path.name}: {merged.stdout.decode()}"
        assert merged.stdout == path.read_bytes(), path.name
