"""Decides which tasks have gone astray: Ray keeps them on nodes that have left, or for others than those of now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import ray
from ray import exceptions as ray_errors

from vibeserve.cluster.placement import Placement
from vibeserve.executor import Task

_BOARD_TIMEOUT_S = 0.5


@dataclass(frozen=True, slots=True)
class Flight:
    """One submission: a key that is submitted again is another flight."""

    key: str
    task: Task
    ref: Any
    since_s: float
    selector: Mapping[str, str] | None
    """Of the nodes that may take it; None: a mutation, which any node may take."""

    @property
    def mutation(self) -> bool:
        return self.selector is None

    @property
    def id(self) -> str:
        """Ray's, of this submission."""
        return str(self.ref.task_id().hex())


class Strays:
    """Watches the nodes for one executor. What cannot be told now, because the board is silent, is told later."""

    def __init__(self, board: Any, placement: Placement) -> None:
        self._board, self._placement = board, placement
        self._known, self._gone = placement.alive(), frozenset[str]()
        self._selector = placement.selector
        """No evaluation that waits was submitted for other nodes."""

    def left_behind(self, flights: Iterable[Flight]) -> list[Flight]:
        """Evaluations on nodes that have left: Ray waits for them as long as a connection to the worker stands."""
        alive = self._placement.alive()
        self._gone, self._known = (self._gone | self._known) - alive, alive
        if not self._gone:
            return []
        try:
            there = frozenset(ray.get(self._board.on.remote(self._gone), timeout=_BOARD_TIMEOUT_S))
        except ray_errors.RayError:
            return []
        self._gone = frozenset()
        return [flight for flight in flights if flight.id in there]

    def misplaced(self, flights: Iterable[Flight]) -> list[Flight]:
        """Evaluations that wait, and not for the nodes of now: one that has joined would never take them.

        One that began a moment ago, and has not said so yet, is taken for one that waits.
        """
        selector = self._placement.selector
        if selector == self._selector:
            return []
        moved = [flight for flight in flights if flight.selector not in (None, selector)]
        begun = self._begun(moved)
        if begun is None:
            return []
        self._selector = selector
        return [flight for flight in moved if flight.id not in begun]

    def has_begun(self, flight: Flight) -> bool:
        """Whether a worker has said so; also while nobody can tell."""
        begun = self._begun([flight])
        return begun is None or bool(begun)

    def _begun(self, flights: Iterable[Flight]) -> frozenset[str] | None:
        """Ids of those that have; None: the board is silent."""
        asked = self._board.begun.remote(frozenset(flight.id for flight in flights))
        try:
            return frozenset(ray.get(asked, timeout=_BOARD_TIMEOUT_S))
        except ray_errors.RayError:
            return None
