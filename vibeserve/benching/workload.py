"""Decides what is asked of a server outside a run: the loads of a file, with prompts that its model understands."""

from __future__ import annotations

import json
import math
import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from evaluators.load.workload import Load
from evaluators.target import read_loads
from evaluators.target_problems import CLIENT_METRICS
from evaluators.target_schema import parse_tables
from population.errors import ConfigError

DEFAULT_IDS = (100, 8000)
"""Token ids that prompts draw from where nothing is known of the model: every vocabulary has them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What is asked of a server."""

    loads: tuple[Load, ...]
    model: str | None = None
    """What to ask a server for that lists no models."""
    prompt_ids: tuple[int, int] = DEFAULT_IDS
    warmup_requests: int = 2

    @property
    def metrics(self) -> frozenset[str]:
        """What measurements of it can be asked about, as `metric@load`."""
        counts = ("completed", "failed", "censored", "duration", "total_input_tokens", "total_output_tokens")
        names = (CLIENT_METRICS - {"cpu_ms_per_token"}) | set(counts)
        return frozenset(f"{name}@{load.name}" for name in names for load in self.loads)


def read_workload(path: Path) -> Workload:
    """`[[load]]`, `[model]`, `[benchmark] warmup_requests` of a `target.toml`, its folder, or a file with these alone.

    Raises:
        ConfigError: every defect of the file.
    """
    settings = path / "target.toml" if path.is_dir() else path
    try:
        data = tomllib.loads(settings.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{settings}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{settings}: not valid TOML: {error}") from error
    problems: list[str] = []
    tables = parse_tables(data, str(settings), problems)
    loads = read_loads(tables, settings, problems) if tables else ()
    if tables and not tables.load:
        problems.append(f"{settings}: expected at least one [[load]] table, found none")
    if problems or tables is None:
        raise ConfigError(problems)
    return Workload(
        loads=loads,
        model=tables.model.name if "name" in data.get("model", {}) else None,
        prompt_ids=tables.model.prompt_ids or _all_ids(settings.parent, tables.model.vocab),
        warmup_requests=tables.benchmark.warmup_requests,
    )


def load_json(load: Load) -> dict[str, Any]:
    """A load's declaration; infinity as a text, because strict JSON has none."""
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(load).items()}
    return {name: "inf" if value == math.inf else value for name, value in plain.items()}


def _all_ids(folder: Path, vocabulary: str | None) -> tuple[int, int]:
    """The whole vocabulary, as in a search."""
    if vocabulary is None:
        return DEFAULT_IDS
    try:
        return (0, len(json.loads((folder / vocabulary).read_text(encoding="utf-8"))) - 1)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{folder / vocabulary}: expected a JSON list of token strings: {error}") from error
