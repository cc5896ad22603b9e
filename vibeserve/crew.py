"""Decides who takes part in a run besides recipes, knobs and git: the models of `[agents]`, each in its role."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from evaluators.target import Target
from population.candidate import Operator
from population.errors import ConfigError
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
from vibeserve.config import Config
from vibeserve.flow import FlowRules
from vibeserve.hosts import is_local
from vibeserve.making import Makers
from vibeserve.mutators import Mutator
from vibeserve.prompts.facts import Ground
from vibeserve.recipes import load_skills
from vibeserve.sections import dataclass_of

_SLACK = 2.0
"""A provider's retries and a benchmark that was begun in time may go on for longer than a child's limit."""


def require_agents(config: Config) -> AgentOptions:
    """`[agents]`, checked.

    Raises:
        ConfigError: with everything that is wrong with it.
    """
    options, here = dataclass_of(AgentOptions, config.agents), is_local(config)
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


def makers_of(config: Config, run_dir: Path, mechanical: Mapping[Operator, Mutator]) -> Makers:
    """Who makes children: those who need no model, and whom `[agents]` names.

    Raises:
        ConfigError: `[agents]` is not what its provider needs.
    """
    options = require_agents(config)
    if options.provider is None:
        return Makers(mutators=mechanical)
    if options.models:
        agent: Mutator = EnsembleMutator({m.name: _author(config, run_dir, m.options) for m in members(options)})
    else:
        agent = _author(config, run_dir, options)
    return Makers(
        mutators={**mechanical, Operator.AGENT: agent},
        judge=_judge(config),
        advisor=advisor(config),
        merges=resolves_merges(config),
    )


def resolves_merges(config: Config) -> bool:
    """Whether somebody resolves merges that conflict; a script knows nothing of them."""
    return config.agents.merges and config.agents.provider not in (None, "scripted")


def ground_of(config: Config, run_dir: Path, target: Target) -> Ground | None:
    """What every brief begins with; None: nobody reads briefs."""
    if config.agents.provider is None:
        return None
    skills = load_skills(run_dir / "skills")
    return Ground(target=target, menu={name: skill.description for name, skill in skills.items()})


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


def _recordings(options: AgentOptions) -> dict[str, str]:
    return load_recordings(Path(options.replay)) if options.replay is not None else {}


def _judge(config: Config) -> Judge | None:
    """Who reads what models write; None: nobody."""
    options = dataclass_of(AgentOptions, config.agents)
    reader = _reader(config, options, JUDGE, options.roles.judge)
    return None if reader is None else Judge(reader=reader)


def advisor(config: Config) -> PerformanceEvaluator | None:
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


def flow_rules(config: Config) -> FlowRules:
    """A model takes as long as it may, whatever recipes take beside it: only then does a mutation count as hanging."""
    rules = dataclass_of(FlowRules, config.cluster)
    if config.agents.provider is None:
        return rules
    options = dataclass_of(AgentOptions, config.agents)
    longest_s = options.child_timeout_s + options.roles.judge.timeout_s + options.roles.evaluator.timeout_s
    return replace(rules, deadline_floor_s=max(rules.deadline_floor_s, _SLACK * longest_s))
