"""Decides what is kept of one request: what was sent when, which tokens came back when, and what was wrong."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a request counts as failed: a stable word for counting, and what was seen."""

    kind: str
    evidence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One completion to ask for. `scheduled_s` is on the client's monotonic clock."""

    id: str
    """`load/session.turn`; trials of a rate search are called `load~trial`."""
    load: str
    prompt_ids: list[int]
    max_tokens: int
    scheduled_s: float | None = None
    """None: due at once."""
    purpose: str = "timed"
    """timed, warmup, or what a caller mixes in (`evaluators/probes.py`); never visible to the server."""
    ignore_eos: bool = True
    stop: tuple[str, ...] = ()
    seed: int | None = None
    temperature: float = 0.0
    enough_tokens: int | None = None
    """The client hangs up after so many tokens, and the answer counts as cut off; None: it reads to the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """What became of a request. Times in seconds since the load's start, on one monotonic clock."""

    id: str
    load: str
    purpose: str
    prompt_ids: list[int]
    max_tokens: int
    output_ids: list[int] | None
    """None where the server returned no ids."""
    text: str
    scheduled_s: float
    sent_s: float
    first_s: float | None
    """Arrival of the first verified token."""
    last_s: float | None
    """Arrival of the last verified token so far."""
    chunk_s: list[float]
    """Arrival of each chunk that added tokens."""
    chunk_tokens: list[int]
    """Tokens that each of them added."""
    finish_reason: str | None
    counted_by: str = "ids"
    """ids, text (counted with the vocabulary), or usage (the server's word: unverified)."""
    censored: bool = False
    """Cut off, unfinished, by the end of the window at `end_s`."""
    end_s: float
    """When the client stopped looking: done, failed, or cut off."""
    failure: Failure | None = None

    @property
    def tokens(self) -> int:
        """Tokens that arrived."""
        return sum(self.chunk_tokens)

    @property
    def completed(self) -> bool:
        """Answered in full and without a fault."""
        return self.failure is None and not self.censored

    def to_json(self) -> dict[str, Any]:
        """Plain values, one object; `from_json` is the inverse."""
        return asdict(self)

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> Response:
        """The response that `to_json` wrote."""
        failure = raw["failure"]
        return cls(**{**raw, "failure": None if failure is None else Failure(**failure)})


def write_log(path: Path, responses: Iterable[Response]) -> None:
    """Append one JSON line per request to `path`, in order of sending."""
    with path.open("a", encoding="utf-8") as file:
        for response in sorted(responses, key=lambda r: r.sent_s):
            file.write(json.dumps(response.to_json(), allow_nan=False, separators=(",", ":")) + "\n")
