"""Decides how a server is made of the seed and a list of recipes, and which list is the fastest so far."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CHECKOUT))

from population.candidate import Operator, Proposal  # noqa: E402
from vibeserve.mutators import Mutation, RecipeMutator  # noqa: E402
from vibeserve.recipes import load_recipes  # noqa: E402

SEED = CHECKOUT / "examples" / "llama-3.1-8b" / "seed"
PAGED = ("paged-attention", "mixed-batching")
FUSED = (*PAGED, "fused-projections", "fused-kernels", "device-sampling")
GRAPHS = (*FUSED, "cuda-graphs")
FASTEST = (*GRAPHS, "async-scheduling", "http-process", "streaming-matmul", "product-choice")


def make_tree(folder: Path, names: Sequence[str]) -> None:
    """The seed with recipes applied, in a folder that must not exist; `names` are without `gpu-`."""
    shutil.copytree(SEED, folder, ignore=shutil.ignore_patterns(".*", "__pycache__"))
    mutator = RecipeMutator(load_recipes(CHECKOUT / "skills"))
    for name in names:
        outcome = mutator.mutate(folder, Proposal(number=1, operator=Operator.RECIPE, recipe=f"gpu-{name}"), "")
        if not isinstance(outcome, Mutation):
            raise SystemExit(f"{name} does not apply: {outcome.reason}")
