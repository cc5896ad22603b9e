"""Decides what a benchmark of the target's own measured: its JSON, read strictly, one value per repeat and metric."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from evaluators.benchmark import Measurement, Plan, beaten, missing_objectives
from evaluators.command import TrustedCommand, run_trusted
from evaluators.gpu_noise import foreign_gpu_processes
from evaluators.noise import CpuMeter
from evaluators.roofline import impossible
from evaluators.server import ServerUnderTest, describe_exit
from evaluators.strict_json import Malformed, check_metric, metric, read_object
from population.evaluation import Rejected, Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnBenchmark:
    """The command of `[benchmark]` and the words for its placeholders."""

    command: TrustedCommand
    words: Mapping[str, str]
    output: Path


def measure_with(server: ServerUnderTest, benchmark: OwnBenchmark, plan: Plan) -> Measurement | Rejected:
    """Run the target's benchmark `plan.repeats` times; metrics keep the names that it gives them.

    Raises:
        InfrastructureError: the command cannot be executed.
    """
    samples: dict[str, tuple[float, ...]] = {}
    reports: list[Mapping[str, object]] = []
    flags: set[str] = set()
    for number in range(plan.repeats):
        meter = CpuMeter(plan.cpus, server.process.supervisor_pid)
        values = _run(server, benchmark, plan)
        if isinstance(values, Rejected):
            return values
        window = meter.read()
        disturbed = window.noisy or foreign_gpu_processes(plan.gpus, server.process.supervisor_pid)
        flags |= {"noisy"} if disturbed else set()
        values["foreign_cpu_share"] = window.foreign_share
        reports.append(values)
        samples = {
            name: (*samples.get(name, ()), value) for name, value in values.items() if number == 0 or name in samples
        }
        samples = {name: kept for name, kept in samples.items() if len(kept) == number + 1}
        if (missing := missing_objectives(plan.objectives, samples)) is not None:
            return missing
        if number + 1 < plan.repeats and "noisy" not in flags and beaten(plan.objectives, samples, plan.bar):
            flags.add("short")
            break
    return Measurement(samples=samples, flags=frozenset(flags), report=tuple(reports))


def _run(server: ServerUnderTest, benchmark: OwnBenchmark, plan: Plan) -> dict[str, float] | Rejected:
    benchmark.output.unlink(missing_ok=True)
    outcome = run_trusted(benchmark.command, dict(benchmark.words))
    if (crash := server.crash()) is not None:
        return crash
    if outcome.code != 0:
        timeout_s = benchmark.command.timeout_s
        ended = (
            f"did not end within {timeout_s:g} s" if outcome.code is None else f"failed ({describe_exit(outcome.code)})"
        )
        return Rejected(stage=Stage.BENCHMARK, reason=f"the target's benchmark {ended}", evidence=outcome.output)
    try:
        report = read_object(benchmark.output)
        wanted = {f"{o.name}@{load}" for o in plan.objectives for load in o.loads}
        wanted |= {o.name for o in plan.objectives if not o.loads}
        required = {name: metric(report, name) for name in sorted(wanted)}
    except Malformed as error:
        problem = Rejected(stage=Stage.BENCHMARK, reason=f"the target's benchmark reported no measurement: {error}")
        return replace(problem, evidence=outcome.output)
    values = {**_others(report), **required}
    return impossible(values, plan.best) or values


def _others(report: Mapping[str, object]) -> dict[str, float]:
    """Every other top-level number that can be a measurement; settings and texts are left out."""
    found = {}
    for name, value in report.items():
        try:
            found[name] = check_metric(name, value)
        except Malformed:
            continue
    return found
