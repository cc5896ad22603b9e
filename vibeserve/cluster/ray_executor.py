"""Decides how tasks become Ray tasks, which resources they hold, and which deaths are faults.

Two pools. A mutation holds no evaluation resources (an LLM may think for minutes); an evaluation holds what
`vibeserve.cluster.placement` says. Nothing is retried by Ray: the driver decides that, by the kind of death.
"""

from __future__ import annotations

import pickle
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from queue import Empty, SimpleQueue
from typing import Any

import ray
from ray import exceptions as ray_errors
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from population.evaluation import Stage
from vibeserve.cluster import errands
from vibeserve.cluster.board import Board
from vibeserve.cluster.connection import disconnect
from vibeserve.cluster.deaths import Deaths
from vibeserve.cluster.errands import Reply
from vibeserve.cluster.parcels import Parcels
from vibeserve.cluster.placement import Placement
from vibeserve.cluster.quarantine import Quarantine
from vibeserve.cluster.strays import Flight, Strays
from vibeserve.executor import Completion, Evaluated, Fault, MeasureTask, Mutated, MutateTask, Outcome, Task, Unread
from vibeserve.workshop import Kit

_BOARD_TIMEOUT_S = 0.5
_HOLD_S = 1.0
"""So soon the placement knows which nodes have left."""


class RayExecutor:
    """Executor on Ray; `connect` has been called. Completions come in order of completion.

    Ray calls back for each task that ends, so waiting costs nothing per task in flight.
    """

    overlaps = True

    def __init__(self, kit: Kit, placement: Placement) -> None:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        options: dict[str, Any] = {"num_cpus": 0, "max_restarts": 3, "scheduling_strategy": here}
        self._board: Any = ray.remote(**options)(
            Board
        ).remote()  # beside the driver: it must outlive the nodes that it tells of
        self._placement, self._parcels, self._quarantine = placement, Parcels(kit, self._board), Quarantine()
        self._mutate: Any = ray.remote(num_cpus=0, max_retries=0)(errands.mutate)
        self._evaluate: Any = ray.remote(errands.evaluate)
        self._prepared: tuple[Mapping[str, Any], Any] = ({}, self._evaluate)
        """Options, and the evaluation with them: most are like the one before."""
        self._flights: dict[str, Flight] = {}
        self._held: deque[MeasureTask] = deque()
        """Submitted, but not given to Ray: it would not line them up."""
        self._hold_until_s = float("-inf")
        self._recalled: set[Any] = set()
        """References of evaluations that Ray was asked to give back, and has not yet."""
        self._strays, self._deaths = Strays(self._board, placement), Deaths()
        self._ended: SimpleQueue[tuple[str, Any, Future[bytes]]] = SimpleQueue()

    @property
    def evaluate_slots(self) -> int:
        return self._placement.slots()

    @property
    def clock_s(self) -> float:
        return time.monotonic()

    def warm(self, workers: int) -> None:
        """Start worker processes and let them unpack the kit, so that the first tasks need not wait for that."""
        task: Any = ray.remote(num_cpus=0, max_retries=0)(errands.warm)
        parcel = self._parcels.parcel(())
        ray.wait([task.remote(parcel, workers) for _ in range(workers)], num_returns=workers)

    def submit(self, task: Task) -> None:
        if isinstance(task, MutateTask):
            ref = self._mutate.remote(*self._addressed(task))
            self._fly(task, ref, None)
        else:
            self._held.append(task)
            self._release_held()

    def _release_held(self) -> None:
        if time.monotonic() < self._hold_until_s:
            return
        while self._held and (self._placement.queues or self._measuring < self._placement.slots()):
            task = self._held.popleft()
            options, selector = self._placement.options(task.key), self._placement.selector
            if options != self._prepared[0]:
                self._prepared = options, self._evaluate.options(**options)
            self._fly(task, self._prepared[1].remote(*self._addressed(task)), selector)

    def _addressed(self, task: Task) -> tuple[bytes, Mapping[str, Any]]:
        return self._parcels.parcel(task.chain, self._placement.alive()).addressed(task)

    @property
    def _measuring(self) -> int:
        return sum(not flight.mutation for flight in self._flights.values())

    def _fly(self, task: Task, ref: Any, selector: Mapping[str, str] | None) -> None:
        key = task.key
        self._flights[key] = Flight(key, task, ref, time.monotonic(), selector)
        future: Future[bytes] = ref.future()
        future.add_done_callback(lambda done: self._ended.put((key, ref, done)))

    def wait(self, timeout_s: float) -> Sequence[Completion]:
        self._release_held()
        completions = self._left_behind()
        for stray in self._strays.misplaced(self._flights.values()):
            self._recalled.add(stray.ref)  # in flight until Ray has given it back: if it ends meanwhile, that counts
            self._kill(stray)
        deadline_s = time.monotonic() + timeout_s
        while True:
            left_s = 0.0 if completions else max(0.0, deadline_s - time.monotonic())
            try:
                key, ref, done = self._ended.get(timeout=left_s) if left_s else self._ended.get_nowait()
            except Empty:
                return completions
            flight = self._flights.get(key)
            if flight is None or flight.ref is not ref:
                continue  # cancelled since
            self._land(flight)
            outcome = self._outcome(flight, done)
            if outcome is not None:
                self._deaths.ended(key)
                completions.append(Completion(key=key, outcome=outcome))

    def _left_behind(self) -> list[Completion]:
        lost = self._strays.left_behind(self._flights.values())
        for flight in lost:
            self.cancel(flight.key)
        reason = "its node has left the cluster"
        return [Completion(key=flight.key, outcome=Fault(reason=f"{flight.key}: {reason}")) for flight in lost]

    def _kill(self, flight: Flight) -> None:
        self._deaths.died(time.monotonic())
        ray.cancel(flight.ref, force=True)  # the server's supervisor sees the worker's end, kills the whole tree

    def _land(self, flight: Flight) -> None:
        del self._flights[flight.key]
        if not flight.mutation:
            self._placement.release(flight.key)

    def _outcome(self, flight: Flight, done: Future[bytes]) -> Outcome | None:
        """None: it has not ended, because it could not begin."""
        recalled = flight.ref in self._recalled
        self._recalled.discard(flight.ref)
        try:
            reply: Reply = pickle.loads(done.result())
        except ray_errors.RayError as error:
            return self._failed(flight, error, recalled)
        if recalled and isinstance(reply.outcome, Fault) and isinstance(flight.task, MeasureTask):
            self._begin_again(flight.task)  # Ray kills a worker's processes first: it saw them end, and said so
            return None
        if reply.lost is not None:
            if reply.unsent:
                self._parcels.forget(reply.lost)
                self.submit(flight.task)
                return None
            self._parcels.lost(reply.lost)
            return reply.outcome
        self._parcels.arrived([delta.commit for delta in flight.task.chain], reply.node)
        made = reply.outcome.mutated if isinstance(reply.outcome, Unread) else reply.outcome
        if isinstance(made, Mutated):
            self._parcels.arrived([made.commit], reply.node)
        return reply.outcome if flight.mutation else self._judged(reply)

    def _failed(self, flight: Flight, error: ray_errors.RayError, recalled: bool) -> Fault | None:
        """What Ray says instead of a result; None: it has not ended, because it did not begin."""
        unplaced = isinstance(error, ray_errors.TaskUnschedulableError)  # its nodes have left since it was submitted
        if isinstance(flight.task, MeasureTask) and (recalled or unplaced or self._died_of_another(flight, error)):
            if unplaced:
                self._hold_until_s = time.monotonic() + _HOLD_S
            self._begin_again(flight.task)
            return None
        if isinstance(error, ray_errors.RayTaskError):  # a task function catches its own; this is Ray failing inside
            return Fault(reason=f"{flight.key}: {error.cause!r}")
        said = str(error).splitlines()[:1]  # worker, node or object lost, or out of memory
        return Fault(reason=f"{flight.key}: {type(error).__name__}: {''.join(said)}")

    def _begin_again(self, task: MeasureTask) -> None:
        """As if it had not begun: before all others, and nobody is charged."""
        self._held.appendleft(task)
        self._release_held()

    def _died_of_another(self, flight: Flight, error: ray_errors.RayError) -> bool:
        if not isinstance(error, ray_errors.WorkerCrashedError):
            return False
        now_s = time.monotonic()
        if self._deaths.may_spare(flight.key, now_s) and not self._strays.has_begun(flight):
            self._deaths.spare(flight.key)
            return True
        self._deaths.died(now_s)
        return False

    def _judged(self, reply: Reply) -> Outcome:
        """What an evaluation says of the node that it ran on."""
        outcome, node = reply.outcome, reply.node
        if isinstance(outcome, Evaluated):
            self._quarantine.worked(node)
        struck = isinstance(outcome, Fault) and outcome.retryable and self._quarantine.failed(node)
        if isinstance(outcome, Fault) and struck and self._placement.avoid(self._quarantine.nodes):
            return replace(outcome, reason=f"{outcome.reason}; no more work for node {node}, which had failed before")
        return outcome

    def cancel(self, key: str) -> None:
        self._held = deque(task for task in self._held if task.key != key)
        flight = self._flights.get(key)
        if flight is not None:
            self._land(flight)
            self._recalled.discard(flight.ref)
            self._deaths.ended(key)
            self._kill(flight)

    def stages(self) -> dict[str, tuple[Stage, float]]:
        now_s = time.monotonic()
        flights = self._flights.values()
        found = {f.key: (Stage.MUTATE, now_s - f.since_s) for f in flights if f.mutation}
        try:
            shown: dict[str, tuple[Stage, float]] = ray.get(self._board.stages.remote(), timeout=_BOARD_TIMEOUT_S)
        except ray_errors.RayError:
            return found
        return found | {f.key: shown[f.key] for f in flights if not f.mutation and f.key in shown}

    def close(self) -> None:
        for key in tuple(self._flights):
            self.cancel(key)
        self._held.clear()
        if ray.is_initialized():
            self._placement.close()
        disconnect()
