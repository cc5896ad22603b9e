"""Decides how OpenEvolve is reached: its database in a process of its own Python, one JSON line each way."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

_WORKER = Path(__file__).with_name("openevolve_worker.py")


class Database:
    """`openevolve.database.ProgramDatabase` with its defaults; see openevolve_worker.py. A context manager."""

    def __init__(self, python: Path) -> None:
        # -P: the worker's folder stays off the path, so that no module here can hide one that OpenEvolve imports.
        self._process = subprocess.Popen(
            [python, "-P", _WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": "0"},  # it draws from sets of names
        )

    def __enter__(self) -> Database:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def reset(self, seed: int, features: Sequence[str]) -> None:
        """An empty database, whose random choices follow the seed."""
        self._ask({"reset": seed, "features": list(features)})

    def sample(self, island: int) -> tuple[str, list[str]]:
        """Parent and inspirations, as ids of candidates."""
        answer = self._ask({"sample": island})
        return answer["parent"], answer["inspirations"]

    def add(self, member: str, parent: str | None, island: int | None, metrics: Mapping[str, float]) -> None:
        self._ask({"add": member, "parent": parent, "island": island, "metrics": dict(metrics)})

    def _ask(self, order: Mapping[str, Any]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"OpenEvolve's process ended with {self._process.wait()}; it was asked {order}")
        return json.loads(line)
