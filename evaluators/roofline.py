"""Decides what no server can beat on this node: ceilings that the target declares, or measures once per node."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from evaluators.command import TrustedCommand, run_trusted
from evaluators.fingerprint import digest
from evaluators.server import describe_exit
from evaluators.strict_json import Malformed, metric, read_object
from evaluators.target import Target
from population.errors import InfrastructureError
from population.evaluation import Rejected, Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a token costs, and what the node gives; for hints, never for a verdict."""

    flop_per_output_token: float
    flop_per_prompt_token: float
    bytes_per_step: float
    """Read by every step, however many tokens it computes: the weights."""
    flop_per_s: float
    bytes_per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Roof:
    """What a node allows for a target."""

    best: Mapping[str, float] = field(default_factory=dict)
    """Metric, with or without `@load`, → best possible value."""
    work: Work | None = None


def roof(target: Target, artifacts: Path, cache: Path, cpus: tuple[int, ...] = (), gpus: tuple[str, ...] = ()) -> Roof:
    """As measured and declared; of two ceilings for one metric the more generous one counts.

    Raises:
        InfrastructureError: the target's `[roofline]` command failed.
    """
    measured = _measured(target, artifacts, cache, cpus, gpus)
    found = dict(measured.best)
    for ceiling in target.ceilings:
        known = found.get(ceiling.metric, ceiling.best)
        found[ceiling.metric] = (min if smaller_is_better(ceiling.metric) else max)(known, ceiling.best)
    return Roof(best=found, work=measured.work)


def impossible(values: Mapping[str, float], best: Mapping[str, float]) -> Rejected | None:
    """A rejection if a measured value beats its ceiling: then it is not a measurement of the model on this hardware."""
    for name in sorted(values):
        limit = best.get(name, best.get(name.partition("@")[0]))
        if limit is None:
            continue
        below = smaller_is_better(name)
        if values[name] < limit if below else values[name] > limit:
            said = f"{name} is {values[name]:.4g}, but no server can be {'below' if below else 'above'} {limit:.4g}"
            reason = f"faster than the hardware: {said} on this target's hardware (its roofline)"
            return Rejected(stage=Stage.BENCHMARK, reason=reason)
    return None


def smaller_is_better(name: str) -> bool:
    """Whether the metric is a time."""
    return name.partition("@")[0].endswith("_ms")


def _measured(target: Target, artifacts: Path, cache: Path, cpus: tuple[int, ...], gpus: tuple[str, ...]) -> Roof:
    """What the target's command says of this node; run at the first evaluation, kept for the later ones."""
    table = target.roofline
    if table is None:
        return Roof()
    parts = [digest(target.folder / name) for name in ("reference", "target.toml")]
    key = [os.uname().nodename, len(cpus), len(gpus), *parts]
    file = cache / "roofline" / f"{hashlib.sha256(json.dumps(key).encode()).hexdigest()}.json"
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix="measure-", dir=file.parent))
        try:
            _run(target, artifacts, scratch, (cpus, gpus))
            (scratch / "roofline.json").replace(file)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return _read(file)


def _run(target: Target, artifacts: Path, scratch: Path, on: tuple[tuple[int, ...], tuple[str, ...]]) -> None:
    """`on`: CPUs and GPUs."""
    assert target.roofline is not None
    command = TrustedCommand(
        table="roofline",
        command=target.roofline.command,
        folder=target.folder,
        timeout_s=target.roofline.timeout_s,
        log=scratch / "roofline.log",
        home=scratch / "home",
        cpus=on[0],
        gpus=on[1],
    )
    output = scratch / "roofline.json"
    outcome = run_trusted(command, {"artifacts": str(artifacts), "output": str(output)})
    if outcome.code != 0:
        ended = "did not end in time" if outcome.code is None else f"failed ({describe_exit(outcome.code)})"
        raise InfrastructureError(f"the target's [roofline] command {ended}:\n{outcome.output}")
    _read(output)


def _read(file: Path) -> Roof:
    try:
        values = read_object(file)
        work = _work(values.pop("work", None))
        return Roof(best={name: metric(values, name) for name in values}, work=work)
    except Malformed as error:
        raise InfrastructureError(f"the target's [roofline] command wrote an unusable result: {error}") from error


def _work(given: object) -> Work | None:
    """The table `work`, which a command need not write.

    Raises:
        Malformed: it is no table of exactly the fields of `Work`, all of them numbers, the speeds above 0.
    """
    if given is None:
        return None
    names = [item.name for item in fields(Work)]
    if not isinstance(given, dict) or set(given) != set(names):
        raise Malformed(f"'work' must be an object with {', '.join(names)}, got {given!r:.200}")
    work = Work(**{name: metric(given, name) for name in names})
    if not work.flop_per_s or not work.bytes_per_s:
        raise Malformed("'work': flop_per_s and bytes_per_s must be above 0")
    return work
