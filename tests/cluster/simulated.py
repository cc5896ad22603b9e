"""A cluster in virtual time, and a run on it: the real driver, flow, ledger and archive, with everything else made up.

For tests of what is kept in flight, and for `benchmarks/cluster/slots.py`.
"""

from __future__ import annotations

import heapq
import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np

from population.archive import Archive
from population.candidate import Operator, Proposal
from population.disk import Disk
from population.evaluation import Stage
from population.genome import parse_genome
from population.ledger import Ledger
from population.replay import State
from population.repository import Repository
from tests.population.strategies import STARTED, scored
from vibeserve.driver import Driver, Tick
from vibeserve.executor import Completion, Evaluated, MeasureTask, Mutated, Outcome, Task
from vibeserve.flow import FlowRules
from vibeserve.records import Records
from vibeserve.rules import Root, Rules

_HANDOVER_S = 0.005
"""Between the end of one evaluation and the start of the next one on its slot, as Ray needs it."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Stage times by task, whatever the order; in virtual seconds."""

    seed: int
    unit_s: float
    mutation: float = 1.0

    def mutation_s(self, key: str) -> float:
        return self.unit_s * self.mutation * float(np.exp(0.8 * self._draw(1, key)))

    def evaluation_s(self, key: str) -> float:
        return self.unit_s * 0.5 * float(np.exp(0.3 * self._draw(2, key)))

    def _draw(self, stage: int, key: str) -> float:
        return float(np.random.default_rng([self.seed, stage, int(key[1:])]).standard_normal())


@dataclass(order=True)
class _Run:
    """A task that runs until it ends or is cancelled."""

    end_s: float
    order: int
    task: Task = field(compare=False)
    outcome: Outcome = field(compare=False)


class SimulatedCluster:
    """Executor whose tasks take virtual time; any number of mutations at once, evaluations in order of submission."""

    overlaps = True

    def __init__(self, slots: int, workload: Workload, thinking: float = 0.0) -> None:
        """`thinking`: virtual seconds that one second of the driver's CPU time takes."""
        self.evaluate_slots = slots
        self.workload, self._thinking = workload, thinking
        self._now_s, self._woke_s = 0.0, time.process_time()
        self._runs: list[_Run] = []
        self._running: dict[str, _Run] = {}
        self._order, self._evaluating = itertools.count(), 0
        self._lined_up: deque[MeasureTask] = deque()
        self.begun: list[tuple[str, float]] = []
        """Evaluations and when they began, s."""
        self.mutations: list[tuple[str, float]] = []
        """Mutations and when they were submitted, s."""
        self.cancelled: list[str] = []
        self.driver_s = 0.0

    @property
    def clock_s(self) -> float:
        return self._now_s + self._thinking * (time.process_time() - self._woke_s)

    def mutated(self, task: Task) -> Outcome:
        """What a mutation comes to: a tree like no other."""
        name = f"{int(task.key[1:]):040x}"
        return Mutated(delta=b"", commit=name, tree=name, summary="", elapsed_s=self.workload.mutation_s(task.key))

    def evaluated(self, task: MeasureTask) -> Outcome:
        """What an evaluation comes to: numbers that make a front."""
        throughput = 1.0 + int(task.key[1:]) % 97
        found = scored(throughput, 1.0 + (7 * throughput) % 89)
        return Evaluated(evaluation=found, elapsed_s=self.workload.evaluation_s(task.key))

    def submit(self, task: Task) -> None:
        if isinstance(task, MeasureTask):
            self._lined_up.append(task)
            return self._begin(self.clock_s)
        self.mutations.append((task.key, self.clock_s))
        self._run(task, self.mutated(task), self.clock_s, self.workload.mutation_s(task.key))

    def _begin(self, now_s: float) -> None:
        while self._lined_up and self._evaluating < self.evaluate_slots:
            task = self._lined_up.popleft()
            self.begun.append((task.key, now_s))
            self._run(task, self.evaluated(task), now_s, self.workload.evaluation_s(task.key))

    def _run(self, task: Task, outcome: Outcome, now_s: float, elapsed_s: float) -> None:
        run = _Run(now_s + elapsed_s, next(self._order), task, outcome)
        self._running[task.key] = run
        self._evaluating += isinstance(task, MeasureTask)
        heapq.heappush(self._runs, run)

    def wait(self, timeout_s: float) -> Sequence[Completion]:
        self.driver_s += time.process_time() - self._woke_s
        now_s = self.clock_s
        until_s = max(now_s, min(now_s + timeout_s, self._runs[0].end_s if self._runs else now_s + timeout_s))
        done = []
        while self._runs and self._runs[0].end_s <= until_s:
            run = heapq.heappop(self._runs)
            if self._running.get(run.task.key) is run:
                self._end(run.task, run.end_s + _HANDOVER_S)
                done.append(Completion(key=run.task.key, outcome=run.outcome))
        self._now_s, self._woke_s = until_s, time.process_time()
        return done

    def _end(self, task: Task, now_s: float) -> None:
        del self._running[task.key]
        if isinstance(task, MeasureTask):
            self._evaluating -= 1
            self._begin(now_s)

    def cancel(self, key: str) -> None:
        self.cancelled.append(key)
        self._lined_up = deque(task for task in self._lined_up if task.key != key)
        if key in self._running:
            self._end(self._running[key].task, self.clock_s)

    def stages(self) -> dict[str, tuple[Stage, float]]:
        return {}

    def close(self) -> None:
        pass


class Nowhere:
    """A repository that keeps nothing."""

    @contextmanager
    def batch(self) -> Iterator[None]:
        yield

    def absorb(self, delta: bytes) -> str:
        return ""

    def read_files(self, sha: str, pattern: str) -> dict[str, str]:
        return {}

    def set_ref(self, candidate: str, sha: str) -> None:
        pass

    def delta(self, sha: str) -> bytes:
        return b""


class AlwaysTheSeed:
    """The cheapest policy."""

    def propose(self, archive: Archive, pending: Sequence[Proposal], number: int, rng: np.random.Generator) -> Proposal:
        return Proposal(number=number, operator=Operator.TUNE, parents=("c000000",))

    def remeasure(self, archive: Archive, pending: Sequence[str], rng: np.random.Generator) -> None:
        return None


class _Unsynced(Disk):
    def sync(self, fd: int) -> None:
        pass


def simulate(
    cluster: SimulatedCluster,
    folder: Path,
    rules: Rules,
    policy: Any = None,
    watch: Callable[[Tick], None] | None = None,
) -> State:
    """A whole search on the cluster, from where the ledger in the folder ends; `rules` may be those of `rules_for`."""
    with Ledger.open(folder / "ledger", disk=_Unsynced()) as ledger:
        state = State.replay(ledger.events())
        if state.started is None:
            state.apply(ledger.append(STARTED))
        records = Records(
            ledger=ledger,
            state=state,
            repository=cast(Repository, Nowhere()),
            children=folder / "children",
            stop_marker=folder / "stop",
        )
        Driver(rules, records, policy or AlwaysTheSeed(), cluster, watch or (lambda tick: None)).run()
    return state


def rules_for(children: int, **flow: Any) -> Rules:
    """No re-measurements, no final ones, no races."""
    root = Root(commit="f" * 40, tree="f" * 40, genome=parse_genome({}))
    return Rules(
        seed=1,
        secret=b"0",
        root=root,
        children=children,
        remeasure=False,
        racing=False,
        final_repeats=0,
        flow=FlowRules(**flow),
    )


def busy(cluster: SimulatedCluster, since_s: float, until_s: float) -> float:
    """Share of slot time that was in evaluations."""
    spans = [(begin, begin + cluster.workload.evaluation_s(key)) for key, begin in cluster.begun]
    inside = sum(max(0.0, min(end, until_s) - max(begin, since_s)) for begin, end in spans)
    return inside / (cluster.evaluate_slots * (until_s - since_s))


def steady(cluster: SimulatedCluster) -> tuple[float, float]:
    """From when a quarter of the evaluations have begun until the last child was proposed, s."""
    return cluster.begun[len(cluster.begun) // 4][1], cluster.mutations[-1][1]
