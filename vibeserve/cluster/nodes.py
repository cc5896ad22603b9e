"""Decides which nodes of the connected cluster may hold an evaluation, and asks them about themselves."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import ray
from ray import exceptions as ray_errors

from population.errors import InfrastructureError

_NODE_LABEL = "ray.io/node-id"
_NODE_TIMEOUT_S = 60.0

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What one evaluation holds, and where it may run."""

    cpus: int
    gpus: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    """Ray node labels that must match."""


def resources() -> dict[str, float]:
    """What the connected cluster has in total: CPU, GPU, memory (bytes) and custom resources."""
    total: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return total


def capacity(demand: Demand) -> int:
    """Evaluations that fit on the connected cluster at once, summed over nodes that match the labels."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return sum(_fits(node, demand) for node in nodes)


def on_nodes(demand: Demand, look: Callable[[], Answer], timeout_s: float = _NODE_TIMEOUT_S) -> list[Answer]:
    """What `look` says on each node that matches the demand's labels and could hold it.

    Raises:
        InfrastructureError: a node did not answer.
    """
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    chosen = [node["NodeID"] for node in nodes if _fits(node, demand)]
    task: Any = ray.remote(num_cpus=0, max_retries=0)(_ask)
    asked = [task.options(label_selector={_NODE_LABEL: node}).remote(look) for node in chosen]
    try:
        answers: list[Answer] = ray.get(asked, timeout=timeout_s)
    except ray_errors.RayError as error:
        raise InfrastructureError(f"a node of the cluster does not answer: {str(error).strip()}") from error
    return answers


def _ask(look: Callable[[], Answer]) -> Answer:
    return look()


def pinned(demand: Demand) -> Demand:
    """The same demand on one node alone, so that what is compared is measured on one machine."""
    for node in ray.nodes():  # type: ignore[no-untyped-call]
        if _fits(node, demand):
            return replace(demand, labels={**demand.labels, _NODE_LABEL: node["NodeID"]})
    return demand


def _fits(node: Mapping[str, Any], demand: Demand) -> int:
    if not node["Alive"] or any(node.get("Labels", {}).get(k) != v for k, v in demand.labels.items()):
        return 0
    has = node["Resources"]
    by_cpu = int(has.get("CPU", 0) // demand.cpus) if demand.cpus else sys.maxsize
    by_gpu = int(has.get("GPU", 0) // demand.gpus) if demand.gpus else sys.maxsize
    return min(by_cpu, by_gpu)
