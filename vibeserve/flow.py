"""Decides how much work is kept in flight, so that no evaluator waits for a mutation and no stale backlog builds up.

Pure: it has no clock and starts nothing. What it learns it learns from the ledger's events, so a resumed run goes on
with what it knew. Little's law (1961) says how many mutations keep the slots fed; how far that number wanders
around its mean, about its square root, says how many more to have and how many mutated children should wait.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from dataclasses import dataclass

from population.evaluation import Evaluation, Rejected, Stage
from population.events import Ended, Event, MutationDone, Remeasured, SentBack

_WINDOW = 256
"""Durations that are remembered: latencies drift, and a quantile of this many is steady enough."""
_STAFFING = 2.0
"""Mutations beyond Little's law, in square roots of it: to run dry costs a GPU, to wait costs a child freshness."""
_STOCK, _LONGEST = 2.5, 4.0
"""Length of the queue times its drift; and its length at most, in slots."""
_FOLLOWED = 4
_LEAST_S = 1e-3
"""No evaluation is taken for shorter."""
_NEGLIGIBLE = 0.02
"""A mutation shorter than this share of an evaluation is not worth a lead: idle for 2 % at most, never stale."""
_ROUND_TRIP_S = 0.05
"""What may pass between the end of one task and the driver's submission of the next."""
_LEAST_YIELD = 0.05
_QUANTILE = 0.95
_END = 0.125
_ENOUGH = 20
"""Durations that must be known before any of them says that a task takes too long."""
_NOT_EVALUATED = frozenset({Stage.MUTATE, Stage.DEDUPE})


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowRules:
    """What the user may decide. None: from observed latencies."""

    mutations: int | None = None
    """Most mutations at once."""
    queue_low: int | None = None
    """With fewer mutated children waiting than this, more mutations are begun than usual."""
    queue_high: int | None = None
    """With as many waiting, no mutation is begun."""
    expected_mutation_s: float = 0.0
    """Seconds that a mutation is thought to take until some have ended; 0: nothing is known."""
    deadline_factor: float | None = 10.0
    """A task may take this many times as long as 95 % of those before it. None: any time."""
    deadline_floor_s: float = 900.0
    """But no task is given up earlier than after this many seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What is in flight: counts, and nothing about which."""

    slots: int
    """Evaluations that can run at once."""
    mutating: int
    mutating_s: float
    """Age of the mutations in flight, summed."""
    ready: int
    """Mutated children that wait for the driver to submit them."""
    evaluating: int
    """Children's evaluations that were submitted, running or lined up."""
    remeasuring: int
    overlaps: bool = True
    """Whether mutations run beside evaluations."""
    left: int | None = None
    """Children that the budget still allows to propose; None: no limit."""

    @property
    def uncovered(self) -> int:
        """Slots for which no mutated child is there; below 0: children that wait, submitted or not."""
        return self.slots - self.evaluating - self.ready


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """Between which numbers the queue of mutated children is kept, and with how many mutations."""

    usual: int
    """Mutations in flight while the queue is between its marks."""
    most: int
    """Mutations in flight while fewer than `low` wait."""
    low: int
    high: int


class Latency:
    """The latest durations of one stage, s."""

    def __init__(self) -> None:
        self._latest: deque[float] = deque()
        self._sorted: list[float] = []
        self._sum_s = 0.0

    def __len__(self) -> int:
        return len(self._latest)

    def add(self, duration_s: float) -> None:
        if len(self._latest) == _WINDOW:
            oldest = self._latest.popleft()
            del self._sorted[bisect_left(self._sorted, oldest)]
            self._sum_s -= oldest
        self._latest.append(duration_s)
        insort(self._sorted, duration_s)
        self._sum_s += duration_s

    def mean_s(self) -> float:
        """Mean; 0 where nothing is known."""
        return max(0.0, self._sum_s / len(self._latest)) if self._latest else 0.0

    def quantile_s(self, share: float) -> float:
        """The duration that `share` of them do not exceed.

        Raises:
            IndexError: nothing is known.
        """
        return self._sorted[max(0, math.ceil(share * len(self._sorted)) - 1)]


class Flow:
    """What the latencies so far ask for. Feed it every event of the ledger, in order."""

    def __init__(self, rules: FlowRules) -> None:
        self._rules = rules
        self.mutation, self.evaluation = Latency(), Latency()
        self._mutations = 0
        self._worth: deque[bool] = deque(maxlen=_WINDOW)
        """Of the latest mutations, whether each led to an evaluation."""

    def observe(self, event: Event) -> None:
        """Learn from a record: what a stage took, and whether a mutation led anywhere."""
        match event:
            case MutationDone() if event.number:
                self.mutation.add(event.elapsed_s)
                self._mutations += 1
                self._worth.append(True)
            case SentBack():
                self._evaluated(event.elapsed_s)
            case Ended() if _was_evaluated(event.evaluation):
                self._evaluated(event.elapsed_s)
            case Ended():
                self._worth.append(False)
            case Remeasured() if event.evaluation is not None:
                self._evaluated(event.elapsed_s)

    def _evaluated(self, elapsed_s: float) -> None:
        if elapsed_s > 0:  # given up after faults: nothing was measured
            self.evaluation.add(elapsed_s)

    def mutations_for(self, load: Load) -> int:
        """How many children to propose now."""
        marks = self.marks(load)
        waiting = -load.uncovered
        if waiting >= marks.high and not self._is_end(load):
            return 0
        wanted = max(load.uncovered, marks.most if waiting < marks.low else marks.usual)
        if self._rules.mutations is not None:
            wanted = min(wanted, self._rules.mutations)
        return max(0, wanted - load.mutating)

    def _is_end(self, load: Load) -> bool:
        """Whether a slow mutation that begins now may end after all other work: then the last ones begin at once.

        At most the last eighth of a run, because they are proposed with older knowledge.
        """
        if (
            load.left is None
            or self._rules.queue_high is not None
            or not load.overlaps
            or len(self.mutation) < _ENOUGH
            or not self._evaluation_s
        ):
            return False
        longest_s = self.mutation.quantile_s(1.0)
        covered = load.slots * longest_s / self._evaluation_s
        return longest_s > self._evaluation_s and load.left <= min(covered, _END * self._mutations)

    def marks(self, load: Load) -> Marks:
        """Marks for this load; all 0 where a lead is not worth its staleness."""
        arriving = self._in_mutation(load) if load.overlaps else 0.0
        lead = arriving > _NEGLIGIBLE * load.slots
        spread = math.sqrt(arriving) if lead else 0.0
        usual = math.ceil(arriving + _STAFFING * spread) if lead else 0
        low = math.ceil(spread) if self._rules.queue_low is None else self._rules.queue_low
        high = self._high(load, arriving, usual) if lead else 0
        high = max(low, high) if self._rules.queue_high is None else self._rules.queue_high
        return Marks(usual=usual, most=usual + int(spread), low=min(low, high), high=high)

    def _high(self, load: Load, arriving: float, usual: int) -> int:
        """How many may wait: the less mutations can catch up after a drought, the more must be laid in for one.

        A queue with drift, reflected at its ends, is empty with a chance that falls exponentially in drift times
        length; where mutations cannot catch up at all, nothing is gained by holding them back.
        """
        spread, at_once = math.sqrt(arriving), min(usual, self._rules.mutations or usual)
        drift = at_once / arriving - 1
        longest = math.ceil(_LONGEST * load.slots)
        wanted = min(longest, math.ceil(_STOCK / drift)) if drift > 0 else longest
        return max(math.ceil(spread) + int(spread), wanted)

    def _in_mutation(self, load: Load) -> float:
        """Little's law: children in mutation = rate at which the slots take them x time in mutation."""
        evaluation_s = self._evaluation_s
        if not evaluation_s:
            return 0.0
        mutation_s = self._mutation_s(load) + _ROUND_TRIP_S
        worth = max(_LEAST_YIELD, (sum(self._worth) + 4) / (len(self._worth) + 4))
        return load.slots * mutation_s / (evaluation_s * worth)

    def _mutation_s(self, load: Load) -> float:
        """Mean of a mutation, and not below the mean age of those in flight: of those, the short ones end first.

        A few stragglers that are left over count for no more than among as many as there would usually be. What the
        user expects stands until each mutation in flight has been followed by some others.
        """
        mean_s = self.mutation.mean_s()
        usual = load.slots * mean_s / self._evaluation_s if self._evaluation_s else 0.0
        age_s = load.mutating_s / max(load.mutating, usual, 1.0)
        known = self._mutations >= max(_ENOUGH, _FOLLOWED * load.mutating)
        return max(mean_s, age_s, 0.0 if known else self._rules.expected_mutation_s)

    @property
    def _evaluation_s(self) -> float:
        """Mean of an evaluation; 0 before the first."""
        return max(_LEAST_S, self.evaluation.mean_s()) if len(self.evaluation) else 0.0

    def evaluations_for(self, load: Load) -> int:
        """How many waiting children to submit now: enough that a slot which becomes free has its next one at once."""
        return max(0, min(load.ready, load.slots + self.prefetch(load) - load.evaluating - load.remeasuring))

    def prefetch(self, load: Load) -> int:
        """Evaluations to submit beyond the slots: those that start within a round trip to the driver."""
        evaluation_s = self._evaluation_s
        if not load.overlaps or not evaluation_s or not load.slots:
            return 0
        return min(load.slots, math.ceil(load.slots * _ROUND_TRIP_S / evaluation_s))

    def preempted_for(self, load: Load) -> int:
        """How many re-measurements to put off, because a child is ready and finds no slot."""
        return max(0, min(load.remeasuring, load.ready, load.remeasuring - load.uncovered))

    def remeasurements_for(self, load: Load) -> int:
        """How many slots may measure the front once more: those that no child wants before that would be over.

        Where mutations do not run beside evaluations, a child in mutation is the next in line, whatever it takes.
        """
        if not load.overlaps:
            return max(0, load.uncovered - load.remeasuring - load.mutating)
        evaluation_s, mutation_s = self._evaluation_s, self._mutation_s(load)
        soon = load.mutating * (min(1.0, evaluation_s / mutation_s) if mutation_s else 1.0)
        return max(0, load.uncovered - load.remeasuring - math.ceil(soon - 0.5))

    def deadline_s(self, latency: Latency) -> float | None:
        """After how many seconds a task of the stage that `latency` describes is given up; None: not yet known."""
        factor = self._rules.deadline_factor
        if factor is None or len(latency) < _ENOUGH:
            return None
        return max(self._rules.deadline_floor_s, factor * latency.quantile_s(_QUANTILE))


def _was_evaluated(evaluation: Evaluation) -> bool:
    return not (isinstance(evaluation, Rejected) and evaluation.stage in _NOT_EVALUATED)
