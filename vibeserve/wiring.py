"""Composition root: the only place where a config and a run folder become a driver.

Its parts, each for one question: `run_folder` (what is measured), `crew` (who makes it), `hosts` (where), and
`search_config` (what is tried next).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from evaluators.evaluator import Evaluator
from evaluators.fingerprint import digest
from evaluators.hardware import fingerprint as fingerprint_of_hardware
from evaluators.pipeline import LocalEvaluator
from evaluators.target import Target, load_target
from population.candidate import Operator, candidate_id
from population.disk import Disk
from population.errors import InfrastructureError
from population.genome import parse_genome
from population.ledger import Ledger
from population.replay import State
from population.repository import Repository
from vibeserve import tiers
from vibeserve.agents.ensemble import members
from vibeserve.agents.options import AgentOptions
from vibeserve.casting import compared_by
from vibeserve.config import Config
from vibeserve.crew import advisor, flow_rules, ground_of, makers_of, require_agents, resolves_merges
from vibeserve.display import Display
from vibeserve.driver import Driver
from vibeserve.hosts import executor_for, is_local, isolation, terms_for
from vibeserve.layers import load_run_config
from vibeserve.mutators import RecipeMutator, Repairing, TuneMutator
from vibeserve.observer import Observer
from vibeserve.recipes import load_recipes
from vibeserve.records import Records
from vibeserve.rules import Root, Rules
from vibeserve.run_folder import prepare, require_same, seed_of, start_of
from vibeserve.run_prices import keep_prices, prices_of, require_priced, run_prices
from vibeserve.runs import STOP_MARKER
from vibeserve.same_hardware import Fingerprint
from vibeserve.sections import dataclass_of
from vibeserve.workshop import Kit, pack


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """Where a run is, and why its driver stopped."""

    run_dir: Path
    stopped_because: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What measures and what stores: replaced where measurements are recorded, or a disk is to fail."""

    evaluator: Evaluator | None = None
    """None: `LocalEvaluator`, isolated as the config says."""
    identify: Callable[[Sequence[str] | None], Fingerprint] = fingerprint_of_hardware
    """What a machine says of its hardware."""
    disk: Disk = field(default_factory=Disk)
    take_over: bool = False
    """Go on although another driver holds the run: that one is fenced."""


def run(config: Config, display: Display, parts: Parts | None = None) -> RunResult:
    """Start a new run.

    Raises:
        ConfigError: the target, the skills or the config are malformed.
        RunError: the seed was rejected.
        InfrastructureError: Ray is absent, the disk is full, a machine failed again and again.
    """
    if config.seed is None:
        config = config.replace("seed", secrets.randbelow(2**31), "drawn")
    agents = require_agents(config)
    require_priced(agents, prices_of(agents.prices), config.budget.dollars)
    parts = parts or Parts()
    if parts.evaluator is None and config.target is not None and is_local(config):
        first_party = tiers.is_own(config.target, config.skills.dir) and config.agents.provider is None
        tiers.require([tiers.look(config.evaluation.allow_reduced_isolation, first_party)])
    try:
        run_dir = prepare(config, parts.disk)
    except OSError as error:
        raise InfrastructureError(
            f"{config.runs_dir}: cannot prepare the run: {error}; free space, then run"
        ) from error
    return _drive(run_dir, config, display, parts)


def resume(run_dir: Path, overrides: Sequence[str], display: Display, parts: Parts | None = None) -> RunResult:
    """Go on with a run from where its ledger ends; `overrides` are `-s` options, such as a larger budget.

    Raises:
        RunError: not a run, or its target, skills or objectives are no longer those it was started with.
    """
    config = load_run_config(run_dir, overrides)
    agents = dataclass_of(AgentOptions, config.agents)
    if config.origins.get("agents.prices") == "-s":
        keep_prices(run_dir, agents.prices, run_prices(run_dir))
    require_priced(agents, run_prices(run_dir), config.budget.dollars)
    return _drive(run_dir, config, display, parts or Parts())


def _drive(run_dir: Path, config: Config, display: Display, parts: Parts) -> RunResult:
    target = load_target(run_dir / "target")
    recipes = load_recipes(run_dir / "skills")
    with Ledger.open(run_dir / "ledger", parts.take_over, parts.disk) as ledger:
        state = State.replay(ledger.events())
        if state.started is None:
            state.apply(ledger.append(start_of(run_dir, config, target)))
        require_same(state, run_dir, config, target)
        repository = Repository.open(run_dir / "population.git", disk=parts.disk)
        repository.recover(state.commits)
        rules = rules_of(run_dir, config, target, repository)
        records = Records(
            ledger=ledger,
            state=state,
            repository=repository,
            children=run_dir / "children",
            stop_marker=run_dir / STOP_MARKER,
        )
        kit = replace(kit_of(config, run_dir, repository, rules, state, parts.evaluator), identify=parts.identify)
        if isinstance(kit.makers.mutators.get(Operator.AGENT), Repairing):
            rules = replace(rules, repairs=config.agents.repair)
        executor = executor_for(config, kit, target, terms_for(config, run_dir, kit, display.event))
        observer = Observer(run_dir.name, rules, state, executor, display)
        try:
            for line in () if parts.evaluator else isolation(config, target, kit, state):
                display.event(line)
            for line in compared_by(rules, dataclass_of(AgentOptions, config.agents)):
                display.event(line)
            policy = config.search.build(recipes, config.agents.provider is not None, resolves_merges(config))
            reason = Driver(rules, records, policy, executor, observer).run()
        finally:
            executor.close()
            display.close()
    return RunResult(run_dir=run_dir, stopped_because=reason)


def rules_of(run_dir: Path, config: Config, target: Target, repository: Repository) -> Rules:
    """What the driver of a run obeys."""

    def root(commit: str) -> Root:
        genome = parse_genome(repository.read_files(commit, "*.toml"))
        return Root(commit=commit, tree=repository.tree_of(commit), genome=genome)

    agents = dataclass_of(AgentOptions, config.agents)
    return Rules(
        seed=seed_of(config),
        secret=(run_dir / "secret").read_text(encoding="ascii").encode(),
        root=root(repository.ref(candidate_id(0))),
        baselines={b.name: root(repository.baseline(b.name)) for b in target.baselines},
        children=config.budget.children,
        wall_time_s=config.budget.wall_time_s,
        gpu_hours=config.budget.gpu_hours,
        tokens=config.budget.tokens,
        dollars=config.budget.dollars,
        prices=run_prices(run_dir),
        shares={m.name: m.share for m in members(agents)} if agents.models else {},
        gpus_per_evaluation=target.resources.num_gpus,
        flow=flow_rules(config),
        patience_s=config.cluster.patience_s,
        racing=config.evaluation.racing,
        remeasure=config.evaluation.remeasure,
        repeats=config.evaluation.repeats,
        final_repeats=config.evaluation.final_repeats,
        pinned_trace_seed=config.evaluation.trace_seed,
        profile=config.evaluation.profile,
        ground=ground_of(config, run_dir, target),
        advised=advisor(config) is not None,
    )


def kit_of(
    config: Config,
    run_dir: Path,
    repository: Repository,
    rules: Rules,
    state: State,
    evaluator: Evaluator | None = None,
) -> Kit:
    """What machines need to work for the run.

    Raises:
        ConfigError: `[agents]` is not what its provider needs.
    """
    assert state.started is not None
    target = load_target(run_dir / "target")
    recipes = RecipeMutator(load_recipes(run_dir / "skills"))
    makers = makers_of(config, run_dir, {Operator.RECIPE: recipes, Operator.TUNE: TuneMutator()})
    proposals = (*(child.proposal for child in state.archive.children.values()), *state.pending.values())
    operators = {proposal.operator for proposal in proposals} | set(makers.mutators)
    return Kit(
        run=run_dir.name,
        target_tar=pack(run_dir / "target"),
        target_digest=digest(run_dir / "target"),
        seed_delta=repository.delta(rules.root.commit),
        seed_commit=rules.root.commit,
        makers=makers,
        evaluator=evaluator or LocalEvaluator(allow_reduced=config.evaluation.allow_reduced_isolation),
        cpus=target.resources.cpus,
        gpus=target.resources.num_gpus,
        first_party=state.started.first_party and tiers.is_mechanical(operators),
    )
