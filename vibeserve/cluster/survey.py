"""Decides what is known of each node's hardware: asked once per node, without waiting for those that join later."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any

import ray

from population.errors import InfrastructureError
from vibeserve.cluster.nodes import answer, ask
from vibeserve.cluster.selectors import Node
from vibeserve.same_hardware import Fingerprint


class Survey:
    """The questions to the nodes that are under way, and whom they went to."""

    def __init__(self, identify: Callable[[], Fingerprint]) -> None:
        self._identify = identify
        self._known: set[str] = set()
        self._asked: dict[str, Any] = {}

    def ask_all(self, nodes: Collection[Node]) -> dict[str, Fingerprint]:
        """Node id → what it says; waits for all of them.

        Raises:
            InfrastructureError: a node did not answer.
        """
        asked = [(node, ask(node, self._identify)) for node in nodes]
        self._known |= {node.id for node in nodes}
        return {node.id: answer(node, reference) for node, reference in asked}

    def news(self, nodes: Collection[Node]) -> Iterator[tuple[Node, Fingerprint]]:
        """Begin to ask those that are new; what has been answered since. One that fails to answer is asked again."""
        for node in nodes:
            if node.id in self._known:
                continue
            if node.id not in self._asked:
                self._asked[node.id] = ask(node, self._identify)
        for node in [node for node in nodes if node.id in self._asked]:
            if not ray.wait([self._asked[node.id]], timeout=0)[0]:
                continue
            reference = self._asked.pop(node.id)
            try:
                said = answer(node, reference)
            except InfrastructureError:
                continue
            self._known.add(node.id)
            yield node, said
