"""Decides every option of a run: one documented tree, with its defaults, units and what `None` means.

Values arrive in layers (`vibeserve/layers.py`); the environment is read here alone. docs/config.md is generated from
the docstrings below.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PrivateAttr

from vibeserve.search_config import SearchConfig
from vibeserve.sections import Section

Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Folder = Annotated[Path, Field(strict=False)]


class BudgetConfig(Section):
    """What ends the search; the first limit that is reached does. `None` is unlimited."""

    children: Positive | None = 100
    """Children that have ended, scored or rejected, the seed not counted."""
    wall_time_s: Annotated[float, Field(gt=0)] | None = None
    """Seconds of search, summed over resumes; preparing and the final re-measurement come on top."""
    gpu_hours: Annotated[float, Field(gt=0)] | None = None
    """GPU-hours leased to evaluations."""


class ClusterConfig(Section):
    """Where children run."""

    executor: Literal["ray", "inline"] = "ray"
    """`inline` runs one child at a time inside the driver, without Ray."""
    address: str | None = None
    """Ray cluster, e.g. `auto` or `ray://head:10001`. None: start a local Ray for this run."""
    evaluate_slots: Positive | None = None
    """Evaluations at once. None: as many as the cluster's resources hold of the target's `[resources]`."""
    queue_depth: Count = 0
    """Children beyond the evaluate slots that may be in flight, so that a mutated one waits before each evaluator.
    Worth 1 or more where mutating takes long; each one is proposed without the results of those before it."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Ray node labels that an evaluation needs, e.g. `{"ray.io/accelerator-type" = "H100"}`."""


class EvaluationConfig(Section):
    """How often and how long a candidate is measured."""

    repeats: Positive | None = None
    """Benchmark repeats of one evaluation. None: as the target says."""
    trace_seed: Count | None = None
    """Seed of arrival times, lengths and sharing during the search. None: from `seed`. Set it to compare runs."""
    racing: bool = True
    """Stop measuring a child as soon as it can no longer be non-dominated."""
    remeasure: bool = True
    """Measure uncertain members of the front, and contenders, once more while slots are idle: while children in flight
    leave some free, and from the last child until the wall time is over (where there is a limit)."""
    final_repeats: Count = 1
    """Fresh measurements of every front member at the end, on the held-out trace. 0: none."""
    profile: bool = True
    """Profile scored candidates (py-spy, where it is present) for hints."""
    allow_reduced_isolation: bool = False
    """Where tier A (bubblewrap) does not work, run servers in tier B (Landlock and seccomp) instead of refusing them.
    What it leaves open is listed in every record."""


class SkillsConfig(Section):
    """Where recipes come from."""

    dir: Folder = Path("skills")
    """Folder of Agent Skills; those with a recipe.toml can be applied. Relative to the checkout when not found here."""


class Config(Section):
    """The whole of a run's options."""

    target: Folder | None = None
    """Folder of the target; usually given on the command line."""
    name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Last part of the run folder's name. None: the target's name."""
    seed: Count | None = None
    """Seed of every random choice. None: drawn, and recorded in the ledger and in run.toml."""
    runs_dir: Folder = Path("runs")
    """Folder that holds the run folders."""
    search: SearchConfig = SearchConfig()
    budget: BudgetConfig = BudgetConfig()
    cluster: ClusterConfig = ClusterConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    skills: SkillsConfig = SkillsConfig()

    _origins: dict[str, str] = PrivateAttr(default_factory=dict)

    @property
    def origins(self) -> Mapping[str, str]:
        """Dotted key → where its value came from (`preset quickstart`, `run.toml:12`, `-s`); missing: default."""
        return self._origins

    def with_origins(self, origins: Mapping[str, str]) -> Config:
        """The same values with another account of where they came from."""
        copy = self.model_copy()
        copy._origins = dict(origins)
        return copy

    def replace(self, key: str, value: object, origin: str) -> Config:
        """A copy with the dotted `key` changed, e.g. a drawn seed; `value` must be of the field's type."""
        head, _, rest = key.partition(".")
        section = getattr(self, head)
        changed = section.model_copy(update={rest: value}) if rest else value
        return self.model_copy(update={head: changed}).with_origins({**self._origins, key: origin})


def environment_layer() -> dict[str, tuple[object, str]]:
    """Dotted key → (value, origin) of the environment variables that set a config key.

    `RAY_ADDRESS` is set by `ray job submit`, so that a submitted driver joins its own cluster.
    """
    names = {"VIBESERVE_RUNS_DIR": "runs_dir", "RAY_ADDRESS": "cluster.address"}
    return {key: (os.environ[name], f"env {name}") for name, key in names.items() if os.environ.get(name)}


def debug_wanted() -> bool:
    """Whether VIBESERVE_DEBUG asks for tracebacks."""
    return os.environ.get("VIBESERVE_DEBUG", "") not in ("", "0")


def ray_auth() -> tuple[str | None, str | None]:
    """RAY_ADDRESS and RAY_AUTH_MODE, which `vibeserve doctor` compares."""
    return os.environ.get("RAY_ADDRESS") or None, os.environ.get("RAY_AUTH_MODE") or None
