"""Decides what the tables of `target.toml` may say: keys, types, ranges and defaults, one dataclass per table."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import pydantic
from pydantic import BeforeValidator, ConfigDict, Field, StringConstraints
from pydantic.dataclasses import dataclass

_CONFIG = ConfigDict(extra="forbid")

Seconds = Annotated[float, Field(strict=True, gt=0, le=86400, allow_inf_nan=False)]
Count = Annotated[int, Field(strict=True, ge=1)]
Threshold = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)]
Command = Annotated[tuple[Annotated[str, StringConstraints(min_length=1)], ...], Field(min_length=1)]
TokenId = Annotated[int, Field(strict=True, ge=0)]

PLACEHOLDERS = frozenset({"python", "host", "port", "url", "artifacts", "responses", "output"})


@dataclass(config=_CONFIG, frozen=True, slots=True, kw_only=True)
class TargetTable:
    """`[target]`"""

    name: Name | None = None
    """Default: the folder's name."""


@dataclass(config=_CONFIG, frozen=True, slots=True, kw_only=True)
class ServerTable:
    """`[server]`: how a candidate is started; the working directory is its tree."""

    command: Command = ("{python}", "server.py", "--host", "{host}", "--port", "{port}")
    ready_path: Annotated[str, StringConstraints(pattern=r"^/\S*$")] = "/health"
    """Any 2xx answer to GET means ready."""
    ready_timeout_s: Seconds = 60.0
    stop_grace_s: Annotated[float, Field(strict=True, ge=0, le=600)] = 2.0
    """Between SIGTERM and SIGKILL."""
    max_tokens_per_chunk: Count | None = None
    """Most tokens that one event of a stream may bring; None: any number."""
    restart_after_checker: Annotated[bool, Field(strict=True)] = True
    """Measure a fresh process with an empty home, not the one that answered the checker."""
    env: Mapping[str, str] = Field(default_factory=dict)
    """Added to the allow-listed environment, which is otherwise all that a candidate sees."""


@dataclass(config=_CONFIG, frozen=True, slots=True, kw_only=True)
class ArtifactsTable:
    """`[artifacts]`: a command that builds weights and the like into `{artifacts}`, once per node."""

    command: Command
    timeout_s: Seconds = 600.0


@dataclass(config=_CONFIG, frozen=True, slots=True, kw_only=True)
class ModelTable:
    """`[model]`: what requests say and what fresh prompts are drawn from."""

    name: Annotated[str, StringConstraints(min_length=1)] = "default"
    vocab: str | None = None
    """JSON list of token strings, relative to the target or below `{artifacts}`; None: the text of answers is not
    checked."""
    prompt_ids: tuple[TokenId, TokenId] | None = None
    """Inclusive range of ids; None: the whole vocabulary."""


@dataclass(config=_CONFIG, frozen=True, slots=True, kw_only=True)
class AccuracyTable:
    """`[accuracy]`: the target's checker; exit code 0 is a pass."""

    command: Command = ("{python}", "accuracy_checker/checker.py", "--url", "{url}", "--output-json", "{output}")
    timeout_s: Seconds = 300.0


@dataclass(config=_CONFIG, frozen=True, slots=True, kw_only=True)
class AuditTable:
    """`[audit]`: re-scoring of the benchmark's own answers; gaps in units of the logit standard deviation.

    A threshold that is None is not gated.
    """

    command: Command
    max_gap: Threshold
    mean_gap: Threshold | None = None
    p999_gap: Threshold | None = None
    flip_rate: Threshold | None = None
    timeout_s: Seconds = 300.0
    responses: Count = 12
    """How many answers are re-scored."""


@dataclass(config=_CONFIG, frozen=True, slots=True, kw_only=True)
class BenchmarkTable:
    """`[benchmark]`"""

    repeats: Count = 2
    warmup_requests: Annotated[int, Field(strict=True, ge=0)] = 2
    warmup_tokens: Count | None = None
    """The client hangs up after so many; None: it reads whole answers."""
    command: Command | None = None
    """A benchmark of the target's own in place of `[[load]]`; recorded as measured by the target."""
    timeout_s: Seconds = 600.0
    """For `command` only; loads end by themselves."""


@dataclass(config=_CONFIG, frozen=True, slots=True, kw_only=True)
class CeilingTable:
    """`[[ceiling]]`: what no server can beat on this target's hardware; whoever does is rejected."""

    metric: Annotated[str, StringConstraints(min_length=1)]
    """As objectives name it, with or without `@load`; without, it holds for every load."""
    best: Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
    """Smallest possible latency, or largest possible throughput."""


@dataclass(config=_CONFIG, frozen=True, slots=True, kw_only=True)
class RooflineTable:
    """`[roofline]`: a command that measures a node once and writes `{metric@load: best}` to `{output}`."""

    command: Command
    timeout_s: Seconds = 60.0


@dataclass(config=_CONFIG, frozen=True, slots=True, kw_only=True)
class InspectionTable:
    """`[inspection]`: what a candidate's files may hold beyond what every target permits."""

    allow: Mapping[str, Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]] = Field(
        default_factory=dict
    )
    """Rule → the reason why servers of this target need what it forbids."""
    paths: tuple[Annotated[str, StringConstraints(pattern=r"^/[^/]")], ...] = ()
    """Absolute paths that code may name, with everything below them."""
    max_data_bytes: Annotated[int, Field(strict=True, ge=0)] = 65536
    """Of all files together that are no programs."""
    max_literal_bytes: Count = 4096
    """Of one text or number in the code."""
    max_table_items: Count = 512
    """Constants in one list, tuple, set or dictionary of the code; four times that in the whole tree."""


@dataclass(config=_CONFIG, frozen=True, slots=True, kw_only=True)
class ResourcesTable:
    """`[resources]` that one evaluation needs."""

    num_gpus: Annotated[int, Field(strict=True, ge=0)] = 0
    accelerator_type: Annotated[str | None, BeforeValidator(lambda text: text or None)] = None
    """A Ray accelerator type such as "H200"; empty: any."""
    labels: Mapping[str, str] = Field(default_factory=dict)
    """Ray node labels that the node must have, as Ray's selectors spell them: `{"rack" = "in(a,b)"}`."""
    cpus: Count = 1
    client_cpus: Count = 1
    """How many of them are the load client's, and not the server's; with one CPU they share it."""


@dataclass(config=_CONFIG, frozen=True, slots=True, kw_only=True)
class BaselineTable:
    """`[[baseline]]`: the seed with these recipes applied, reported beside the seed."""

    name: Name
    recipes: tuple[str, ...]


@dataclass(config=_CONFIG, frozen=True, slots=True, kw_only=True)
class Tables:
    """A whole `target.toml`, except `[[load]]`, whose tables `evaluators/load/workload.py` reads."""

    target: TargetTable = TargetTable()
    server: ServerTable = ServerTable()
    artifacts: ArtifactsTable | None = None
    model: ModelTable = ModelTable()
    accuracy: AccuracyTable = AccuracyTable()
    audit: AuditTable | None = None
    benchmark: BenchmarkTable = BenchmarkTable()
    roofline: RooflineTable | None = None
    ceiling: tuple[CeilingTable, ...] = ()
    inspection: InspectionTable = InspectionTable()
    resources: ResourcesTable = ResourcesTable()
    load: tuple[Mapping[str, Any], ...] = ()
    baseline: tuple[BaselineTable, ...] = ()


def parse_tables(data: Mapping[str, Any], where: str, problems: list[str]) -> Tables | None:
    """The validated tables; None after appending one sentence per defect, each naming file and key."""
    try:
        return pydantic.TypeAdapter(Tables).validate_python(data)
    except pydantic.ValidationError as error:
        problems += [f"{where}: {_explain(dict(item))}" for item in error.errors(include_url=False)]
        return None


def command_problems(command: Sequence[str], where: str, needs: Sequence[str] = ()) -> list[str]:
    """Unknown placeholders, and missing ones among `needs`."""
    used = {name for part in command for name in re.findall(r"\{(\w*)\}", part)}
    unknown = [
        f"{where}: unknown placeholder {{{n}}}{did_you_mean(n, PLACEHOLDERS)}" for n in sorted(used - PLACEHOLDERS)
    ]
    return unknown + [f"{where}: must contain {{{name}}}" for name in needs if name not in used]


def did_you_mean(word: str, known: Sequence[str] | frozenset[str]) -> str:
    """`; did you mean 'x'?`, or the list of what is known."""
    close = difflib.get_close_matches(word, sorted(known), n=1)
    return f"; did you mean '{close[0]}'?" if close else f"; known: {', '.join(sorted(known))}"


def _explain(item: dict[str, Any]) -> str:
    place = [str(part) for part in item["loc"]]
    if item["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        known = _keys_at(place[:-1])
        head = f"{_table(place[:-1])} unknown key" if place[:-1] else "unknown table"
        return f"{head} '{place[-1]}'{did_you_mean(place[-1], known)}"
    if item["type"] in ("missing", "missing_argument", "missing_keyword_only_argument"):
        return f"{_table(place[:-1])} '{place[-1]}' is required"
    text = str(item["msg"])[:1].lower() + str(item["msg"])[1:]
    return f"{_table(place[:-1]) + ' ' if place[:-1] else ''}'{place[-1]}': {text}, got {item['input']!r}"


def _table(place: Sequence[str]) -> str:
    if len(place) > 1 and place[1].isdigit():
        return f"[[{place[0]}]] {int(place[1]) + 1}:"
    return f"[{'.'.join(place)}]"


def _keys_at(place: Sequence[str]) -> frozenset[str]:
    tables = {
        "target": TargetTable, "server": ServerTable, "artifacts": ArtifactsTable, "model": ModelTable,
        "accuracy": AccuracyTable, "audit": AuditTable,
        "benchmark": BenchmarkTable, "roofline": RooflineTable, "ceiling": CeilingTable,
        "inspection": InspectionTable, "resources": ResourcesTable, "baseline": BaselineTable,
    }  # fmt: skip
    table: Any = tables.get(place[0], Tables) if place else Tables
    return frozenset(table.__dataclass_fields__)
