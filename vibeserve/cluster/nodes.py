"""Decides which nodes the connected cluster has, and asks them about themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Container
from typing import Any, TypeVar

import ray
from ray import exceptions as ray_errors
from ray._private.state import state as cluster_state

from population.errors import InfrastructureError
from vibeserve.cluster.selectors import Demand, Node, fits

NODE_LABEL = "ray.io/node-id"
_NODE_TIMEOUT_S = 60.0
_NAMED = 16
"""So many nodes are named one by one. A thousand names would be 56 kB in every task."""

Answer = TypeVar("Answer")


def roster() -> list[Node]:
    """The nodes that are alive, the head first, in Ray's order."""
    draining = cluster_state.get_draining_nodes()
    rows = [row for row in ray.nodes() if row["Alive"]]  # type: ignore[no-untyped-call]
    hosts = Counter(row["NodeManagerHostname"] for row in rows)
    nodes = [_node(row, draining, alone=hosts[row["NodeManagerHostname"]] == 1) for row in rows]
    return sorted(nodes, key=lambda node: not node.is_head)


def _node(row: dict[str, Any], draining: Container[str], alone: bool) -> Node:
    """`alone`: no other node has its host name."""
    has, host = row["Resources"], row["NodeManagerHostname"]
    return Node(
        id=row["NodeID"],
        name=host if alone else f"{host}#{row['NodeID'][:6]}",
        cpus=has.get("CPU", 0.0),
        gpus=has.get("GPU", 0.0),
        memory_bytes=has.get("memory", 0.0),
        labels=row.get("Labels", {}),
        resources=has,
        draining=row["NodeID"] in draining,
    )


def selector_of(nodes: Collection[str], others: Collection[str] = ()) -> dict[str, str]:
    """Ray's label selector that means these nodes (ids, at least one) and none of the others that a demand matches.

    Where there are many it only excludes the others, so it means a node that joins later, too: what goes there before
    anybody has looked at it must find out for itself whether it may. A malformed id would abort the driver.
    """
    if len(nodes) <= _NAMED or len(others) > len(nodes):
        return {NODE_LABEL: f"in({','.join(sorted(nodes))})"}
    return {NODE_LABEL: f"!in({','.join(sorted(others))})"} if others else {}


def capacity(demand: Demand) -> int:
    """Evaluations that fit on the connected cluster at once, summed over nodes that match and stay."""
    return sum(fits(node, demand) for node in roster() if not node.draining)


def on_nodes(demand: Demand, look: Callable[[], Answer], timeout_s: float = _NODE_TIMEOUT_S) -> list[Answer]:
    """What `look` says on each node that matches the demand's labels and could hold it.

    Raises:
        InfrastructureError: a node did not answer.
    """
    asked = [(node, ask(node, look)) for node in roster() if not node.draining and fits(node, demand)]
    return [answer(node, reference, timeout_s) for node, reference in asked]


def ask(node: Node, look: Callable[[], Answer]) -> Any:
    """Begin to ask a node; the reference of its answer."""
    task: Any = ray.remote(num_cpus=0, max_retries=0)(_ask)
    return task.options(label_selector={NODE_LABEL: node.id}).remote(look)


def answer(node: Node, reference: Any, timeout_s: float = _NODE_TIMEOUT_S) -> Any:
    """What the node said.

    Raises:
        InfrastructureError: it did not answer in time, or the question failed there.
    """
    try:
        return ray.get(reference, timeout=timeout_s)
    except ray_errors.RayError as error:
        said = str(error).strip().splitlines()
        raise InfrastructureError(
            f"node {node.name} does not answer: {type(error).__name__}: {said[-1] if said else ''}; "
            "see `ray status`, and `vibeserve doctor --cluster` for each node"
        ) from error


def _ask(look: Callable[[], Answer]) -> Answer:
    return look()
