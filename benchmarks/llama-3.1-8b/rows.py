"""Decides what a row of the comparison is, how our client asks for it, and which answers are audited."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from contestants import TARGET

from evaluators.load.endpoint import Endpoint
from evaluators.load.record import Response
from evaluators.load.session import ClientOptions, LoadSession
from evaluators.load.workload import Load

Json = dict[str, Any]
MODEL = "llama-3.1-8b"
PROMPT_IDS = (96, 127999)
METRICS = (
    "output_throughput", "median_ttft_ms", "p99_ttft_ms", "median_tpot_ms", "p99_tpot_ms", "completed", "failed",
    "duration",
)  # fmt: skip
OUR_CLIENT, VLLM_CLIENT = "vibeserve", "vllm bench serve"
FEWEST = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table: lengths and an offered rate."""

    name: str
    input_tokens: int
    output_tokens: int
    rate_per_s: float
    tolerates_queue: bool = False
    """Whether more is offered than can be served: then throughput counts, and latencies mean little."""

    def requests(self, seconds: float) -> int:
        """So many make a run of about so many seconds."""
        return max(FEWEST, round(self.rate_per_s * seconds))


ROWS = (
    Row(name="64x128r8", input_tokens=64, output_tokens=128, rate_per_s=8),
    Row(name="64x128r32", input_tokens=64, output_tokens=128, rate_per_s=32),
    Row(name="64x128r64", input_tokens=64, output_tokens=128, rate_per_s=64),
    Row(name="64x128r128", input_tokens=64, output_tokens=128, rate_per_s=128),
    Row(name="1024x128r4", input_tokens=1024, output_tokens=128, rate_per_s=4),
    Row(name="1024x128r8", input_tokens=1024, output_tokens=128, rate_per_s=8),
    Row(name="1024x128r16", input_tokens=1024, output_tokens=128, rate_per_s=16),
    Row(name="1024x128r32", input_tokens=1024, output_tokens=128, rate_per_s=32),
    Row(name="max", input_tokens=64, output_tokens=128, rate_per_s=400, tolerates_queue=True),
)


def chosen(names: str | None) -> list[Row]:
    """The rows that are named, with commas; a name that is a prefix takes all that begin with it; None: all.

    Raises:
        ValueError: a name fits no row.
    """
    wanted = [name for name in (names or "").split(",") if name]
    unknown = [name for name in wanted if not any(row.name.startswith(name) for row in ROWS)]
    if unknown:
        raise ValueError(f"expected rows among {', '.join(row.name for row in ROWS)}, got {', '.join(unknown)}")
    exact = {row.name for row in ROWS}
    return [
        r for r in ROWS if not wanted or any(r.name == w or (w not in exact and r.name.startswith(w)) for w in wanted)
    ]


class OurClient:
    """VibeServe's client, the same for every server: ids are counted, texts are not compared."""

    def __init__(self, urls: dict[str, str], cpus: tuple[int, ...], prompt_ids: tuple[int, int] = PROMPT_IDS) -> None:
        self._options = ClientOptions(processes=len(cpus), cpus=cpus)
        self._endpoints = {
            name: Endpoint(url=url, model=MODEL, prompt_ids=prompt_ids, request_timeout_s=120.0)
            for name, url in urls.items()
        }
        self.answers: dict[str, list[Response]] = {name: [] for name in urls}

    def run(self, row: Row, server: str, seed: int, seconds: float) -> Json:
        """One run to completion, with prompts that no other run has."""
        load = Load(
            name=row.name,
            rate_per_s=row.rate_per_s,
            num_requests=row.requests(seconds),
            input_tokens=(row.input_tokens,) * 2,
            output_tokens=(row.output_tokens,) * 2,
        )
        with LoadSession(self._endpoints[server], [load], self._options) as session:
            result = session.run(load, seed, seed)
        self.answers[server] += [r for r in result.responses if r.completed]
        flags = sorted(result.flags | {error.kind for error in result.errors})
        return {name: result.metrics[name] for name in METRICS} | {"flags": flags}


def sample(answers: Sequence[Response], count: int) -> list[Response]:
    """So many answers, from all rows alike."""
    by_row: dict[str, list[Response]] = {}
    for answer in random.SystemRandom().sample(answers, len(answers)):
        by_row.setdefault(answer.load, []).append(answer)
    turns = zip_longest(*by_row.values())
    return [answer for turn in turns for answer in turn if answer is not None][:count]


def write_answers(path: Path, answers: Iterable[Response]) -> int:
    """The audit's input; how many there are."""
    lines = [
        json.dumps({"id": a.id, "load": a.load, "prompt_ids": a.prompt_ids, "output_ids": a.output_ids})
        for a in answers
        if a.output_ids
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return len(lines)


def audit_command(artifacts: Path, responses: Path, output: Path) -> list[str]:
    """The target's own score.py on answers of ours."""
    files = {"--artifacts": artifacts, "--responses": responses, "--output": output}
    options = [text for name, path in files.items() for text in (name, str(path))]
    return [sys.executable, "-I", "-B", str(TARGET / "reference" / "score.py"), *options]
