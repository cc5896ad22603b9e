"""Decides how many evaluations a run may hold where several share a cluster: higher priority first, equals alike.

Every driver tells a small actor, the registry, what it holds, and computes its own part from what all of them told.
Nothing is preempted: a run that holds more than its part begins nothing until enough has ended. The registry belongs to
whichever driver made it and ends with it; the next one to speak makes another, and a second later all are known again.
What a driver does not renew is forgotten, so that a dead one leaves nothing behind.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import ray
from ray import exceptions as ray_errors

from vibeserve.cluster.selectors import Demand, Node, held, matches

_REGISTRY = "vibeserve-shares-1"
_NAMESPACE = "vibeserve"
_FORGET_S = 10.0
_TURN_S = 60.0
"""How long one of several equal runs has the slots that cannot be divided."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What one run says of itself."""

    run: str
    """Unique among drivers."""
    priority: int
    demand: Demand
    holds: int
    """Evaluations that it has given to Ray, running or about to."""


def part(nodes: Sequence[Node], usable: Set[str], claims: Sequence[Claim], run: str, turn: int = 0) -> int:
    """Evaluations that `run` may hold on the `usable` ones of the cluster's nodes.

    What runs of higher priority hold is theirs. Of what is left, equals get the same number each, and what one of them
    does not use goes to the others; lower ones are not seen. A remainder goes round by `turn`.
    """
    mine = next(claim for claim in claims if claim.run == run)
    free = {node.id: (node.cpus, node.gpus) for node in nodes}
    for claim in claims:
        if claim.priority > mine.priority:
            _occupy(free, sorted(nodes, key=lambda node: node.id in usable), claim)
    own = [node for node in nodes if node.id in usable]
    left = sum(held(*free[node.id], mine.demand) for node in own)
    others = {c.run: c.holds for c in claims if c.priority == mine.priority and c.run != run and _meets(own, c)}
    return _even(left, run, others, turn)


def _even(left: int, mine: str, others: Mapping[str, int], turn: int) -> int:
    """Max-min fair: others that hold less than an even part keep just that, `mine` and the rest divide what is left."""
    hungry = dict(others)
    while modest := {run: holds for run, holds in hungry.items() if holds < left // (len(hungry) + 1)}:
        left -= sum(modest.values())
        hungry = {run: holds for run, holds in hungry.items() if run not in modest}
    share, over = divmod(left, len(hungry) + 1)
    place = sorted([mine, *hungry]).index(mine)
    return share + ((place - turn) % (len(hungry) + 1) < over)


def _meets(nodes: Sequence[Node], claim: Claim) -> bool:
    """Whether the run could measure on one of these nodes."""
    return any(matches(node, claim.demand) for node in nodes)


def _occupy(free: dict[str, tuple[float, float]], nodes: Sequence[Node], claim: Claim) -> None:
    """Take what the run holds out of what is free, from the first nodes first.

    Nobody knows which nodes Ray chose. Those that I cannot use come first: a wrong guess then queues one task of mine
    behind another's, where the opposite guess would leave slots empty.
    """
    remaining = claim.holds
    for node in nodes:
        if matches(node, claim.demand):
            cpus, gpus = free[node.id]
            taken = min(remaining, held(cpus, gpus, claim.demand))
            free[node.id] = (cpus - taken * claim.demand.cpus, gpus - taken * claim.demand.gpus)
            remaining -= taken


class _Registry:
    """Actor: what each driver said last."""

    def __init__(self) -> None:
        self._claims: dict[str, tuple[Claim, float]] = {}

    def tell(self, claim: Claim) -> tuple[list[Claim], int]:
        """What all living drivers said, this one included; and whose turn it is."""
        now = time.monotonic()
        self._claims[claim.run] = (claim, now)
        self._claims = {run: said for run, said in self._claims.items() if now - said[1] < _FORGET_S}
        return [claim for claim, _ in self._claims.values()], int(now // _TURN_S)

    def leave(self, run: str) -> None:
        self._claims.pop(run, None)


class Sharing:
    """One driver's side of the registry; never waits for it."""

    def __init__(self) -> None:
        self._registry: Any = None
        self._asked: Any = None
        self._heard: tuple[Sequence[Claim], int] = ((), 0)

    def exchange(self, claim: Claim) -> tuple[list[Claim], int]:
        """Say what this run holds, and hear what all said when it was asked before; alone until the first answer."""
        if self._asked is not None and ray.wait([self._asked], timeout=0)[0]:
            try:
                self._heard = ray.get(self._asked)
            except ray_errors.RayError:  # its maker has gone, and the registry with it
                self._registry = None
            self._asked = None
        if self._asked is None:
            self._asked = self._open().tell.remote(claim)
        claims, turn = self._heard
        return [*(said for said in claims if said.run != claim.run), claim], turn

    def leave(self, run: str) -> None:
        """The run's part goes to the others at once."""
        if self._registry is not None:
            self._registry.leave.remote(run)

    def _open(self) -> Any:
        if self._registry is None:
            options = {"name": _REGISTRY, "namespace": _NAMESPACE, "get_if_exists": True, "num_cpus": 0}
            self._registry = ray.remote(_Registry).options(**options).remote()
        return self._registry
