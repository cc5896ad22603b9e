"""Decides what a target is: a folder read, checked and frozen, or every defect of it at once."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluators.load.workload import LOAD_KEYS, Load
from evaluators.target_problems import objective_problems, target_problems
from evaluators.target_schema import (
    AccuracyTable,
    ArtifactsTable,
    AuditTable,
    BaselineTable,
    BenchmarkTable,
    CeilingTable,
    InspectionTable,
    ModelTable,
    ResourcesTable,
    RooflineTable,
    ServerTable,
    Tables,
    did_you_mean,
    parse_tables,
)
from population.errors import ConfigError
from population.objectives import Direction, Objective, ObjectiveSet, load_objectives

BUILT = "{artifacts}/"
"""What a path begins with that leads into the artifacts."""
_DEFAULT_BENCHMARK = ("{python}", "benchmark/benchmark.py", "--url", "{url}", "--output-json", "{output}")
_DEFAULT_OBJECTIVES = ObjectiveSet(
    (
        Objective(name="output_throughput", direction=Direction.MAX, unit="tok/s"),
        Objective(name="median_ttft_ms", direction=Direction.MIN, unit="ms"),
        Objective(name="median_tpot_ms", direction=Direction.MIN, unit="ms"),
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A valid target. The tables are those of `evaluators/target_schema.py`, where each key is documented."""

    folder: Path
    name: str
    objective: str
    """The text of OBJECTIVE.md."""
    objectives: ObjectiveSet
    server: ServerTable
    artifacts: ArtifactsTable | None
    model: ModelTable
    accuracy: AccuracyTable
    audit: AuditTable | None
    benchmark: BenchmarkTable
    roofline: RooflineTable | None
    ceilings: tuple[CeilingTable, ...]
    inspection: InspectionTable
    resources: ResourcesTable
    loads: tuple[Load, ...]
    baselines: tuple[BaselineTable, ...]

    @property
    def seed(self) -> Path | None:
        """The folder of the first candidate, if the target brings one."""
        folder = self.folder / "seed"
        return folder if folder.is_dir() else None

    @property
    def measured_by_client(self) -> bool:
        """Whether our own client measures, rather than a benchmark of the target's own."""
        return self.benchmark.command is None

    @property
    def vocab_is_built(self) -> bool:
        """Whether the vocabulary is among the artifacts, and so unknown before they are there."""
        return self.model.vocab is not None and self.model.vocab.startswith(BUILT)

    def vocabulary(self, artifacts: Path | None = None) -> tuple[str, ...] | None:
        """Token strings by id; None if the target declares none, or one of the artifacts and `artifacts` is not given.

        Raises:
            OSError, ValueError: the file is not there, or no JSON.
        """
        vocab = self.model.vocab
        if vocab is None or (self.vocab_is_built and artifacts is None):
            return None
        path = self.folder / vocab if artifacts is None else self.folder / vocab.replace(BUILT, f"{artifacts}/", 1)
        return tuple(json.loads(path.read_text(encoding="utf-8")))

    @property
    def prompt_ids(self) -> tuple[int, int]:
        """Inclusive range that fresh prompts are drawn from."""
        if self.model.prompt_ids is not None:
            return self.model.prompt_ids
        return (0, len(self.vocabulary() or ("",)) - 1)


def load_target(folder: Path) -> Target:
    """Read and check a target folder. Without `target.toml` the documented defaults apply (docs/target.md).

    Raises:
        ConfigError: with every defect of every file.
    """
    problems: list[str] = []
    target = _read(folder, problems)
    if problems or target is None:
        raise ConfigError(problems)
    return target


def validate_target(folder: Path) -> list[str]:
    """Every defect of a target folder, one sentence each; empty if it is valid."""
    problems: list[str] = []
    _read(folder, problems)
    return problems


def _read(folder: Path, problems: list[str]) -> Target | None:
    if not folder.is_dir():
        problems.append(f"{folder}: expected a target folder, found {'a file' if folder.exists() else 'nothing'}")
        return None
    settings = folder / "target.toml"
    tables = parse_tables(_toml(settings, problems), str(settings), problems)
    objectives = _objectives(folder, problems)
    objective = _text(folder / "OBJECTIVE.md", problems)
    if not (folder / "reference").is_dir():
        problems.append(f"{folder / 'reference'}: expected a folder with the reference implementation, found none")
    if tables is None:
        return None
    loads = read_loads(tables, settings, problems)
    benchmark = _benchmark(tables, folder, loads, problems)
    target = Target(
        folder=folder.resolve(),
        name=tables.target.name or folder.resolve().name,
        objective=objective,
        objectives=objectives or _DEFAULT_OBJECTIVES,
        server=tables.server,
        artifacts=tables.artifacts,
        model=tables.model,
        accuracy=tables.accuracy,
        audit=tables.audit,
        benchmark=benchmark,
        roofline=tables.roofline,
        ceilings=tables.ceiling,
        inspection=tables.inspection,
        resources=tables.resources,
        loads=loads if benchmark.command is None else (),
        baselines=tables.baseline,
    )
    problems += target_problems(target, settings)
    declared = folder / "objectives.toml"
    if objectives is not None or not declared.exists():  # the defaults in place of a malformed file explain nothing
        problems += objective_problems(target, declared)
    return target


def _toml(path: Path, problems: list[str]) -> Mapping[str, Any]:
    if not path.exists():
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        problems.append(f"{path}: not valid TOML: {error}")
    except OSError as error:
        problems.append(f"{path}: cannot be read: {error.strerror}")
    return {}


def _text(path: Path, problems: list[str]) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        problems.append(f"{path}: cannot be read: {error.strerror}; it says in free text what the server is for")
    except UnicodeDecodeError:
        problems.append(f"{path}: expected UTF-8 text")
    return ""


def _objectives(folder: Path, problems: list[str]) -> ObjectiveSet | None:
    path = folder / "objectives.toml"
    if not path.exists():
        return None
    try:
        return load_objectives(path)
    except ConfigError as error:
        problems += error.problems
        return None


def read_loads(tables: Tables, settings: Path, problems: list[str]) -> tuple[Load, ...]:
    """The `[[load]]` tables that are sound; one sentence per defect is appended to `problems`."""
    loads = []
    for number, table in enumerate(tables.load, 1):
        where = f"{settings}: [[load]] {number}"
        unknown = [key for key in table if key not in LOAD_KEYS]
        problems += [f"{where}: unknown key '{key}'{did_you_mean(key, LOAD_KEYS)}" for key in unknown]
        if "name" not in table:
            problems.append(f"{where}: 'name' is required")
        if unknown or "name" not in table:
            continue
        try:
            load = Load.from_table(table)
        except TypeError as error:
            problems.append(f"{where}: {error}")
            continue
        problems += [f"{where}: {text}" for text in load.problems()]
        loads.append(load)
    names = [load.name for load in loads]
    problems += [
        f"{settings}: [[load]] '{n}' is declared {names.count(n)} times"
        for n in sorted(set(names))
        if names.count(n) > 1
    ]
    return tuple(loads)


def _benchmark(tables: Tables, folder: Path, loads: tuple[Load, ...], problems: list[str]) -> BenchmarkTable:
    """`[benchmark]`, with the older layout's benchmark.py where neither loads nor a command are declared."""
    table, settings = tables.benchmark, folder / "target.toml"
    if table.command is not None and tables.load:
        problems.append(f"{settings}: [benchmark] 'command' and [[load]] exclude each other; keep one")
    if table.command is None and not tables.load:
        if not (folder / _DEFAULT_BENCHMARK[1]).is_file():
            problems.append(
                f"{settings}: expected [[load]] tables, [benchmark] 'command' or {_DEFAULT_BENCHMARK[1]}, found none"
            )
        return BenchmarkTable(
            repeats=table.repeats,
            warmup_requests=table.warmup_requests,
            warmup_tokens=table.warmup_tokens,
            command=_DEFAULT_BENCHMARK,
            timeout_s=table.timeout_s,
        )
    return table
