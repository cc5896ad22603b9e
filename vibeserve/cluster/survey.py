"""Decides what is known of each node's hardware: asked once per node, without waiting for those that join later."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any

import ray

from population.errors import InfrastructureError
from vibeserve.cluster.nodes import answer, ask
from vibeserve.cluster.selectors import Node
from vibeserve.same_hardware import Fingerprint

_PATIENCE_S = 60.0


class Survey:
    """The questions to the nodes that are under way, and whom they went to."""

    def __init__(self, identify: Callable[[], Fingerprint]) -> None:
        self._identify = identify
        self._known: set[str] = set()
        self._asked: dict[str, Any] = {}

    def ask_all(self, nodes: Collection[Node]) -> dict[str, Fingerprint]:
        """Node id → what it says, once all have answered or had their time; the others may answer later.

        Raises:
            InfrastructureError: none answered.
        """
        self._asked |= {node.id: ask(node, self._identify) for node in nodes}
        asked = list(self._asked.values())
        ready, _ = ray.wait(asked, num_returns=len(asked), timeout=_PATIENCE_S)
        said = {node.id: found for node, found in self._take(nodes, ready)}
        if not said:
            names = ", ".join(node.name for node in nodes)
            raise InfrastructureError(
                f"expected an answer from {names} within {_PATIENCE_S:.0f} s, got none; see `ray status`, and "
                "`vibeserve doctor --cluster` for each node"
            )
        return said

    def news(self, nodes: Collection[Node]) -> Iterator[tuple[Node, Fingerprint]]:
        """Begin to ask those that are new; what has been answered since. One that fails to answer is asked again."""
        for node in nodes:
            if node.id in self._known:
                continue
            if node.id not in self._asked:
                self._asked[node.id] = ask(node, self._identify)
        asked = [self._asked[node.id] for node in nodes if node.id in self._asked]
        ready = ray.wait(asked, num_returns=len(asked), timeout=0)[0] if asked else []
        yield from self._take(nodes, ready)

    def _take(self, nodes: Collection[Node], ready: Collection[Any]) -> Iterator[tuple[Node, Fingerprint]]:
        """The answers that are there."""
        for node in [node for node in nodes if self._asked.get(node.id) in ready]:
            reference = self._asked.pop(node.id)
            try:
                said = answer(node, reference)
            except InfrastructureError:
                continue
            self._known.add(node.id)
            yield node, said
