"""Recorded measurements: an evaluator that answers from a tree's knobs and the content seed, for repeatable runs."""

from __future__ import annotations

import math
import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evaluators.evaluator import EvaluationTask, Lease
from evaluators.fingerprint import digest
from population.candidate import Operator
from population.evaluation import Evaluation, Rejected, Scored, Stage
from population.genome import parse_genome
from population.repository import Repository
from vibeserve.config import Config
from vibeserve.layers import Sources, load_config
from vibeserve.making import Makers
from vibeserve.mutators import RecipeMutator, TuneMutator
from vibeserve.recipes import load_recipes
from vibeserve.workshop import Kit, pack

TOY = Path(__file__).resolve().parent.parent / "toy_target"


@dataclass(frozen=True)
class RecordedEvaluator:
    """Throughput, TTFT and TPOT as closed forms of the toy server's knobs, with 2 % noise by the content seed."""

    delay_s: float = 0.0
    die_once: Path | None = None
    """A file: the first evaluation that finds it missing creates it and kills its own process."""
    explode: bool = False
    """Raise what no evaluator should raise."""

    def evaluate(self, task: EvaluationTask, lease: Lease, progress: Callable[[Stage], None]) -> Evaluation:
        progress(Stage.BENCHMARK)
        genome = parse_genome({p.name: p.read_text() for p in task.workspace.glob("*.toml")})
        if self.die_once is not None and "batching" in genome.capabilities and not self.die_once.exists():
            self.die_once.touch()
            os._exit(13)
        if self.explode and "batching" in genome.capabilities:
            raise ZeroDivisionError("a bug of ours")
        deadline = time.monotonic() + self.delay_s
        while time.monotonic() < deadline:
            time.sleep(0.01)
        assert task.output is not None
        (task.output / "server.log").write_text("recorded\n")
        if "shortcut" in genome.capabilities:
            return Rejected(stage=Stage.AUDIT, reason="expected the model's tokens, got others")
        if "broken" in genome.capabilities:
            return Rejected(stage=Stage.BOOT, reason="the server did not start")
        delay, flush = float(genome.knobs["engine.delay_ms"].value), float(genome.knobs["server.flush_tokens"].value)
        speed = 4.0 if "batching" in genome.capabilities else 1.0
        noise = np.exp(np.random.default_rng(task.content_seed).normal(0, 0.02, 3))
        return Scored(
            samples={
                "output_throughput@high": (float(1000 * speed / delay * math.sqrt(flush) * noise[0]),),
                "median_ttft_ms@low": (float(delay * flush * noise[1]),),
                "median_ttft_ms@high": (float(delay * flush / speed * noise[1]),),
                "median_tpot_ms@low": (float((delay + 1 / delay) * noise[2]),),
            }
        )


def toy_config(runs_dir: Path, *overrides: str, executor: str = "inline") -> Config:
    """A run of the toy target."""
    flags: dict[str, tuple[object, str]] = {"target": (str(TOY), "test"), "runs_dir": (str(runs_dir), "test")}
    defaults = (f"skills.dir={TOY / 'skills'}", f"cluster.executor={executor}", "seed=7", "evaluation.final_repeats=0")
    return load_config(Sources(overrides=(*defaults, *overrides), flags=flags))


def toy_kit(folder: Path, evaluator: RecordedEvaluator) -> Kit:
    """What workers need for children of the toy target."""
    repository = Repository.create(folder / "hub.git")
    seed = repository.commit_tree(TOY / "seed", parents=(), message="seed", number=0)
    recipes = load_recipes(TOY / "skills")
    return Kit(
        run=f"test-{secrets.token_hex(4)}",
        target_tar=pack(TOY),
        target_digest=digest(TOY),
        seed_delta=repository.delta(seed.sha),
        seed_commit=seed.sha,
        makers=Makers(mutators={Operator.RECIPE: RecipeMutator(recipes), Operator.TUNE: TuneMutator()}),
        evaluator=evaluator,
        cpus=1,
    )
