"""Decides what a Ray worker does with a task: fetch what its machine lacks, carry the task out, say where it was."""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray import exceptions as ray_errors

from population.evaluation import Rejected, Stage
from vibeserve.cluster.parcels import Parcel
from vibeserve.executor import Delta, Evaluated, Fault, MeasureTask, Mutated, MutateTask
from vibeserve.workshop import Workshop

_FETCH_S = 120.0
"""How long a worker waits for an object that is on its way."""
_SHOWN = 4096
_WARM_S, _POLL_S = 60.0, 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What became of a task, and on which node (Ray's id)."""

    outcome: Mutated | Evaluated | Rejected | Fault
    node: str
    lost: tuple[str, ...] | None = None
    """Commits whose deltas, or the kit, could not be fetched."""


class Board:
    """Actor: which stage each evaluation is in, and on which node; losing it costs a display, and some patience."""

    def __init__(self) -> None:
        self._stages: OrderedDict[str, tuple[Stage, float]] = OrderedDict()
        self._places: dict[str, tuple[str, str]] = {}
        self._warm: set[int] = set()

    def warmed(self, process: int) -> int:
        """How many workers are warm, that one included."""
        self._warm.add(process)
        return len(self._warm)

    def enter(self, key: str, stage: Stage, place: tuple[str, str]) -> None:
        """`place`: Ray's ids of the node and of the task, which is another one when the key is submitted again."""
        self._stages[key], self._places[key] = (stage, time.monotonic()), place
        self._stages.move_to_end(key)
        if len(self._stages) > _SHOWN:
            oldest, _ = self._stages.popitem(last=False)
            del self._places[oldest]

    def on(self, nodes: frozenset[str]) -> tuple[str, ...]:
        """Ids of the tasks that were last heard of on these nodes."""
        return tuple(task for node, task in self._places.values() if node in nodes)

    def stages(self) -> dict[str, tuple[Stage, float]]:
        now = time.monotonic()
        return {key: (stage, now - since) for key, (stage, since) in self._stages.items()}


_SHOPS: dict[tuple[str, str], Workshop] = {}
"""This worker's workshop, by run and target: Ray reuses workers."""


def warm(parcel: Parcel, board: Any, workers: int) -> None:
    """Unpack the kit, and hold this worker until the others are as far, so that each task warms one of its own."""
    _shop(parcel)
    deadline_s = time.monotonic() + _WARM_S
    while ray.get(board.warmed.remote(os.getpid())) < workers and time.monotonic() < deadline_s:
        time.sleep(_POLL_S)


def mutate(task: MutateTask, parcel: Parcel) -> Reply:
    """The first half of a child, on this worker."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # a task without GPUs sees all of them otherwise
    try:
        shop = _shop(parcel)
        chain = _fetch(shop, parcel)
    except _LOST as error:
        return _lost(task.key, parcel, error)
    return _reply(shop.mutate(replace(task, chain=chain)))


def evaluate(task: MeasureTask, parcel: Parcel, board: Any) -> Reply:
    """A measurement, on this worker and under its resources."""
    place = (_node(), str(ray.get_runtime_context().get_task_id()))
    board.enter.remote(task.key, Stage.STATIC, place)
    try:
        shop = _shop(parcel)
        chain = _fetch(shop, parcel)
    except _LOST as error:
        return _lost(task.key, parcel, error)
    return _reply(shop.measure(replace(task, chain=chain), lambda stage: board.enter.remote(task.key, stage, place)))


_LOST = (ray_errors.ObjectLostError, ray_errors.GetTimeoutError)


def _shop(parcel: Parcel) -> Workshop:
    if parcel.shop not in _SHOPS:
        kit = ray.get(parcel.kit, timeout=_FETCH_S)
        _SHOPS.clear()
        _SHOPS[parcel.shop] = Workshop(kit)
    return _SHOPS[parcel.shop]


def _fetch(shop: Workshop, parcel: Parcel) -> tuple[Delta, ...]:
    """The deltas that this machine lacks, in their order."""
    lacking = shop.lacks(parcel.commits)
    if not lacking:
        return ()
    refs = dict(zip(parcel.commits, parcel.deltas, strict=True))
    data = ray.get([refs[commit] for commit in lacking], timeout=_FETCH_S)
    return tuple(Delta(commit=commit, data=found) for commit, found in zip(lacking, data, strict=True))


def _lost(key: str, parcel: Parcel, error: Exception) -> Reply:
    fault = Fault(reason=f"{key}: an object that it needs was lost on its way: {type(error).__name__}")
    return Reply(outcome=fault, node=_node(), lost=parcel.commits)


def _reply(outcome: Mutated | Evaluated | Rejected | Fault) -> Reply:
    return Reply(outcome=outcome, node=_node())


def _node() -> str:
    return str(ray.get_runtime_context().get_node_id())
