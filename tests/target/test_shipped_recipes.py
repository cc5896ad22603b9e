"""The shipped recipes on the seed server: exact ones emit the reference's greedy tokens, lossy ones do not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from population.candidate import Operator, Proposal
from population.evaluation import Rejected
from population.genome import KnobValue
from vibeserve.mutators import Mutation, RecipeMutator, TuneMutator, read_genome
from vibeserve.recipes import load_recipes

ROOT = Path(__file__).parents[2]
TARGET = ROOT / "examples" / "tiny-llama"
# The components of this target are at interface version 1; tests/llama has the recipes for version 2.
RECIPES = {
    name: recipe for name, recipe in load_recipes(ROOT / "skills").items() if set(recipe.components.values()) == {1}
}
LOSSY = {"kv-window", "depth-pruning"}
BATCHED = ("kv-cache", "continuous-batching", "batched-forward")
FASTEST = (*BATCHED, "fused-weights", "tiled-weights")
Jobs = list[dict[str, Any]]
# Two BLAS threads on two contended cores are many times slower than one.
ENVIRONMENT = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artifacts")
    subprocess.run(
        [sys.executable, "-I", TARGET / "reference" / "build.py", "--output", folder],
        check=True,
        timeout=120,
        env=ENVIRONMENT,
    )
    return folder


def seed_tree(folder: Path) -> Path:
    shutil.copytree(TARGET / "seed", folder, ignore=shutil.ignore_patterns(".*", "__pycache__"))
    return folder


def apply(tree: Path, *recipes: str, **knobs: KnobValue) -> Path:
    """Apply recipes in order, then knobs written as component__knob."""
    for name in recipes:
        outcome = RecipeMutator(RECIPES).mutate(tree, Proposal(number=1, operator=Operator.RECIPE, recipe=name), "")
        assert isinstance(outcome, Mutation), outcome
    if knobs:
        values = {name.replace("__", "."): value for name, value in knobs.items()}
        outcome = TuneMutator().mutate(tree, Proposal(number=1, operator=Operator.TUNE, knobs=values), "")
        assert isinstance(outcome, Mutation), outcome
    return tree


def generate(tree: Path, artifacts: Path, jobs: Jobs) -> list[list[int]]:
    """What the engine of `tree` generates, stepped in a process of its own."""
    script = Path(__file__).with_name("engine_steps.py")
    result = subprocess.run(
        [sys.executable, "-I", script, tree, artifacts],
        input=json.dumps(jobs),
        capture_output=True,
        text=True,
        timeout=120,
        env=ENVIRONMENT,
    )
    assert result.returncode == 0, result.stderr
    outputs: list[list[int]] = json.loads(result.stdout)
    return outputs


def score(artifacts: Path, jobs: Jobs, outputs: list[list[int]], folder: Path) -> dict[str, Any]:
    """The reference's verdict, by the script that the audit uses."""
    responses, verdict = folder / "responses.jsonl", folder / "verdict.json"
    lines = [
        json.dumps({"id": str(i), "load": "test", "prompt_ids": job["prompt"], "output_ids": output})
        for i, (job, output) in enumerate(zip(jobs, outputs, strict=True))
        if output
    ]
    responses.write_text("\n".join(lines) + "\n")
    command = [sys.executable, "-I", str(TARGET / "reference" / "score.py"), "--artifacts", str(artifacts)]
    subprocess.run(
        [*command, "--responses", str(responses), "--output", str(verdict)], check=True, timeout=120, env=ENVIRONMENT
    )
    figures: dict[str, Any] = json.loads(verdict.read_text())
    return figures


def mixed_jobs(count: int, seed: int, shared: int = 0, spread: int = 12) -> Jobs:
    """Prompts of 1 to 60 tokens after `shared` common ones, arriving over `spread` steps."""
    rng = np.random.default_rng(seed)
    prefix = rng.integers(99, 8192, shared).tolist()
    return [
        {
            "prompt": prefix + rng.integers(99, 8192, int(rng.integers(1, 60))).tolist(),
            "max_new": int(rng.integers(1, 12)),
            "arrives": int(rng.integers(0, spread)),
        }
        for _ in range(count)
    ]


def assert_exact(tree: Path, artifacts: Path, jobs: Jobs, folder: Path) -> None:
    outputs = generate(tree, artifacts, jobs)
    assert [len(output) for output in outputs] == [job["max_new"] for job in jobs]
    verdict = score(artifacts, jobs, outputs, folder)
    assert verdict["tokens"] == sum(job["max_new"] for job in jobs)
    # A gap of float32 rounding is a tie; anything above it is another token than the reference's.
    assert verdict["max_gap"] < 1e-4, verdict


@pytest.mark.parametrize(
    ("recipes", "knobs"),
    [
        ((), {}),
        (("kv-cache",), {}),
        (("kv-cache", "continuous-batching", "prefix-caching", "ngram-speculation"), {"scheduler__max_running": 3}),
        (BATCHED, {"scheduler__max_running": 48, "scheduler__prefills_per_step": 16, "model__max_padded": 64}),
        (FASTEST, {}),
        ((*BATCHED, "tiled-weights", "fused-weights"), {"model__tile_columns": 64, "scheduler__max_running": 2}),
    ],
    ids=lambda value: "+".join(value) or "seed" if isinstance(value, tuple) else "",
)
def test_exact_recipes_emit_the_references_tokens(
    tmp_path: Path, artifacts: Path, recipes: tuple[str, ...], knobs: dict[str, KnobValue]
) -> None:
    tree = apply(seed_tree(tmp_path / "tree"), *recipes, **knobs)
    assert_exact(tree, artifacts, mixed_jobs(8 if recipes else 2, seed=len(recipes)), tmp_path)


@pytest.mark.parametrize(
    ("step_tokens", "priority", "draft_tokens"),
    [(8, "mixed", 7), (16, "prefill-first", 1), (96, "decode-first", 3)],
)
def test_chunks_drafts_and_shared_prefixes_change_nothing(
    tmp_path: Path, artifacts: Path, step_tokens: int, priority: str, draft_tokens: int
) -> None:
    tree = apply(
        seed_tree(tmp_path / "tree"),
        *(*FASTEST, "chunked-prefill", "shortest-job-first", "prefix-caching", "ngram-speculation"),
        scheduler__step_tokens=step_tokens,
        scheduler__priority=priority,
        sampler__draft_tokens=draft_tokens,
        sampler__ngram_tokens=1,
        sampler__max_streams=48,
        kv_cache__entries=4,
        kv_cache__block_tokens=4,
    )
    jobs = mixed_jobs(9, seed=step_tokens, shared=21, spread=40)
    # A conversation: the second turn begins with the first one and its answer.
    first = generate(tree, artifacts, [jobs[0] | {"arrives": 0}])[0]
    jobs.append(jobs[0] | {"prompt": jobs[0]["prompt"] + first + [500, 600], "arrives": 60})
    # Repetition in the prompt gives the drafts something to hit.
    jobs.append({"prompt": [700, 800, 900] * 8, "max_new": 16, "arrives": 5})
    assert_exact(tree, artifacts, jobs, tmp_path)


def test_aborted_sequences_leave_the_others_alone(tmp_path: Path, artifacts: Path) -> None:
    tree = apply(seed_tree(tmp_path / "tree"), *FASTEST, "chunked-prefill", "prefix-caching", scheduler__step_tokens=24)
    jobs = mixed_jobs(10, seed=5, shared=16, spread=20)
    for number, job in enumerate(jobs):
        job["aborts"] = job["arrives"] + number // 2 if number % 2 else None
    outputs = generate(tree, artifacts, jobs)
    kept = [(job, output) for job, output in zip(jobs, outputs, strict=True) if job["aborts"] is None]
    assert [len(output) for _, output in kept] == [job["max_new"] for job, _ in kept]
    verdict = score(artifacts, jobs, outputs, tmp_path)
    assert verdict["max_gap"] < 1e-4


@pytest.mark.parametrize("recipes", [("kv-cache", "kv-window"), (*BATCHED, "depth-pruning")], ids=lambda r: r[-1])
def test_lossy_recipes_serve_but_the_reference_disagrees(
    tmp_path: Path, artifacts: Path, recipes: tuple[str, ...]
) -> None:
    audit = tomllib.loads((TARGET / "target.toml").read_text())["audit"]
    tree = apply(seed_tree(tmp_path / "tree"), *recipes)
    rng = np.random.default_rng(1)
    jobs = [{"prompt": rng.integers(99, 8192, 36).tolist(), "max_new": 24, "arrives": 0} for _ in range(3)]
    outputs = generate(tree, artifacts, jobs)
    assert [len(output) for output in outputs] == [24] * 3
    verdict = score(artifacts, jobs, outputs, tmp_path)
    assert verdict["mean_gap"] > 10 * audit["mean_gap"]
    assert verdict["max_gap"] > 3 * audit["max_gap"]


def test_prefix_caching_finds_what_is_shared(tmp_path: Path) -> None:
    tree = apply(
        seed_tree(tmp_path / "tree"), "kv-cache", "prefix-caching", kv_cache__block_tokens=8, kv_cache__entries=4
    )
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from kv_cache import KVCache\nfrom sequence import Sequence\nfrom weights import ModelConfig\n"
        "names = ModelConfig.__dataclass_fields__\n"
        "config = ModelConfig(**{n: {'num_layers': 1, 'max_len': 64}.get(n, 2) for n in names})\n"
        "kv, made = KVCache(config), []\n"
        "def one(number, tokens):\n"
        "    seq = Sequence(id=number, tokens=list(tokens), prompt_len=len(tokens), max_new_tokens=4)\n"
        "    assert kv.allocate(seq)\n"
        "    found = kv.cached_len(seq)\n"
        "    kv.keys[:, kv.slot(seq), :, found:len(tokens)] = number\n"
        "    kv.commit(seq, len(tokens)); kv.free(seq); return found\n"
        "found = [one(1, range(30)), one(2, range(30)), one(3, [*range(16), *range(90, 100)]), one(4, range(24))]\n"
        "found += [one(10 + i, range(100 + 20 * i, 116 + 20 * i)) for i in range(4)] + [one(9, range(30))]\n"
        "print(found)\n"
    )
    result = subprocess.run([sys.executable, "-I", "-c", script, tree], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    # Whole blocks only, at least one token left to compute; the last look-up comes after eviction.
    assert json.loads(result.stdout) == [0, 24, 16, 16, 0, 0, 0, 0, 0]


def test_every_order_in_which_recipes_claim_to_apply_works(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    mutator = RecipeMutator(RECIPES)
    applied: set[str] = set()
    for walk in range(25):
        tree = seed_tree(tmp_path / str(walk))
        for name in rng.permutation(sorted(RECIPES) * 3):
            genome = read_genome(tree)
            assert not isinstance(genome, Rejected)
            if not RECIPES[name].applies(genome):
                continue
            outcome = mutator.mutate(tree, Proposal(number=1, operator=Operator.RECIPE, recipe=str(name)), "")
            assert isinstance(outcome, Mutation), (name, genome.capabilities, outcome)
            after = read_genome(tree)
            assert not isinstance(after, Rejected)
            assert after.capabilities >= set(RECIPES[name].provides)
            applied.add(str(name))
        for path in tree.glob("*.py"):
            compile(path.read_text(), str(path), "exec")
    assert applied == set(RECIPES)


@pytest.mark.parametrize(
    ("base", "left", "right"),
    [
        (("kv-cache", "continuous-batching"), "chunked-prefill", "shortest-job-first"),
        (BATCHED, "fused-weights", "tiled-weights"),
        (("kv-cache",), "continuous-batching", "batched-forward"),
        (("kv-cache",), "prefix-caching", "ngram-speculation"),
        ((), "kv-cache", "flush-tuning"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_merging_two_recipes_equals_applying_both(tmp_path: Path, base: tuple[str, ...], left: str, right: str) -> None:
    trees = {name: apply(seed_tree(tmp_path / name), *base) for name in ("base", "left", "right", "both")}
    apply(trees["left"], left)
    apply(trees["right"], right)
    apply(trees["both"], left, right)
    for path in sorted(trees["both"].iterdir()):
        sides = [str(trees[side] / path.name) for side in ("left", "base", "right")]
        merged = subprocess.run(["git", "merge-file", "-p", *sides], capture_output=True, timeout=30)
        assert merged.returncode == 0, f"{path.name}: {merged.stdout.decode()}"
        assert merged.stdout == path.read_bytes(), path.name
