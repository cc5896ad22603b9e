"""Decides how kit and deltas reach a worker: put into the object store once, and named only where they may be needed.

A reference inside a task's arguments costs the worker a call to the driver, whether it is used or not. So the kit and
a delta are named only while some node is not known to have them. They are named as references and not as text, because
Ray tells at once that what a reference names is gone, and lets whoever reads it from text wait.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import ray
from ray import cloudpickle as untyped_cloudpickle

from vibeserve.executor import Delta, Task
from vibeserve.workshop import Kit

cloudpickle: Any = untyped_cloudpickle
KIT = "kit"
"""Its name among the deltas."""
_KEPT = 8192
"""References that are held; what was not used for so long is put again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """What a worker may need for a task, by reference."""

    shop: tuple[str, str]
    """Names the kit: a worker that has unpacked it asks for it no more."""
    board: bytes
    """The actor's handle, pickled."""
    commits: tuple[str, ...] = ()
    """Ancestors first."""
    deltas: Mapping[str, Any] = field(default_factory=dict)
    """Commit → reference, of those that not every node has; and `KIT` → the kit's."""

    def addressed(self, task: Task) -> tuple[bytes, Mapping[str, Any]]:
        """Arguments of the Ray task; `opened` is the inverse."""
        return pickle.dumps((replace(task, chain=()), replace(self, deltas={}))), self.deltas


def opened(letter: bytes, deltas: Mapping[str, Any]) -> tuple[Any, Parcel]:
    """The task and what came with it."""
    task, parcel = pickle.loads(letter)
    return task, replace(parcel, deltas=deltas)


class Parcels:
    """What one driver has put into the object store, and which nodes have it already."""

    def __init__(self, kit: Kit, board: Any) -> None:
        self._kit = kit
        self._board: bytes = cloudpickle.dumps(board)
        self._kit_ref: Any = None
        self._refs: OrderedDict[str, Any] = OrderedDict()
        self._places: dict[str, int] = {}
        """Commit → the nodes that have it, one bit each."""
        self._bits: dict[str, int] = {}
        self._everywhere: tuple[Collection[str], int] = ((), 0)

    def parcel(self, chain: Sequence[Delta], nodes: Collection[str] = ()) -> Parcel:
        """What leads to a task's commits, from whichever of the nodes it will run on; none: from anywhere."""
        everywhere = self._mask(nodes)

        def wanted(name: str) -> bool:
            return not everywhere or bool(everywhere & ~self._places.get(name, 0))

        deltas = {delta.commit: self._ref(delta) for delta in chain if wanted(delta.commit)}
        return Parcel(
            shop=(self._kit.run, self._kit.target_digest),
            board=self._board,
            commits=tuple(delta.commit for delta in chain),
            deltas=deltas | ({KIT: self._kit_reference()} if wanted(KIT) else {}),
        )

    def arrived(self, commits: Collection[str], node: str) -> None:
        """The node has the kit and these commits."""
        bit = self._bits.setdefault(node, 1 << len(self._bits))
        for name in (KIT, *commits):
            self._places[name] = self._places.get(name, 0) | bit

    def forget(self, commits: Collection[str]) -> None:
        """A worker lacks the kit or some of these: they are named again until every node is known to have them."""
        for name in (KIT, *commits):
            self._places.pop(name, None)

    def lost(self, commits: Collection[str]) -> None:
        """The object store no longer has these or the kit: they are put again at the next need."""
        self.forget(commits)
        self._kit_ref = None
        for commit in commits:
            self._refs.pop(commit, None)

    def _mask(self, nodes: Collection[str]) -> int:
        if nodes is not self._everywhere[0]:
            bits = [self._bits.setdefault(node, 1 << len(self._bits)) for node in nodes]
            self._everywhere = (nodes, sum(bits))
        return self._everywhere[1]

    def _kit_reference(self) -> Any:
        if self._kit_ref is None:
            self._kit_ref = ray.put(self._kit)
        return self._kit_ref

    def _ref(self, delta: Delta) -> Any:
        ref = self._refs.get(delta.commit)
        if ref is None:
            ref = self._refs[delta.commit] = ray.put(delta.data)
            if len(self._refs) > _KEPT:
                self._refs.popitem(last=False)
        else:
            self._refs.move_to_end(delta.commit)
        return ref
