"""How much is kept in flight: bounds that hold for any load and any latencies, and what typical ones lead to."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from population.evaluation import Rejected, Scored, Stage
from population.events import Ended, MutationDone, Remeasured
from population.genome import parse_genome
from vibeserve.flow import Flow, FlowRules, Latency, Load

GENOME = parse_genome({})
SCORED = Scored(samples={})
DURATIONS = st.floats(0.0, 1e5, allow_nan=False)
RULES = st.builds(
    FlowRules,
    mutations=st.none() | st.integers(1, 50),
    queue_low=st.none() | st.integers(0, 50),
    queue_high=st.none() | st.integers(0, 50),
    expected_mutation_s=st.sampled_from([0.0, 10.0]),
)
LOADS = st.builds(
    Load,
    slots=st.integers(0, 64),
    mutating=st.integers(0, 200),
    mutating_s=st.floats(0.0, 1e5),
    ready=st.integers(0, 100),
    evaluating=st.integers(0, 100),
    remeasuring=st.integers(0, 20),
    overlaps=st.booleans(),
)


def mutation(number: int, elapsed_s: float) -> MutationDone:
    return MutationDone(number=number, commit="c", tree="t", genome=GENOME, elapsed_s=elapsed_s)


def flow_of(mutations_s: list[float], evaluations_s: list[float], rules: FlowRules | None = None) -> Flow:
    """After these events."""
    flow = Flow(rules or FlowRules())
    for number, elapsed_s in enumerate(mutations_s, start=1):
        flow.observe(mutation(number, elapsed_s))
    for number, elapsed_s in enumerate(evaluations_s, start=1):
        flow.observe(Ended(number=number, evaluation=SCORED, elapsed_s=elapsed_s))
    return flow


def load(slots: int, **counts: float) -> Load:
    zero = {"mutating": 0, "mutating_s": 0.0, "ready": 0, "evaluating": 0, "remeasuring": 0}
    return Load(slots=slots, **{**zero, **counts})  # type: ignore[arg-type]


@given(RULES, LOADS, st.lists(DURATIONS, max_size=30), st.lists(DURATIONS, max_size=30))
def test_bounds_that_always_hold(rules: FlowRules, now: Load, mutations: list[float], evaluations: list[float]) -> None:
    flow = flow_of(mutations, evaluations, rules)
    marks, proposed = flow.marks(now), flow.mutations_for(now)
    assert proposed >= 0 and 0 <= marks.low <= marks.high
    if proposed and rules.mutations is not None:
        assert now.mutating + proposed <= rules.mutations
    if -now.uncovered >= marks.high:
        assert proposed == 0, "the queue is full"
    elif rules.mutations is None:
        assert now.mutating + proposed >= now.uncovered, "a slot has nothing to wait for"
    assert 0 <= flow.evaluations_for(now) <= now.ready
    after = now.evaluating + now.remeasuring + flow.evaluations_for(now)
    assert after <= max(now.evaluating + now.remeasuring, now.slots + flow.prefetch(now))
    assert 0 <= flow.prefetch(now) <= now.slots
    assert 0 <= flow.remeasurements_for(now) <= max(0, now.slots - now.evaluating - now.remeasuring - now.ready)


@given(LOADS.filter(lambda now: now.evaluating + now.remeasuring <= now.slots))
def test_a_ready_child_never_waits_for_a_re_measurement(now: Load) -> None:
    flow = flow_of([], [10.0])
    gone = flow.preempted_for(now)
    assert 0 <= gone <= min(now.ready, now.remeasuring)
    after = replace(now, remeasuring=now.remeasuring - gone)
    assert not after.remeasuring or flow.evaluations_for(after) == after.ready
    assert not gone or now.evaluating + now.remeasuring + now.ready > now.slots, "there was room for both"


@given(st.integers(1, 100), st.lists(DURATIONS, min_size=1, max_size=600), st.floats(0.01, 0.99))
def test_a_latency_is_that_of_the_latest(first: int, durations: list[float], share: float) -> None:
    latency = Latency()
    for duration in durations:
        latency.add(duration)
    kept = sorted(durations[-256:])
    assert len(latency) == len(kept)
    assert latency.mean_s() == pytest.approx(sum(kept) / len(kept), abs=1e-6)
    assert sum(duration <= latency.quantile_s(share) for duration in kept) >= share * len(kept)


def test_where_mutating_takes_next_to_no_time_no_child_is_proposed_ahead() -> None:
    flow = flow_of([0.1] * 10, [60.0] * 10)
    for slots in (1, 8, 64):
        assert flow.marks(load(slots)).high == 0
        assert flow.mutations_for(load(slots, evaluating=slots)) == 0
        assert flow.mutations_for(load(slots, evaluating=slots - 1)) == 1


@pytest.mark.parametrize("slots", [1, 8, 64, 1024])
def test_a_slow_llm_gets_as_many_calls_as_the_slots_need(slots: int) -> None:
    """Little's law: 120 s of mutation and 60 s of evaluation are two mutations for each slot, and some to spare."""
    flow = flow_of([120.0] * 100, [60.0] * 100)
    wanted = flow.mutations_for(load(slots, evaluating=slots))
    assert 2 * slots <= wanted <= 2 * slots + 4 * math.sqrt(2 * slots) + 2
    marks = flow.marks(load(slots))
    assert math.sqrt(2 * slots) <= marks.low < marks.high <= 2 * math.sqrt(2 * slots) + 3
    full = load(slots, evaluating=slots, ready=marks.high)
    assert flow.mutations_for(full) == 0


def test_mutations_that_lead_nowhere_are_made_up_for() -> None:
    flow = flow_of([120.0] * 100, [60.0] * 100)
    before = flow.marks(load(8)).usual
    for number in range(101, 201):
        flow.observe(Ended(number=number, evaluation=Rejected(stage=Stage.DEDUPE, reason="twin"), elapsed_s=120.0))
    assert flow.marks(load(8)).usual > 1.6 * before
    assert flow.evaluation.mean_s() == 60.0, "a twin is not evaluated"


def test_before_the_first_mutation_has_ended_its_age_is_what_is_known() -> None:
    flow = flow_of([], [10.0])
    assert flow.mutations_for(load(4)) == 4
    assert flow.mutations_for(load(4, mutating=4, mutating_s=0.4)) == 0
    assert flow.mutations_for(load(4, mutating=4, mutating_s=4 * 30.0)) >= 8
    expected = flow_of([], [10.0], FlowRules(expected_mutation_s=30.0))
    assert expected.mutations_for(load(4)) >= 12


def test_one_straggler_is_no_outage_but_all_being_late_is() -> None:
    flow = flow_of([60.0] * 100, [60.0] * 100)
    usual = flow.marks(load(16)).usual
    assert flow.marks(load(16, mutating=1, mutating_s=600.0)).usual == usual
    assert flow.marks(load(16, mutating=16, mutating_s=16 * 600.0)).usual > 4 * usual


def test_an_executor_that_does_one_thing_at_a_time_gets_one_thing_at_a_time() -> None:
    flow = flow_of([120.0] * 100, [60.0] * 100)
    one = replace(load(1), overlaps=False)
    assert flow.mutations_for(one) == 1
    assert flow.mutations_for(replace(one, mutating=1)) == 0
    assert flow.mutations_for(replace(one, ready=1)) == 0
    assert flow.evaluations_for(replace(one, ready=1)) == 1
    assert flow.mutations_for(replace(one, evaluating=1)) == 0


def test_re_measurements_leave_the_slots_that_children_will_want_soon() -> None:
    slow, quick = flow_of([300.0] * 20, [60.0] * 20), flow_of([1.0] * 20, [60.0] * 20)
    assert slow.remeasurements_for(load(8, mutating=10)) == 6
    assert quick.remeasurements_for(load(8, mutating=6)) == 2
    assert slow.remeasurements_for(load(8, mutating=10, evaluating=8)) == 0


def test_a_deadline_needs_evidence_and_has_a_floor() -> None:
    flow = flow_of([1.0] * 19, [100.0] * 20 + [300.0])
    assert flow.deadline_s(flow.mutation) is None
    assert flow.deadline_s(flow.evaluation) == 1000.0
    flow.observe(mutation(20, 1.0))
    assert flow.deadline_s(flow.mutation) == 900.0
    never = flow_of([1.0] * 100, [1.0] * 100, FlowRules(deadline_factor=None))
    assert never.deadline_s(never.evaluation) is None


def test_the_last_children_begin_early_enough_for_the_slowest_mutation() -> None:
    """One mutation took 600 s, in which 8 slots evaluate 80 children; of a shorter run it is only the last eighth."""
    full = load(8, evaluating=8, ready=40)
    for before, last in ((1000, 80), (320, 40)):
        flow = flow_of([600.0] + [60.0] * (before - 1), [60.0] * 20)
        flow.mutation.add(600.0)
        assert flow.mutations_for(replace(full, left=last + 1)) == 0
        assert flow.mutations_for(replace(full, left=last)) > 0
    quick = flow_of([1.0] * 1000, [60.0] * 20)
    assert quick.mutations_for(replace(full, left=1)) == 0


def test_the_seed_is_not_mutated_and_what_was_given_up_was_not_measured() -> None:
    flow = Flow(FlowRules())
    flow.observe(mutation(0, 0.0))
    flow.observe(Ended(number=0, evaluation=Rejected(stage=Stage.BOOT, reason="given up"), elapsed_s=0.0))
    flow.observe(Remeasured(index=0, candidate="c000000", evaluation=None))
    assert (len(flow.mutation), len(flow.evaluation)) == (0, 0)
    flow.observe(Remeasured(index=1, candidate="c000000", evaluation=SCORED, elapsed_s=5.0))
    assert flow.evaluation.mean_s() == 5.0
