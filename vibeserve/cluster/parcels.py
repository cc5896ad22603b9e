"""Decides how kit and deltas reach a worker: put into the object store once, and taken by those who lack them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import ray

from vibeserve.executor import Delta
from vibeserve.workshop import Kit

_KEPT = 8192
"""References that are held; what was not used for so long is put again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """References to what a task may need. Ray hands them over as they are, because they are no arguments themselves."""

    shop: tuple[str, str]
    """Names the kit: a worker that has unpacked it asks for it no more."""
    kit: Any
    commits: tuple[str, ...] = ()
    """Ancestors first."""
    deltas: tuple[Any, ...] = ()


class Parcels:
    """What one driver has put into the object store."""

    def __init__(self, kit: Kit) -> None:
        self._kit = kit
        self._kit_ref: Any = None
        self._refs: OrderedDict[str, Any] = OrderedDict()

    def parcel(self, chain: Sequence[Delta]) -> Parcel:
        """What leads to a task's commits, from wherever the worker is."""
        if self._kit_ref is None:
            self._kit_ref = ray.put(self._kit)
        return Parcel(
            shop=(self._kit.run, self._kit.target_digest),
            kit=self._kit_ref,
            commits=tuple(delta.commit for delta in chain),
            deltas=tuple(self._ref(delta) for delta in chain),
        )

    def lost(self, commits: Collection[str]) -> None:
        """The object store no longer has them, or the kit: they are put again when the next task needs them."""
        self._kit_ref = None
        for commit in commits:
            self._refs.pop(commit, None)

    def _ref(self, delta: Delta) -> Any:
        ref = self._refs.get(delta.commit)
        if ref is None:
            ref = self._refs[delta.commit] = ray.put(delta.data)
            if len(self._refs) > _KEPT:
                self._refs.popitem(last=False)
        else:
            self._refs.move_to_end(delta.commit)
        return ref
