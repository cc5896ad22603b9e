"""Decides how jobs and results look as JSON between this process and client processes; each pair is inverse."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from evaluators.load.endpoint import Endpoint
from evaluators.load.generator import Job, ShareResult
from evaluators.load.record import Request, Response
from evaluators.load.workload import Load, Slo


def job_to_json(job: Job) -> dict[str, Any]:
    """Plain values."""
    return asdict(job)


def job_from_json(raw: dict[str, Any]) -> Job:
    """The job that `job_to_json` wrote."""
    table = dict(raw["load"])
    for key in ("input_tokens", "output_tokens"):
        table[key] = tuple(table[key])
    table["slo"] = None if table["slo"] is None else Slo(**table["slo"])
    requests = tuple(Request(**{**entry, "stop": tuple(entry["stop"])}) for entry in raw["requests"])
    return Job(**{**raw, "load": Load(**table), "share": tuple(raw["share"]), "requests": requests})


def endpoint_to_json(endpoint: Endpoint) -> dict[str, Any]:
    """Plain values."""
    return asdict(endpoint)


def endpoint_from_json(raw: dict[str, Any]) -> Endpoint:
    """The endpoint that `endpoint_to_json` wrote."""
    headers = tuple((name, value) for name, value in raw["headers"])
    low, high = raw["prompt_ids"]
    return replace(Endpoint(**raw), prompt_ids=(low, high), vocab=tuple(raw["vocab"]), headers=headers)


def share_to_json(result: ShareResult) -> dict[str, Any]:
    """Plain values."""
    return {
        "wall_s": result.wall_s,
        "cpu_s": result.cpu_s,
        "send_lag_s": result.send_lag_s,
        "responses": [response.to_json() for response in result.responses],
    }


def share_from_json(raw: dict[str, Any]) -> ShareResult:
    """The result that `share_to_json` wrote."""
    return ShareResult(**{**raw, "responses": [Response.from_json(entry) for entry in raw["responses"]]})
