"""Decides how tasks become Ray tasks, which resources they hold, and which deaths are faults.

Two pools. A mutation holds no evaluation resources (an LLM may think for minutes); an evaluation holds the target's
CPUs and GPUs. The two are chained by reference, so a child takes its GPU the moment its tree exists. Nothing is retried
by Ray: the driver decides that, by the kind of death.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import ray
from ray import exceptions as ray_errors

from population.errors import InfrastructureError
from population.evaluation import Rejected, Stage
from vibeserve.cluster.connection import disconnect
from vibeserve.cluster.nodes import Demand, capacity, resources
from vibeserve.executor import ChildTask, Completion, Evaluated, Fault, MeasureTask, Mutated
from vibeserve.workshop import Kit, Workshop

_BOARD_TIMEOUT_S = 0.5
_CAPACITY_TTL_S = 5.0


class _Board:
    """Actor: which stage each key is in; display only, so losing it costs nothing."""

    def __init__(self) -> None:
        self._stages: dict[str, tuple[Stage, float]] = {}

    def enter(self, key: str, stage: Stage) -> None:
        self._stages[key] = (stage, time.monotonic())

    def leave(self, key: str) -> None:
        self._stages.pop(key, None)

    def stages(self) -> dict[str, tuple[Stage, float]]:
        now = time.monotonic()
        return {key: (stage, now - since) for key, (stage, since) in self._stages.items()}


_SHOPS: dict[tuple[str, str], Workshop] = {}
"""This worker's workshop, by run and target: Ray reuses workers."""


def _shop(kit: Kit) -> Workshop:
    key = (kit.run, kit.target_digest)
    if key not in _SHOPS:
        _SHOPS.clear()
        _SHOPS[key] = Workshop(kit)
    return _SHOPS[key]


def _mutate(task: ChildTask, kit: Kit, board: Any) -> Mutated | Rejected | Fault:
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # a task without GPUs sees all of them otherwise
    board.enter.remote(task.proposal.id, Stage.MUTATE)
    return _shop(kit).mutate(task)


def _evaluate(
    measure: MeasureTask, mutated: Mutated | Rejected | Fault | None, kit: Kit, board: Any
) -> Evaluated | Fault | None:
    """None: there is nothing to evaluate, because the mutation failed or arrived at a known tree."""
    if isinstance(mutated, Rejected | Fault):
        return None
    if mutated is not None:
        if mutated.tree in measure.seen_trees:
            return None
        measure = replace(measure, bundle=mutated.bundle, commit=mutated.commit)
    try:
        return _shop(kit).measure(measure, lambda stage: board.enter.remote(measure.key, stage))
    finally:
        board.leave.remote(measure.key)


class RayExecutor:
    """Executor on Ray; `connect` has been called. Completions come in order of completion."""

    def __init__(self, kit: Kit, demand: Demand, evaluate_slots: int | None = None) -> None:
        """`evaluate_slots` limits the evaluations at once; None: as many as the cluster holds.

        Raises:
            InfrastructureError: no node can hold a single evaluation.
        """
        self._demand, self._limit = demand, evaluate_slots
        self._capacity, self._counted_at = capacity(demand), time.monotonic()
        if self._capacity == 0:
            raise InfrastructureError(
                f"expected a node with {demand.cpus} CPUs, {demand.gpus} GPUs and labels {dict(demand.labels)}, but "
                f"the cluster has {resources()}; add such a node, or change [resources] of the target or cluster.labels"
            )
        self._kit = ray.put(kit)
        self._board: Any = ray.remote(num_cpus=0, max_restarts=3)(_Board).remote()
        self._mutate: Any = ray.remote(num_cpus=0, max_retries=0)(_mutate)
        self._evaluate: Any = ray.remote(
            num_cpus=demand.cpus, num_gpus=demand.gpus, max_retries=0, label_selector=dict(demand.labels)
        )(_evaluate)
        self._running: dict[Any, str] = {}

    @property
    def evaluate_slots(self) -> int:
        if time.monotonic() - self._counted_at > _CAPACITY_TTL_S:  # clusters grow and shrink
            self._capacity, self._counted_at = capacity(self._demand), time.monotonic()
        return min(self._capacity, self._limit) if self._limit else self._capacity

    def submit(self, task: ChildTask | MeasureTask) -> None:
        if isinstance(task, MeasureTask):
            self._running[self._evaluate.remote(task, None, self._kit, self._board)] = task.key
            return
        if task.material is None:
            self._running[self._evaluate.remote(task.measure, None, self._kit, self._board)] = task.proposal.id
            return
        mutated = self._mutate.remote(task, self._kit, self._board)
        self._running[mutated] = task.proposal.id
        self._running[self._evaluate.remote(task.measure, mutated, self._kit, self._board)] = task.proposal.id

    def wait(self, timeout_s: float) -> Sequence[Completion]:
        if not self._running:
            return ()
        ready, _ = ray.wait(list(self._running), num_returns=1, timeout=timeout_s)
        if ready:  # drain everything that is ready
            ready, _ = ray.wait(list(self._running), num_returns=len(self._running), timeout=0)
        # Dict order is submission order, so a child's `Mutated` precedes its `Evaluated` even when both are ready.
        finished = set(ready)
        completions = []
        for ref, key in [(ref, key) for ref, key in self._running.items() if ref in finished]:
            if self._running.pop(ref, None) is None:
                continue  # the other half of a child that has just failed
            outcome = _outcome(ref, key)
            if isinstance(outcome, Fault):
                self.cancel(key)  # one fault per task: the half that waits for a lost one fails with it
            if outcome is not None:
                completions.append(Completion(key=key, outcome=outcome))
        return completions

    def cancel(self, key: str) -> None:
        for ref in [ref for ref, owner in self._running.items() if owner == key]:
            del self._running[ref]
            ray.cancel(ref, force=True)  # the server's supervisor sees the worker's end and kills the whole tree

    def stages(self) -> dict[str, tuple[Stage, float]]:
        try:
            stages: dict[str, tuple[Stage, float]] = ray.get(self._board.stages.remote(), timeout=_BOARD_TIMEOUT_S)
        except ray_errors.RayError:
            return {}
        return stages

    def close(self) -> None:
        for key in set(self._running.values()):
            self.cancel(key)
        disconnect()


def _outcome(ref: Any, key: str) -> Mutated | Evaluated | Rejected | Fault | None:
    try:
        outcome: Mutated | Evaluated | Rejected | Fault | None = ray.get(ref)
    except ray_errors.TaskCancelledError:
        return None
    except ray_errors.RayTaskError as error:  # the task function catches its own; this is Ray failing inside it
        return Fault(reason=f"{key}: {error.cause!r}")
    except ray_errors.RayError as error:  # worker, node or object lost, or out of memory
        return Fault(reason=f"{key}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
    return outcome
