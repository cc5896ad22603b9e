"""Decides what a baseline of a comparison is: another run's front, or servers that `vibeserve bench` measured."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

from evaluators.strict_json import Malformed, check_metric, read_object
from population.errors import ConfigError, UsageError
from population.objectives import Objective, objective_samples
from population.statistics import estimate
from vibeserve.comparing.contenders import Contender, Identity, Kind, Member, Selection
from vibeserve.comparing.run_front import read_contender
from vibeserve.runs import find_run

HOW = "measure it with `vibeserve bench URL --workload TARGET --repeats 3 --output FILE`"


def read_baselines(
    texts: Sequence[str], objectives: Sequence[Objective], selection: Selection, runs_dir: Path | None
) -> tuple[Contender, ...]:
    """One contender per name, in the order given: `FILE`, `NAME=FILE` (several of one name make a front), or a run.

    Raises:
        UsageError: neither a file nor a run, or the file lacks an objective.
        ConfigError: the file is not a result of `vibeserve bench`.
    """
    files: dict[str, list[Path]] = {}
    found: dict[str, Contender] = {}
    for text in texts:
        name, place = _named(text)
        if Path(place).is_file():
            label = name or Path(place).stem
            files.setdefault(label, []).append(Path(place))
            found[label] = _of_files(label, files[label], objectives)
        else:
            contender = read_contender(_run(text, place, runs_dir), selection, Kind.BASELINE)
            found[name or contender.name] = replace(contender, name=name or contender.name)
    return tuple(found.values())


def _named(text: str) -> tuple[str, str]:
    """`NAME=PLACE` as its parts; the name is empty where there is none, or where all of it is a file."""
    name, equals, place = text.partition("=")
    return (name, place) if equals and not Path(text).exists() else ("", text)


def _run(text: str, name: str, runs_dir: Path | None) -> Path:
    try:
        return find_run(name, runs_dir)
    except UsageError as error:
        raise UsageError(f"--baseline {text}: neither a file nor a run ({error}); for a file, {HOW}") from error


def _of_files(label: str, paths: Sequence[Path], objectives: Sequence[Objective]) -> Contender:
    if len({path.resolve() for path in paths}) < len(paths):
        raise UsageError(
            f"--baseline {label}: {paths[-1]} is given twice; more measurements of one server go into --repeats"
        )
    tables = [_load(path) for path in paths]
    identities = [_identity(table) for table in tables]
    if len({(tuple(i.parts.items()), tuple(i.loads.items()), i.hardware) for i in identities}) > 1:
        raise UsageError(f"--baseline {label}: {', '.join(map(str, paths))} were not measured alike; name them apart")
    names = _distinct_names(paths)
    members = [_member(n, path, table, objectives) for n, path, table in zip(names, paths, tables, strict=True)]
    traces = {str(table["seed"]) for table in tables if "seed" in table}
    return Contender(
        name=label,
        kind=Kind.BASELINE,
        place=paths[0],
        members=tuple(members),
        identity=identities[0],
        trace_seed=traces.pop() if len(traces) == 1 else None,
        caveats=_flags(tables),
    )


def _distinct_names(paths: Sequence[Path]) -> list[str]:
    """What members are called: the file's name without its ending, or the whole path where that is not unique."""
    stems = [path.stem for path in paths]
    return stems if len(set(stems)) == len(stems) else [str(path) for path in paths]


def _flags(tables: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    flags = dict.fromkeys(str(flag) for table in tables for flag in _listed(table, "flags"))
    return (f"measured with the flags {', '.join(flags)}",) if flags else ()


def _load(path: Path) -> dict[str, Any]:
    try:
        table = read_object(path)
    except Malformed as error:
        raise ConfigError(f"{path}: expected the JSON of `vibeserve bench --output`: {error}") from error
    if not isinstance(table.get("samples"), dict):
        raise ConfigError(f"{path}: expected the JSON of `vibeserve bench` with 'samples' in it; {HOW}")
    return table


def _member(name: str, path: Path, table: Mapping[str, Any], objectives: Sequence[Objective]) -> Member:
    measured = {o.name: _measured(path, table["samples"], o.name) for o in objectives}
    try:
        samples = {o.name: objective_samples(o, measured[o.name]) for o in objectives}
    except ConfigError as error:
        has = ", ".join(sorted(table["samples"])) or "nothing"
        raise UsageError(f"{path}: {error.problems[0].partition(';')[0]}; it has {has}; {HOW}") from error
    return Member(
        id=name,
        made_by=str(table.get("url", "")),
        samples=samples,
        estimates={o.name: estimate(samples[o.name], o.relative_noise) for o in objectives},
    )


def _measured(path: Path, samples: Mapping[str, Any], name: str) -> dict[str, tuple[float, ...]]:
    """Every key of one metric (`name@load`, `name`) → its values; of a single load also without the load.

    Raises:
        ConfigError: a value that is no measurement.
    """
    keys = [key for key in samples if name in (key, key.partition("@")[0])]
    found = {}
    for key in keys:
        values = samples[key]
        if not isinstance(values, list):
            raise ConfigError(f"{path}: samples.{key}: expected a list of numbers, got {values!r}")
        try:  # null is what strict JSON has for infinite
            found[key] = tuple(inf if value is None else check_metric(key, value) for value in values)
        except Malformed as error:
            raise ConfigError(f"{path}: samples: {error}") from error
    return found | ({name: found[keys[0]]} if len(keys) == 1 else {})


def _listed(table: Mapping[str, Any], key: str) -> Sequence[Any]:
    value = table.get(key)
    return value if isinstance(value, list) else ()


def _identity(table: Mapping[str, Any]) -> Identity:
    version, hardware = table.get("vibeserve"), table.get("hardware")
    declared = [load for load in _listed(table, "workload") if isinstance(load, dict)]
    loads = {str(load.get("name")): json.dumps(load, sort_keys=True) for load in declared}
    client = "client" if table.get("backend") == "vibeserve" else str(table.get("backend", "unknown"))
    return Identity(
        parts={"client": client, **({"vibeserve": str(version)} if version else {})},
        loads=loads,
        hardware=frozenset([str(hardware)] if hardware else []),
        partial=True,
    )
