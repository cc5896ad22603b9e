"""Decides what a Ray worker does with a task: fetch what its machine lacks, carry the task out, say where it was."""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import ray
from ray import exceptions as ray_errors

from population.evaluation import Stage
from vibeserve.cluster.board import Reporter
from vibeserve.cluster.parcels import KIT, Parcel, opened
from vibeserve.executor import Delta, Fault, Outcome
from vibeserve.workshop import Workshop

_FETCH_S = 120.0
"""How long a worker waits for an object that is on its way."""
_WARM_S, _POLL_S = 60.0, 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What became of a task, and on which node (Ray's id)."""

    outcome: Outcome
    node: str
    lost: tuple[str, ...] | None = None
    """Commits whose deltas, or the kit, could not be fetched."""
    unsent: bool = False
    """They were thought to be on every node: nothing is wrong, and the task is to come again with all of them."""


_SHOPS: dict[tuple[str, str], Workshop] = {}
"""This worker's workshop, by run and target: Ray reuses workers."""


_REPORTERS: dict[bytes, Reporter] = {}


class _UnsentError(Exception):
    """The kit or a delta that is neither here nor named."""


def warm(parcel: Parcel, workers: int) -> None:
    """Unpack the kit, and hold this worker until the others are as far, so that each task warms one of its own."""
    _shop(parcel)
    board, deadline_s = pickle.loads(parcel.board), time.monotonic() + _WARM_S
    while ray.get(board.warmed.remote(os.getpid())) < workers and time.monotonic() < deadline_s:
        time.sleep(_POLL_S)


def mutate(letter: bytes, deltas: Mapping[str, Any]) -> bytes:
    """The first half of a child, on this worker; `Parcel.addressed` in, a pickled `Reply` out."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # a task without GPUs sees all of them otherwise
    task, parcel = opened(letter, deltas)
    return pickle.dumps(_carry_out(task.key, parcel, lambda shop, chain: shop.mutate(replace(task, chain=chain))))


def evaluate(letter: bytes, deltas: Mapping[str, Any]) -> bytes:
    """A measurement, on this worker and under its resources; as `mutate`."""
    task, parcel = opened(letter, deltas)
    place = (_node(), str(ray.get_runtime_context().get_task_id()))
    reporter = _reporter(parcel)
    reporter.enter(task.key, Stage.STATIC, place)
    try:
        reply = _carry_out(
            task.key,
            parcel,
            lambda shop, chain: shop.measure(
                replace(task, chain=chain), lambda stage: reporter.enter(task.key, stage, place)
            ),
        )
    finally:
        reporter.leave()
    return pickle.dumps(reply)


_LOST = (ray_errors.ObjectLostError, ray_errors.GetTimeoutError)


def _carry_out(key: str, parcel: Parcel, work: Callable[[Workshop, tuple[Delta, ...]], Outcome]) -> Reply:
    try:
        shop = _shop(parcel)
        chain = _fetch(shop, parcel)
    except (*_LOST, _UnsentError) as error:
        fault = Fault(reason=f"{key}: an object that it needs was lost on its way: {type(error).__name__}")
        unsent = isinstance(error, _UnsentError)
        return Reply(outcome=fault, node=_node(), lost=parcel.commits, unsent=unsent)
    return Reply(outcome=work(shop, chain), node=_node())


def _shop(parcel: Parcel) -> Workshop:
    if parcel.shop not in _SHOPS:
        if KIT not in parcel.deltas:
            raise _UnsentError
        kit = ray.get(parcel.deltas[KIT], timeout=_FETCH_S)
        _SHOPS.clear()
        _SHOPS[parcel.shop] = Workshop(kit)
    return _SHOPS[parcel.shop]


def _reporter(parcel: Parcel) -> Reporter:
    if parcel.board not in _REPORTERS:
        _REPORTERS[parcel.board] = Reporter(pickle.loads(parcel.board))
    return _REPORTERS[parcel.board]


def _fetch(shop: Workshop, parcel: Parcel) -> tuple[Delta, ...]:
    """The deltas that this machine lacks, in their order."""
    lacking = shop.lacks(parcel.commits)
    if not lacking:
        return ()
    if not all(commit in parcel.deltas for commit in lacking):
        raise _UnsentError
    data = ray.get([parcel.deltas[commit] for commit in lacking], timeout=_FETCH_S)
    return tuple(Delta(commit=commit, data=found) for commit, found in zip(lacking, data, strict=True))


@lru_cache(maxsize=1)
def _node() -> str:
    return str(ray.get_runtime_context().get_node_id())
