"""Decides every option of a run: one documented tree, with its defaults, units and what `None` means.

Values arrive in layers (`vibeserve/layers.py`); the environment is read here alone. docs/config.md is generated from
the docstrings below.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, PrivateAttr

from vibeserve.agents.options import AgentOptions, ProviderName
from vibeserve.same_hardware import MixedHardware
from vibeserve.search_config import SearchConfig
from vibeserve.sections import Section, section_of

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
    tokens: Positive | None = None
    """Tokens of language models, input (cached or not) and output. A child that would probably go beyond, by the mean
    of those before it, is not begun, here and with `dollars`."""
    dollars: Annotated[float, Field(gt=0)] | None = None
    """Dollars for language models, by `[agents] prices`. Refused as long as one of them has no price."""


class ClusterConfig(Section):
    """Where children run."""

    executor: Literal["ray", "inline"] = "ray"
    """`inline` runs one child at a time inside the driver, without Ray."""
    address: str | None = None
    """Ray cluster, e.g. `auto` or `ray://head:10001`. None: start a local Ray for this run."""
    evaluate_slots: Positive | None = None
    """Evaluations at once. None: as many as the cluster's resources hold of the target's `[resources]`."""
    mutations: Positive | None = None
    """Mutations at once, at most. None: as many as keep the evaluators busy, by the latencies observed."""
    queue_low: Count | None = None
    """Mutated children that should at least wait before the evaluators; with fewer, more are mutated than usual. None:
    from latencies; none wait where mutating takes next to no time, because each that waits was proposed without the
    results of those before it."""
    queue_high: Count | None = None
    """Mutated children that may wait at most; with as many, no mutation is begun. None: from latencies."""
    expected_mutation_s: Annotated[float, Field(ge=0)] = 0.0
    """Seconds that a mutation is thought to take until some have ended. 0: nothing is known, begin carefully."""
    deadline_factor: Annotated[float, Field(ge=1)] | None = 10.0
    """A mutation or evaluation that takes this many times as long as 95 % of those before it hangs: it is ended and
    tried again, as after a fault of the machine. Once 20 of its stage have ended. None: no such limit."""
    deadline_floor_s: Annotated[float, Field(gt=0)] = 900.0
    """Seconds before which nothing is taken for hanging."""
    patience_s: Annotated[float, Field(ge=0)] = 3600.0
    """Seconds for which mutations are tried again while none of them works (the provider of the LLM is out, a disk is
    full), ever less often; then the run stops and can be resumed. No child is charged with it."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Ray node labels that an evaluation needs, as Ray's label selectors spell them, e.g. `{"ray.io/accelerator-type" =
    "in(H100,H200)"}`; they win over `[resources]` of the target."""
    nodes_timeout_s: Annotated[float, Field(ge=0)] = 0.0
    """Seconds to wait at the start for a first node that can hold an evaluation, e.g. while a cluster comes up. 0: say
    at once what the nodes lack. Nodes that join later are used in any case."""
    mixed_hardware: MixedHardware = "refuse"
    """Where the nodes that match are of different hardware (CPU, GPU, clocks, power limit, driver, versions), or a run
    is resumed on another: `refuse` with what differs; `stratify` measures on one kind alone, that of the run's first
    measurement, else the most frequent; `accept` pools the measurements all the same, and warns."""
    priority: int = 0
    """Among runs that share a cluster, those with a higher number get free evaluation slots first. Equals share alike;
    evaluations that run are never ended for it."""


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
    """See where the time of scored candidates goes: py-spy, and for servers that import PyTorch its profiler and, with
    GPUs, Nsight Systems, in a further start of the server for each."""
    allow_reduced_isolation: bool = False
    """Where tier A (bubblewrap) does not work, run servers in tier B (Landlock and seccomp) instead of refusing them.
    What it leaves open is listed in every record."""


class SkillsConfig(Section):
    """Where recipes come from."""

    dir: Folder = Path("skills")
    """Folder of Agent Skills; those with a recipe.toml can be applied. Relative to the checkout when not found here."""


if TYPE_CHECKING:

    class AgentsConfig(Section):
        """Of the options, those that are asked for one by one."""

        provider: ProviderName | None = None
        child_timeout_s: float = 1800.0
        repair: int = 3
        merges: bool = True

else:
    AgentsConfig = section_of(AgentOptions, counts={"max_output_tokens", "turns", "child_tokens"})


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
    agents: AgentsConfig = AgentsConfig()

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


def secret(name: str, file: str | None) -> str | None:
    """A key, from a file or else from the environment; read where it is used, and kept by nobody.

    Raises:
        OSError: the file cannot be read.
    """
    if file is not None:
        return Path(file).expanduser().read_text(encoding="utf-8").strip() or None
    return os.environ.get(name) or None


def ray_job_config() -> str | None:
    """What `ray job submit` says of the job that this process is the driver of, as JSON; None outside a job."""
    return os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR") or None


def debug_wanted() -> bool:
    """Whether VIBESERVE_DEBUG asks for tracebacks."""
    return os.environ.get("VIBESERVE_DEBUG", "") not in ("", "0")


def ray_auth() -> tuple[str | None, str | None]:
    """RAY_ADDRESS and RAY_AUTH_MODE, which `vibeserve doctor` compares."""
    return os.environ.get("RAY_ADDRESS") or None, os.environ.get("RAY_AUTH_MODE") or None
