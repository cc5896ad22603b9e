"""Decides which placement group an evaluation on several GPUs runs in: one per slot, made once and used again.

A group keeps a node's GPUs together while no evaluation runs, so that one-GPU tasks of others cannot nibble at them and
leave several GPUs free that are never free at once. To make one costs 0.1 s, and it stays until it is removed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from vibeserve.cluster.selectors import Demand

_READY_S = 5
"""A group takes 0.1 s where its GPUs are free, and others may hold them for as long as they like."""


@dataclass(slots=True, kw_only=True)
class _Group:
    """One slot's reservation."""

    handle: PlacementGroup
    made_for: frozenset[str]
    """Nodes that it may be on."""
    key: str | None = None
    """The evaluation inside; None: free."""
    retired: bool = False
    """It takes nothing more, and is removed when it is empty: its node leaves, or there are too many groups."""


class Groups:
    """The placement groups of one run."""

    def __init__(self, demand: Demand) -> None:
        self._demand = demand
        self._groups: list[_Group] = []

    def strategy(
        self, key: str, nodes: Collection[str], selector: Mapping[str, str]
    ) -> PlacementGroupSchedulingStrategy:
        """The group for this evaluation: a free one, or a new one on one of these nodes (ids, as `selector` says)."""
        free = [group for group in self._groups if group.key is None and not group.retired]
        group = min(free, key=lambda each: not each.handle.wait(0), default=None)
        if group is None:
            group = self._make(frozenset(nodes), selector)
        group.key = key
        return PlacementGroupSchedulingStrategy(placement_group=group.handle, placement_group_bundle_index=0)

    def release(self, key: str) -> None:
        """The evaluation is over; unknown keys are ignored."""
        for group in [group for group in self._groups if group.key == key]:
            group.key = None
            if group.retired:
                self._remove(group)

    def keep(self, nodes: frozenset[str], slots: int) -> None:
        """Only groups on these nodes go on, and no more than `slots` of them."""
        places: dict[str, Any] = placement_group_table() if self._groups else {}
        going_on = 0
        for group in sorted(self._groups, key=lambda each: each.key is None):
            on = {node for node in places.get(group.handle.id.hex(), {}).get("bundles_to_node_id", {}).values() if node}
            # One without a place waits for the nodes it was made for, even if another one is free by now.
            stays = on.issubset(nodes) if on else group.made_for == nodes
            going_on += stays
            group.retired = not stays or going_on > slots
            if group.retired and group.key is None:
                self._remove(group)

    def close(self) -> None:
        """Free everything; idempotent."""
        for group in list(self._groups):
            self._remove(group)

    def _make(self, nodes: frozenset[str], selector: Mapping[str, str]) -> _Group:
        bundle = {"CPU": float(self._demand.cpus), "GPU": float(self._demand.gpus)}
        handle = placement_group([bundle], strategy="STRICT_PACK", bundle_label_selector=[dict(selector)])
        group = _Group(handle=handle, made_for=nodes)
        self._groups.append(group)
        # What is given to a group that is not there yet would wait for ever if the node left meanwhile.
        handle.wait(_READY_S)
        return group

    def _remove(self, group: _Group) -> None:
        self._groups.remove(group)
        remove_placement_group(group.handle)
