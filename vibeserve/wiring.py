"""Composition root: the only place where a configured name becomes an object, and a run folder becomes a driver."""

from __future__ import annotations

import json
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from evaluators.evaluator import Evaluator
from evaluators.fingerprint import digest, fingerprint, fingerprint_difference, snapshot
from evaluators.hardware import fingerprint as fingerprint_of_hardware
from evaluators.pipeline import LocalEvaluator
from evaluators.target import Target, load_target
from population.candidate import Operator, Proposal, candidate_id
from population.disk import Disk, sync_tree
from population.errors import ConfigError, InfrastructureError, RunError, UsageError, VibeServeError
from population.evaluation import Rejected
from population.events import RunStarted
from population.genome import parse_genome
from population.ledger import Ledger, read_events
from population.recipe import Recipe
from population.replay import State
from population.repository import Repository
from vibeserve import __version__, tiers
from vibeserve.agents.clis.mutator import CliMutator
from vibeserve.agents.clis.registry import CLIS
from vibeserve.agents.ensemble import EnsembleMutator, ensemble_defects, members
from vibeserve.agents.evaluator import PerformanceEvaluator
from vibeserve.agents.judge import Judge
from vibeserve.agents.mutator import AgentMutator, shelf_of
from vibeserve.agents.opening import defects
from vibeserve.agents.options import AgentOptions, RoleOptions
from vibeserve.agents.reading import Reader
from vibeserve.agents.replay import load_recordings
from vibeserve.agents.roles import EVALUATOR, JUDGE, limits_of, played
from vibeserve.agents.scripted import ScriptedMutator
from vibeserve.casting import compared_by
from vibeserve.chains import Chains
from vibeserve.claims import Claim, Subject, claim_json, measure_claim
from vibeserve.cluster.terms import Terms
from vibeserve.config import Config
from vibeserve.config_text import to_toml
from vibeserve.display import Display
from vibeserve.driver import Driver
from vibeserve.executor import Executor
from vibeserve.flow import FlowRules
from vibeserve.layers import load_run_config
from vibeserve.making import Makers
from vibeserve.mutators import Mutator, RecipeMutator, Repairing, TuneMutator
from vibeserve.observer import Observer
from vibeserve.prompts.facts import Ground
from vibeserve.recipes import load_recipes, load_skills
from vibeserve.records import Records
from vibeserve.rules import Root, Rules
from vibeserve.run_prices import keep_prices, prices_of, require_priced, run_prices
from vibeserve.runs import STOP_MARKER
from vibeserve.same_hardware import Fingerprint, Surveyed, choose, recorded
from vibeserve.sections import dataclass_of
from vibeserve.workshop import Kit, Workshop, pack

if TYPE_CHECKING:
    from vibeserve.cluster.selectors import Demand


_SLACK = 2.0
"""A provider's retries and a benchmark that was begun in time may go on for longer than a child's limit."""


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
    agents = _require_agents(config)
    require_priced(agents, prices_of(agents.prices), config.budget.dollars)
    parts = parts or Parts()
    if parts.evaluator is None and config.target is not None and _is_local(config):
        first_party = tiers.is_own(config.target, config.skills.dir) and config.agents.provider is None
        tiers.require([tiers.look(config.evaluation.allow_reduced_isolation, first_party)])
    try:
        run_dir = _prepare(config, parts.disk)
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


def verify(
    run_dir: Path,
    candidate: str,
    against: str,
    pairs: int,
    progress: Callable[[str], None],
    overrides: Sequence[str] = (),
) -> Claim:
    """Measure `candidate` against another candidate or a baseline in fresh pairs; the claim is kept in claims/.

    Raises:
        UsageError: the run has no such candidate or baseline.
        RunError: a side was rejected while it was measured.
    """
    config, target = load_run_config(run_dir, overrides), load_target(run_dir / "target")
    state = State.replay(read_events(run_dir / "ledger"))
    _require_same(state, run_dir, config, target)
    repository = Repository.open(run_dir / "population.git")
    rules = _rules(run_dir, config, target, repository)
    kit = _kit(config, run_dir, repository, rules, state)
    sides = tuple(_side(name, state, rules, repository) for name in (candidate, against))
    executor = _executor(config, kit, target, replace(_terms(config, run_dir, kit, progress), alone=True))
    try:
        for line in _isolation(config, target, kit, state):
            progress(line)
        claim = measure_claim(
            (sides[0], sides[1]), executor, target.objectives, rules.trace_seed("held-out"), pairs, progress
        )
    finally:
        executor.close()
    folder = run_dir / "claims"
    folder.mkdir(exist_ok=True)
    name = f"{candidate}-{against}-{time.strftime('%Y%m%d-%H%M%S')}.json"
    (folder / name).write_text(json.dumps(claim_json(claim), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return claim


def _side(name: str, state: State, rules: Rules, repository: Repository) -> Subject:
    chains = Chains(repository, rules.root.commit)
    if name in state.archive.candidates:
        return Subject(
            name=name,
            commit=state.archive.candidates[name].commit,
            chain=chains.to(state.archive, (name,)),
        )
    if name in rules.baselines:
        commit = rules.baselines[name].commit
        return Subject(name=name, commit=commit, chain=chains.then((), commit))
    known = ", ".join(rules.baselines) or "none"
    raise UsageError(f"expected a candidate of the run (c000012) or a baseline ({known}), got '{name}'")


# --- preparing a run folder -------------------------------------------------------------------------------------------


def _prepare(config: Config, disk: Disk) -> Path:
    if config.target is None:
        raise ConfigError("expected a target folder, got none: `vibeserve run examples/tiny-llama`, or name a preset")
    target = load_target(config.target)
    recipes = load_recipes(config.skills.dir)
    if target.seed is None:
        raise ConfigError(
            f"{target.folder}: expected a seed/ folder with the first server; writing one from the reference needs an "
            "LLM agent, which this version does not have"
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


def _seed(config: Config) -> int:
    if config.seed is None:
        raise RunError(
            "expected a 'seed' in run.toml, found none; restore the line, the ledger's first record has it too"
        )
    return config.seed


# --- wiring a driver --------------------------------------------------------------------------------------------------


def _drive(run_dir: Path, config: Config, display: Display, parts: Parts) -> RunResult:
    target = load_target(run_dir / "target")
    recipes = load_recipes(run_dir / "skills")
    with Ledger.open(run_dir / "ledger", parts.take_over, parts.disk) as ledger:
        state = State.replay(ledger.events())
        if state.started is None:
            state.apply(ledger.append(_start_of(run_dir, config, target)))
        _require_same(state, run_dir, config, target)
        repository = Repository.open(run_dir / "population.git", disk=parts.disk)
        repository.recover(state.commits)
        rules = _rules(run_dir, config, target, repository)
        records = Records(
            ledger=ledger,
            state=state,
            repository=repository,
            children=run_dir / "children",
            stop_marker=run_dir / STOP_MARKER,
        )
        kit = replace(_kit(config, run_dir, repository, rules, state, parts.evaluator), identify=parts.identify)
        if isinstance(kit.makers.mutators.get(Operator.AGENT), Repairing):
            rules = replace(rules, repairs=config.agents.repair)
        executor = _executor(config, kit, target, _terms(config, run_dir, kit, display.event))
        observer = Observer(run_dir.name, rules, state, executor, display)
        try:
            for line in () if parts.evaluator else _isolation(config, target, kit, state):
                display.event(line)
            for line in compared_by(rules, dataclass_of(AgentOptions, config.agents)):
                display.event(line)
            agents = config.agents.provider is not None
            reason = Driver(rules, records, config.search.build(recipes, agents), executor, observer).run()
        finally:
            executor.close()
            display.close()
    return RunResult(run_dir=run_dir, stopped_because=reason)


def _start_of(run_dir: Path, config: Config, target: Target) -> RunStarted:
    return RunStarted(
        run=run_dir.name,
        seed=_seed(config),
        objectives=tuple(target.objectives),
        fingerprint=_fingerprint(run_dir, config, target),
        first_party=config.target is not None
        and tiers.is_own(config.target, config.skills.dir)
        and tiers.same(config.target, run_dir / "target")
        and tiers.same(config.skills.dir, run_dir / "skills"),
    )


def _require_same(state: State, run_dir: Path, config: Config, target: Target) -> None:
    assert state.started is not None
    changed = fingerprint_difference(state.started.fingerprint, _fingerprint(run_dir, config, target))
    if changed:
        raise RunError(
            f"{run_dir}: expected the target, skills and seeds this run was started with, but they differ: "
            + "; ".join(changed)
            + ". Restore them, or start a new run: measurements before and after would not be comparable"
        )


def _rules(run_dir: Path, config: Config, target: Target, repository: Repository) -> Rules:
    def root(commit: str) -> Root:
        genome = parse_genome(repository.read_files(commit, "*.toml"))
        return Root(commit=commit, tree=repository.tree_of(commit), genome=genome)

    agents = dataclass_of(AgentOptions, config.agents)
    return Rules(
        seed=_seed(config),
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
        flow=_flow(config),
        patience_s=config.cluster.patience_s,
        racing=config.evaluation.racing,
        remeasure=config.evaluation.remeasure,
        repeats=config.evaluation.repeats,
        final_repeats=config.evaluation.final_repeats,
        pinned_trace_seed=config.evaluation.trace_seed,
        profile=config.evaluation.profile,
        ground=None if config.agents.provider is None else Ground(target=target, menu=_menu(run_dir)),
        advised=_evaluator(config) is not None,
    )


def _menu(run_dir: Path) -> dict[str, str]:
    return {name: skill.description for name, skill in load_skills(run_dir / "skills").items()}


def _flow(config: Config) -> FlowRules:
    """A model takes as long as it may, whatever recipes take beside it: only then does a mutation count as hanging."""
    rules = dataclass_of(FlowRules, config.cluster)
    if config.agents.provider is None:
        return rules
    options = dataclass_of(AgentOptions, config.agents)
    longest_s = options.child_timeout_s + options.roles.judge.timeout_s + options.roles.evaluator.timeout_s
    return replace(rules, deadline_floor_s=max(rules.deadline_floor_s, _SLACK * longest_s))


def _kit(
    config: Config,
    run_dir: Path,
    repository: Repository,
    rules: Rules,
    state: State,
    evaluator: Evaluator | None = None,
) -> Kit:
    assert state.started is not None
    target = load_target(run_dir / "target")
    recipes = load_recipes(run_dir / "skills")
    mutators: dict[Operator, Mutator] = {Operator.RECIPE: RecipeMutator(recipes), Operator.TUNE: TuneMutator()}
    if (agent := _agent(config, run_dir)) is not None:
        mutators[Operator.AGENT] = agent
    proposals = (*(child.proposal for child in state.archive.children.values()), *state.pending.values())
    operators = {proposal.operator for proposal in proposals} | set(mutators)
    return Kit(
        run=run_dir.name,
        target_tar=pack(run_dir / "target"),
        target_digest=digest(run_dir / "target"),
        seed_delta=repository.delta(rules.root.commit),
        seed_commit=rules.root.commit,
        makers=Makers(
            mutators=mutators,
            judge=_judge(config),
            advisor=_evaluator(config),
            merges=agent is not None and config.agents.merges,
        ),
        evaluator=evaluator or LocalEvaluator(allow_reduced=config.evaluation.allow_reduced_isolation),
        cpus=target.resources.cpus,
        gpus=target.resources.num_gpus,
        first_party=state.started.first_party and tiers.is_mechanical(operators),
    )


def _agent(config: Config, run_dir: Path) -> Mutator | None:
    """Who makes the children of operator `agent`; None: nobody.

    Raises:
        ConfigError: `[agents]` is not what its provider needs.
    """
    options = _require_agents(config)
    if options.provider is None:
        return None
    if options.models:
        return EnsembleMutator({m.name: _author(config, run_dir, m.options) for m in members(options)})
    return _author(config, run_dir, options)


def _author(config: Config, run_dir: Path, options: AgentOptions) -> Mutator:
    """Who makes children with these options."""
    if options.provider == "scripted":
        return ScriptedMutator.load(Path(options.script or ""))
    if options.provider in CLIS:
        return CliMutator(options=options, skills=shelf_of(run_dir / "skills"))
    return AgentMutator(
        options=options,
        skills=shelf_of(run_dir / "skills"),
        allow_reduced=config.evaluation.allow_reduced_isolation,
        recordings=_recordings(options),
    )


def _require_agents(config: Config) -> AgentOptions:
    """`[agents]`, checked.

    Raises:
        ConfigError: with everything that is wrong with it.
    """
    options, here = dataclass_of(AgentOptions, config.agents), _is_local(config)
    problems = ensemble_defects(options)
    for member in () if problems else members(options):
        who = f"agents.models '{member.name}': " if options.models else ""
        problems += [f"{who}{problem}" for problem in defects(member.options, here=here)]
    for name, role in ((JUDGE, options.roles.judge), (EVALUATOR, options.roles.evaluator)):
        player = played(options, role)
        if player is not None and not problems:
            problems = [f"role {name}: {problem}" for problem in defects(player, here=here)]
        elif player is None and role.enabled:
            problems.append(f"agents.roles.{name}: expected a provider for it: that of `[agents]` has no API")
    if problems:
        raise ConfigError(problems)
    return options


def _recordings(options: AgentOptions) -> dict[str, str]:
    return load_recordings(Path(options.replay)) if options.replay is not None else {}


def _judge(config: Config) -> Judge | None:
    """Who reads what models write; None: nobody."""
    options = dataclass_of(AgentOptions, config.agents)
    reader = _reader(config, options, JUDGE, options.roles.judge)
    return None if reader is None else Judge(reader=reader)


def _evaluator(config: Config) -> PerformanceEvaluator | None:
    """Who reads profiles; None: nobody."""
    options = dataclass_of(AgentOptions, config.agents)
    reader = _reader(config, options, EVALUATOR, options.roles.evaluator)
    return None if reader is None else PerformanceEvaluator(reader=reader)


def _reader(config: Config, options: AgentOptions, name: str, role: RoleOptions) -> Reader | None:
    player = None if options.provider is None else played(options, role)
    if player is None:
        return None
    return Reader(
        role=name,
        options=player,
        limits=limits_of(role),
        allow_reduced=config.evaluation.allow_reduced_isolation,
        recordings=_recordings(player) if player.provider == "replay" else {},
    )


def _is_local(config: Config) -> bool:
    """Whether evaluations run on this machine alone."""
    return config.cluster.executor == "inline" or config.cluster.address is None


def _isolation(config: Config, target: Target, kit: Kit, state: State) -> list[str]:
    """What to tell the user about the isolation on the machines that evaluate.

    Raises:
        IsolationError: all of them refuse.
    """
    look = partial(tiers.look, config.evaluation.allow_reduced_isolation, kit.first_party)
    if _is_local(config):
        found = [look()]
    else:
        from vibeserve.cluster import nodes

        found = nodes.on_nodes(_demand(config, target), look)
    tiers.require(found)
    archive = state.archive
    return tiers.announcement(found, {e.tier for name in archive.scored for e in archive.evaluations(name)})


def _executor(config: Config, kit: Kit, target: Target, terms: Terms) -> Executor:
    """
    Raises:
        InfrastructureError: no machine can hold an evaluation.
        ConfigError: the machines that can are of different hardware.
        RunError: none of them is what the run was measured on so far.
    """
    if config.cluster.executor == "inline":
        from vibeserve.inline import InlineExecutor

        here = Surveyed(
            id="", name="this machine", slots=1, fingerprint=kit.identify(None if target.resources.num_gpus else ())
        )
        stratum = choose([here], terms.before, terms.mixed)
        for note in stratum.notes:
            terms.say(note)
        return InlineExecutor(Workshop(replace(kit, hardware=stratum.expected)))
    from vibeserve.cluster.connection import connect, disconnect
    from vibeserve.cluster.placement import Placement
    from vibeserve.cluster.ray_executor import RayExecutor

    connect(config.cluster.address)
    try:
        placement = Placement(_demand(config, target), terms)
    except VibeServeError:
        disconnect()
        raise
    return RayExecutor(replace(kit, hardware=placement.hardware), placement)


def _terms(config: Config, run_dir: Path, kit: Kit, say: Callable[[str], None]) -> Terms:
    """What this run asks of the machines; a run that goes on wants those that it was measured on so far."""
    shared = config.cluster.address is not None
    return Terms(
        limit=config.cluster.evaluate_slots,
        nodes_timeout_s=config.cluster.nodes_timeout_s,
        mixed=config.cluster.mixed_hardware,
        before=recorded(read_events(run_dir / "ledger")),
        driver=f"{run_dir.name}-{secrets.token_hex(4)}" if shared else None,
        priority=config.cluster.priority,
        identify=kit.identify,
        say=say,
    )


def _demand(config: Config, target: Target) -> Demand:
    from vibeserve.cluster.selectors import ACCELERATOR_LABEL, Demand

    kind = target.resources.accelerator_type
    labels = {**({ACCELERATOR_LABEL: kind} if kind else {}), **target.resources.labels, **config.cluster.labels}
    return Demand(cpus=target.resources.cpus, gpus=target.resources.num_gpus, labels=labels)
