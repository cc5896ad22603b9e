"""Decides how the candidates of a run leave it as a table: CSV, JSON Lines or Parquet, with vLLM's names of metrics."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from population.errors import InfrastructureError, UsageError
from vibeserve.results import Run

FORMATS = (".csv", ".jsonl", ".parquet")


def is_table(path: Path) -> bool:
    """Whether a file of this name is a table, rather than a folder for a server."""
    return path.suffix.lower() in FORMATS


def write_table(run: Run, path: Path) -> int:
    """One row per candidate that has ended; returns how many. An infinite latency is empty in CSV and null in JSON.

    Raises:
        UsageError: Parquet without pyarrow.
        InfrastructureError: the file cannot be written.
    """
    rows = run.rows()
    try:
        {".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}[path.suffix.lower()](rows, path)
    except OSError as error:
        raise InfrastructureError(f"{path}: cannot be written: {error.strerror or error}") from error
    return len(rows)


def _csv(rows: Sequence[dict[str, Any]], path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else ["id"])
        writer.writeheader()
        writer.writerows({key: _finite(value) for key, value in row.items()} for row in rows)


def _jsonl(rows: Sequence[dict[str, Any]], path: Path) -> None:
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            plain = {key: _finite(value) for key, value in row.items()}
            file.write(json.dumps(plain, allow_nan=False, ensure_ascii=False) + "\n")


def _parquet(rows: Sequence[dict[str, Any]], path: Path) -> None:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UsageError(
            "Parquet needs pyarrow: pip install 'vibeserve[export]'; .csv and .jsonl do without"
        ) from error
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
