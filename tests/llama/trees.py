"""Makes trees of the llama-3.1-8b target: the seed, with shipped recipes and knob values applied."""

from __future__ import annotations

import shutil
from pathlib import Path

from llama import CHECKOUT, TARGET

from population.candidate import Operator, Proposal
from population.genome import KnobValue
from vibeserve.mutators import Mutation, RecipeMutator, TuneMutator
from vibeserve.recipes import load_recipes

RECIPES = load_recipes(CHECKOUT / "skills")
GPU_RECIPES = {name: recipe for name, recipe in RECIPES.items() if name.startswith("gpu-")}
PAGED = ("gpu-paged-attention", "gpu-mixed-batching")
FUSED = (*PAGED, "gpu-fused-projections", "gpu-fused-kernels", "gpu-device-sampling")
FASTEST = (
    *FUSED,
    "gpu-streaming-matmul",
    "gpu-product-choice",
    "gpu-cuda-graphs",
    "gpu-async-scheduling",
    "gpu-http-process",
)


def make_tree(folder: Path, *recipes: str, **knobs: KnobValue) -> Path:
    """The seed in `folder` with recipes applied in order, then knobs written as component__knob."""
    shutil.copytree(TARGET / "seed", folder, ignore=shutil.ignore_patterns(".*", "__pycache__"))
    for name in recipes:
        outcome = RecipeMutator(RECIPES).mutate(folder, Proposal(number=1, operator=Operator.RECIPE, recipe=name), "")
        assert isinstance(outcome, Mutation), outcome
    if knobs:
        values = {name.replace("__", "."): value for name, value in knobs.items()}
        outcome = TuneMutator().mutate(folder, Proposal(number=1, operator=Operator.TUNE, knobs=values), "")
        assert isinstance(outcome, Mutation), outcome
    return folder
