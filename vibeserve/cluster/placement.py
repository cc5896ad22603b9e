"""Decides where a run's evaluations go: on which nodes, how many at once, and which of Ray's options say so.

Only on nodes that match the target's demand, have the run's hardware, stay in the cluster and are not avoided. A
selector names them one by one while they are few: a node that joins is looked at before anything is sent there. Among
many only those that do not take part are named, and a worker refuses what it finds itself unfit for.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

from population.errors import InfrastructureError
from vibeserve.cluster.groups import Groups
from vibeserve.cluster.nodes import roster, selector_of
from vibeserve.cluster.selectors import Demand, Node, fits, shortfall, wording
from vibeserve.cluster.sharing import Claim, Sharing, part
from vibeserve.cluster.survey import Survey
from vibeserve.cluster.terms import Terms
from vibeserve.same_hardware import Fingerprint, Stratum, Surveyed, choose, differences

_LOOK_EVERY_S = 1.0
"""How soon a node that joined, left or drains is known; asking Ray for its nodes takes about a millisecond."""


class Placement:
    """Nodes, slots and options of one run's evaluations. `connect` has been called; used by one thread."""

    def __init__(self, demand: Demand, terms: Terms | None = None) -> None:
        """
        Raises:
            InfrastructureError: no node can hold a single evaluation.
            ConfigError: the nodes that can are of different hardware.
            RunError: none of them is what the run was measured on so far.
        """
        self._demand, self._terms = demand, terms or Terms()
        self._survey = Survey(partial(self._terms.identify, None if demand.gpus else ()))
        self._avoided: frozenset[str] = frozenset()
        self._holding: set[str] = set()
        self._others = False
        self._groups = Groups(demand) if demand.gpus > 1 else None
        self._sharing = Sharing() if self._terms.driver else None
        self._stratum = self._begin()
        self._nodes: list[Node] = []
        self._alive: frozenset[str] = frozenset()
        self._usable: frozenset[str] = frozenset()
        self._selector: dict[str, str] = {}
        self._slots, self._looked_at = 0, float("-inf")
        self._look()

    @property
    def hardware(self) -> Fingerprint | None:
        """What every evaluation of the run must find on its node; None: the user accepts whatever there is."""
        return self._stratum.expected

    @property
    def usable(self) -> frozenset[str]:
        """Ids of the nodes that take evaluations now."""
        return self._usable

    @property
    def queues(self) -> bool:
        """Whether evaluations beyond `slots` may be given to Ray, which lines them up for the next free slot.

        Not where each has a placement group of its own, not while no node would take them, and not beside other runs:
        what waits in Ray's line would come before the work of a higher priority.
        """
        return self._groups is None and bool(self._usable) and not self._others

    @property
    def selector(self) -> Mapping[str, str]:
        """Ray's selector of the nodes that take evaluations now."""
        return self._selector

    def slots(self) -> int:
        """Evaluations at once, as of a second ago at most; 0 while there is no place at all."""
        if time.monotonic() - self._looked_at > _LOOK_EVERY_S:
            self._look()
        return self._slots

    def alive(self) -> frozenset[str]:
        """Ids of the nodes in the cluster, as of a second ago at most."""
        self.slots()
        return self._alive

    def options(self, key: str) -> dict[str, Any]:
        """Ray's options for the evaluation `key`, which holds its place until `release`."""
        self._holding.add(key)
        options: dict[str, Any] = {"num_cpus": self._demand.cpus, "num_gpus": self._demand.gpus, "max_retries": 0}
        if self._groups is not None:
            nodes = self._usable or self._stratum.members
            return options | {"scheduling_strategy": self._groups.strategy(key, nodes, self._selector)}
        return options | {"label_selector": self._selector}

    def release(self, key: str) -> None:
        """The evaluation ended, was cancelled or was lost; idempotent."""
        self._holding.discard(key)
        if self._groups is not None:
            self._groups.release(key)

    def avoid(self, nodes: Collection[str]) -> bool:
        """Give these nodes (ids) no more work, nor count them; False, without effect, if no other would be left."""
        if self._usable <= frozenset(nodes):
            return False
        self._avoided = frozenset(nodes)
        self._look()
        return True

    def close(self) -> None:
        """Leave the others what this run had; idempotent."""
        if self._groups is not None:
            self._groups.close()
        if self._sharing is not None and self._terms.driver:
            self._sharing.leave(self._terms.driver)

    def _begin(self) -> Stratum:
        fitting = self._await_nodes()
        said = self._survey.ask_all(fitting)
        pool = [
            Surveyed(id=node.id, name=node.name, slots=fits(node, self._demand), fingerprint=said[node.id])
            for node in fitting
            if node.id in said
        ]
        for node in fitting:
            if node.id not in said:
                self._terms.say(f"{node.name} does not answer, and is not used until it does")
        stratum = choose(pool, self._terms.before, self._terms.mixed)
        for note in stratum.notes:
            self._terms.say(note)
        if self._terms.alone:
            first = next(node.id for node in fitting if node.id in stratum.members)
            return Stratum(expected=stratum.expected, members=frozenset({first}))
        return stratum

    def _await_nodes(self) -> list[Node]:
        """The nodes that fit, as soon as there is one."""
        deadline_s = time.monotonic() + self._terms.nodes_timeout_s
        waiting = False
        while True:
            nodes = roster()
            fitting = [node for node in nodes if not node.draining and fits(node, self._demand)]
            if fitting:
                return fitting
            if time.monotonic() >= deadline_s:
                raise InfrastructureError(shortfall(nodes, self._demand))
            if not waiting:
                self._terms.say(f"no node fits yet, waiting for one with {wording(self._demand)}")
            waiting = True
            time.sleep(_LOOK_EVERY_S)

    def _look(self) -> None:
        """Ask Ray what there is now; a node that is new is asked for its hardware, and used once it has answered."""
        self._looked_at = time.monotonic()
        nodes = roster()
        self._alive = frozenset(node.id for node in nodes)
        self._nodes = [node for node in nodes if not node.draining]
        fitting = [node for node in self._nodes if fits(node, self._demand)]
        if not self._terms.alone:
            self._admit(fitting)
        usable = [node for node in fitting if node.id in self._stratum.members]
        self._usable = frozenset(node.id for node in usable) - self._avoided or frozenset(node.id for node in usable)
        self._selector = self._select(nodes)
        self._slots = self._count([node for node in usable if node.id in self._usable])
        if self._groups is not None:
            self._groups.keep(self._usable, self._slots)

    def _admit(self, fitting: Collection[Node]) -> None:
        for node, said in self._survey.news(fitting):
            if self._stratum.admits(said):
                members = self._stratum.members | {node.id}
                self._stratum = Stratum(expected=self._stratum.expected, members=members)
            else:
                differs = ", ".join(differences(self._stratum.expected or {}, said))
                self._terms.say(f"not used, because its hardware differs: {node.name} has {differs}")

    def _select(self, nodes: Collection[Node]) -> dict[str, str]:
        """Ray's selector of the usable nodes among all; without any, the task fails at once or waits where the last
        ones were: either way it is retried."""
        others = {node.id for node in nodes if fits(node, self._demand)} - self._usable
        return {**self._demand.labels, **selector_of(self._usable or self._stratum.members, others)}

    def _count(self, nodes: Collection[Node]) -> int:
        slots = sum(fits(node, self._demand) for node in nodes)
        if self._sharing is not None and self._terms.driver:
            claim = Claim(
                run=self._terms.driver, priority=self._terms.priority, demand=self._demand, holds=len(self._holding)
            )
            claims, turn = self._sharing.exchange(claim)
            self._others = len(claims) > 1
            slots = min(slots, part(self._nodes, self._usable, claims, claim.run, turn))
        if self._terms.alone:
            return min(slots, 1)
        return min(slots, self._terms.limit) if self._terms.limit else slots
