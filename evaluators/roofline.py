"""Decides what no server can beat on this node: ceilings that the target declares, or measures once per node."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from evaluators.command import TrustedCommand, run_trusted
from evaluators.fingerprint import digest
from evaluators.server import describe_exit
from evaluators.strict_json import Malformed, metric, read_object
from evaluators.target import Target
from population.errors import InfrastructureError
from population.evaluation import Rejected, Stage


def ceilings(
    target: Target, artifacts: Path, cache: Path, cpus: tuple[int, ...] = (), gpus: tuple[str, ...] = ()
) -> dict[str, float]:
    """Metric, with or without `@load`, → best possible value; of two for one metric the more generous one counts.

    Raises:
        InfrastructureError: the target's `[roofline]` command failed.
    """
    found = _measured(target, artifacts, cache, cpus, gpus)
    for ceiling in target.ceilings:
        known = found.get(ceiling.metric, ceiling.best)
        found[ceiling.metric] = (min if _smaller_is_better(ceiling.metric) else max)(known, ceiling.best)
    return found


def impossible(values: Mapping[str, float], best: Mapping[str, float]) -> Rejected | None:
    """A rejection if a measured value beats its ceiling: then it is not a measurement of the model on this hardware."""
    for name in sorted(values):
        limit = best.get(name, best.get(name.partition("@")[0]))
        if limit is None:
            continue
        below = _smaller_is_better(name)
        if values[name] < limit if below else values[name] > limit:
            said = f"{name} is {values[name]:.4g}, but no server can be {'below' if below else 'above'} {limit:.4g}"
            reason = f"faster than the hardware: {said} on this target's hardware (its roofline)"
            return Rejected(stage=Stage.BENCHMARK, reason=reason)
    return None


def _smaller_is_better(name: str) -> bool:
    return name.partition("@")[0].endswith("_ms")


def _measured(
    target: Target, artifacts: Path, cache: Path, cpus: tuple[int, ...], gpus: tuple[str, ...]
) -> dict[str, float]:
    """What the target's command says of this node; run at the first evaluation, kept for the later ones."""
    table = target.roofline
    if table is None:
        return {}
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


def _read(file: Path) -> dict[str, float]:
    try:
        values = read_object(file)
        return {name: metric(values, name) for name in values}
    except Malformed as error:
        raise InfrastructureError(f"the target's [roofline] command wrote an unusable result: {error}") from error
