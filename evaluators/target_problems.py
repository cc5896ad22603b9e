"""Decides which parts of a target contradict each other, one sentence for each."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from evaluators.inspection.inspector import RULE_IDS
from evaluators.target_schema import command_problems, did_you_mean

if TYPE_CHECKING:
    from evaluators.target import Target

CLIENT_METRICS = frozenset(
    [
        f"{statistic}_{latency}_ms"
        for latency in ("ttft", "tpot", "itl", "e2el")
        for statistic in ("mean", "median", "p90", "p95", "p99")
    ]
    + [
        "request_throughput",
        "output_throughput",
        "total_token_throughput",
        "request_goodput",
        "max_rate_per_s",
        "cpu_ms_per_token",
    ]
)
"""Metrics of our own client that can be objectives."""


def target_problems(target: Target, settings: Path) -> list[str]:
    """What is wrong between the tables of `settings`, and between them and the folder."""
    return [
        *_of_commands(target, settings),
        *_of_model(target, settings),
        *_of_ceilings(target, settings),
        *_of_inspection(target, settings),
        *_of_resources(target, settings),
    ]


def _of_commands(target: Target, settings: Path) -> list[str]:
    problems = command_problems(target.server.command, f"{settings}: [server] 'command'", ["port"])
    trusted = [("accuracy", target.accuracy.command, ["url"])]
    if target.artifacts is not None:
        trusted.append(("artifacts", target.artifacts.command, ["artifacts"]))
    if target.audit is not None:
        trusted.append(("audit", target.audit.command, ["responses", "output"]))
    if target.roofline is not None:
        trusted.append(("roofline", target.roofline.command, ["output"]))
    if target.benchmark.command is not None:
        trusted.append(("benchmark", target.benchmark.command, ["url", "output"]))
    for table, command, needs in trusted:
        where = f"{settings}: [{table}] 'command'"
        problems += command_problems(command, where, needs)
        scripts = [part for part in command if part.endswith((".py", ".sh")) and not Path(part).is_absolute()]
        problems += [
            f"{where}: {target.folder / script} does not exist; write it or change the command"
            for script in scripts
            if not (target.folder / script).is_file()
        ]
    return problems


def _of_model(target: Target, settings: Path) -> list[str]:
    where = f"{settings}: [model]"
    size = None
    if target.vocab_is_built:
        if target.artifacts is None:
            return [f"{where} 'vocab': {target.model.vocab} needs an [artifacts] command that builds it"]
    elif target.model.vocab is not None:
        try:
            vocabulary = target.vocabulary() or ()
        except (OSError, ValueError, TypeError) as error:
            return [
                f"{where} 'vocab': expected a JSON list of strings in {target.folder / target.model.vocab}: {error}"
            ]
        if not vocabulary or not all(isinstance(token, str) for token in vocabulary):
            return [f"{where} 'vocab': expected a JSON list of strings in {target.folder / target.model.vocab}"]
        size = len(vocabulary)
    if target.model.prompt_ids is None:
        ours = bool(target.loads) or target.audit is not None  # either way our client draws prompts
        return (
            [f"{where} 'prompt_ids' or 'vocab' is required with [[load]] or [audit]"] if ours and size is None else []
        )
    low, high = target.model.prompt_ids
    if low > high or (size is not None and high >= size):
        return [f"{where} 'prompt_ids': expected low <= high < {size or 'vocabulary size'}, got [{low}, {high}]"]
    return []


def _of_inspection(target: Target, settings: Path) -> list[str]:
    unknown = sorted(target.inspection.allow.keys() - RULE_IDS)
    return [f"{settings}: [inspection.allow] unknown rule '{rule}'{did_you_mean(rule, RULE_IDS)}" for rule in unknown]


def _of_resources(target: Target, settings: Path) -> list[str]:
    cpus, client_cpus = target.resources.cpus, target.resources.client_cpus
    if client_cpus == 1 or client_cpus < cpus:
        return []
    return [f"{settings}: [resources] 'client_cpus': expected fewer than cpus = {cpus}, got {client_cpus}"]


def _of_ceilings(target: Target, settings: Path) -> list[str]:
    if not target.measured_by_client:
        return []  # its own benchmark names its metrics as it likes
    names, problems = [load.name for load in target.loads], []
    for ceiling in target.ceilings:
        where = f"{settings}: [[ceiling]] '{ceiling.metric}'"
        metric, at, load = ceiling.metric.partition("@")
        if metric not in CLIENT_METRICS:
            problems.append(f"{where}: our client measures no such metric{did_you_mean(metric, CLIENT_METRICS)}")
        if at and load not in names:
            problems.append(f"{where}: no [[load]] is called '{load}'{did_you_mean(load, names)}")
    return problems


def objective_problems(target: Target, path: Path) -> list[str]:
    """Objectives that the target cannot measure; `path`: where they are declared."""
    problems = []
    names = [load.name for load in target.loads]
    for objective in target.objectives:
        where = f"{path}: objective '{objective.name}'"
        problems += [
            f"{where}: no [[load]] is called '{n}'{did_you_mean(n, names)}" for n in objective.loads if n not in names
        ]
        metric, _, load = objective.name.partition("@")
        if load and target.measured_by_client and load not in names:
            problems.append(f"{where}: no [[load]] is called '{load}'{did_you_mean(load, names)}")
        if target.measured_by_client and metric not in CLIENT_METRICS:
            problems.append(f"{where}: our client measures no such metric{did_you_mean(metric, CLIENT_METRICS)}")
        if not objective.loads and len(names) > 1 and "@" not in objective.name:
            problems.append(f"{where}: needs 'loads' because the target has several: {', '.join(names)}")
    return problems
