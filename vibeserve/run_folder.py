"""Decides what a run's folder holds when the run begins, and whether it is still that when it goes on."""

from __future__ import annotations

import secrets
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from evaluators.fingerprint import digest, fingerprint, fingerprint_difference, snapshot
from evaluators.target import Target, load_target
from population.candidate import Operator, Proposal, candidate_id
from population.disk import Disk, sync_tree
from population.errors import ConfigError, RunError
from population.evaluation import Rejected
from population.events import RunStarted
from population.genome import parse_genome
from population.recipe import Recipe
from population.replay import State
from population.repository import Repository
from vibeserve import __version__, tiers
from vibeserve.agents.options import AgentOptions
from vibeserve.config import Config
from vibeserve.config_text import to_toml
from vibeserve.mutators import RecipeMutator
from vibeserve.recipes import load_recipes
from vibeserve.rules import Root
from vibeserve.run_prices import keep_prices
from vibeserve.sections import dataclass_of


def prepare(config: Config, disk: Disk) -> Path:
    if config.target is None:
        raise ConfigError("expected a target folder, got none: `vibeserve run examples/tiny-llama`, or name a preset")
    target = load_target(config.target)
    recipes = load_recipes(config.skills.dir)
    if target.seed is None:
        raise ConfigError(
            f"{target.folder}: expected a seed/ folder with the first server; writing one from the "
            "reference is not supported"
        )
    run_dir = _new_folder(config.runs_dir, config.name or target.name, disk)
    snapshot(target, run_dir / "target")
    shutil.copytree(config.skills.dir, run_dir / "skills", ignore=shutil.ignore_patterns("__pycache__"))
    secret = run_dir / "secret"
    secret.touch(mode=0o600)
    secret.write_text(secrets.token_hex(32), encoding="ascii")
    repository = Repository.create(run_dir / "population.git")
    seed = _commit_root(repository, target.seed, (), "seed")
    repository.set_ref(candidate_id(0), seed.commit)
    for baseline in target.baselines:
        _commit_baseline(repository, target, baseline.name, baseline.recipes, recipes, seed)
    (run_dir / "run.toml").write_text(to_toml(config), encoding="utf-8")
    if config.agents.provider is not None:
        keep_prices(run_dir, dataclass_of(AgentOptions, config.agents).prices)
    sync_tree(run_dir, disk)
    return run_dir


def _new_folder(runs_dir: Path, name: str, disk: Disk) -> Path:
    stamp = time.strftime("%Y%m%d-%H%M%S")
    for suffix in ("", *(f"-{n}" for n in range(2, 100))):
        folder = runs_dir / f"{stamp}-{name}{suffix}"
        try:
            disk.make_folder(runs_dir)
            folder.mkdir()
        except FileExistsError:
            continue
        except OSError as error:
            raise ConfigError(f"runs_dir: cannot create {folder}: {error.strerror}") from error
        return folder
    raise RunError(f"{runs_dir}: too many runs began in this second")


def _commit_root(repository: Repository, folder: Path, parents: Sequence[str], message: str) -> Root:
    commit = repository.commit_tree(folder, parents=parents, message=message, number=0)
    genome = parse_genome(repository.read_files(commit.sha, "*.toml"))
    return Root(commit=commit.sha, tree=commit.tree, genome=genome)


def _commit_baseline(
    repository: Repository,
    target: Target,
    name: str,
    wanted: Sequence[str],
    recipes: Mapping[str, Recipe],
    seed: Root,
) -> None:
    """The seed with the baseline's recipes applied, as refs/baselines/<name>."""
    mutator = RecipeMutator(recipes)
    with tempfile.TemporaryDirectory(prefix="vibeserve-tree-") as folder:
        repository.export(seed.commit, Path(folder))
        for recipe in wanted:
            proposal = Proposal(number=0, operator=Operator.RECIPE, recipe=recipe)
            mutation = mutator.mutate(Path(folder), proposal, "")
            if isinstance(mutation, Rejected):
                raise ConfigError(f"{target.folder / 'target.toml'}: [[baseline]] '{name}': {mutation.reason}")
        root = _commit_root(repository, Path(folder), (seed.commit,), f"baseline {name}")
    repository.set_baseline(name, root.commit)


def start_of(run_dir: Path, config: Config, target: Target) -> RunStarted:
    return RunStarted(
        run=run_dir.name,
        seed=seed_of(config),
        objectives=tuple(target.objectives),
        fingerprint=_fingerprint(run_dir, config, target),
        first_party=config.target is not None
        and tiers.is_own(config.target, config.skills.dir)
        and tiers.same(config.target, run_dir / "target")
        and tiers.same(config.skills.dir, run_dir / "skills"),
    )


def require_same(state: State, run_dir: Path, config: Config, target: Target) -> None:
    assert state.started is not None
    changed = fingerprint_difference(state.started.fingerprint, _fingerprint(run_dir, config, target))
    if changed:
        raise RunError(
            f"{run_dir}: expected the target, skills and seeds this run was started with, but they differ: "
            + "; ".join(changed)
            + ". Restore them, or start a new run: measurements before and after would not be comparable"
        )


def _fingerprint(run_dir: Path, config: Config, target: Target) -> dict[str, str]:
    """What must not change between measurements that are compared."""
    return {
        **fingerprint(target),
        "skills": digest(run_dir / "skills"),
        "vibeserve": __version__,
        "rng seed": str(config.seed),
        "evaluation.trace_seed": str(config.evaluation.trace_seed),
        "evaluation.repeats": str(config.evaluation.repeats),
    }


def seed_of(config: Config) -> int:
    if config.seed is None:
        raise RunError(
            "expected a 'seed' in run.toml, found none; restore the line, the ledger's first record has it too"
        )
    return config.seed
