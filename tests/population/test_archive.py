"""Pooling, trees, admission and the front of the archive; state live and replayed."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from population import dominance
from population.archive import Archive
from population.candidate import Candidate, Failure, Operator, Proposal
from population.errors import LedgerError, RunError
from population.evaluation import Rejected, Scored, Stage
from population.events import (
    Advised,
    Drafted,
    Ended,
    EpochStarted,
    Event,
    Faulted,
    FinalMeasured,
    MutationDone,
    Proposed,
    Remeasured,
    RemeasureStarted,
    SentBack,
    Stopped,
)
from population.genome import Genome
from population.objectives import ObjectiveSet
from population.replay import State
from population.spending import Spending
from population.statistics import estimate
from tests.population.strategies import OBJECTIVES, STARTED, child, scored

REJECTED = Rejected(stage=Stage.CHECKER, reason="wrong tokens")
VALUE = st.floats(0.5, 200)


def candidate(number: int, evaluation: Scored | Rejected, tree: str = "") -> Candidate:
    proposal = Proposal(number=number, operator=Operator.TUNE, parents=("c000000",))
    name = tree or f"{number:040x}"
    return Candidate(proposal=proposal, commit=name, tree=name, genome=Genome(), evaluation=evaluation, cost_s=1.0)


def archive_of(*evaluations: Scored | Rejected) -> Archive:
    archive = Archive(ObjectiveSet(OBJECTIVES))
    for number, evaluation in enumerate(evaluations):
        archive.add(candidate(number, evaluation))
    return archive


def fresh_front(archive: Archive) -> set[str]:
    ids = archive.scored
    bounds = [archive.bounds(i) for i in ids]
    points = dominance.Points(
        archive.costs_of(ids), np.array([low for low, _ in bounds]), np.array([high for _, high in bounds])
    )
    return {ids[row] for row in dominance.front(points)}


@given(st.lists(st.tuples(VALUE, VALUE, st.booleans()), min_size=1, max_size=25), st.randoms())
def test_incremental_front_equals_the_front_from_scratch(
    rows: list[tuple[float, float, bool]], rng: random.Random
) -> None:
    archive = Archive(ObjectiveSet(OBJECTIVES))
    for number, (throughput, ttft_ms, ask) in enumerate(rows):
        archive.add(candidate(number, scored(throughput, ttft_ms)))
        if ask:
            assert set(archive.front) == fresh_front(archive)
        if rng.random() < 0.2:
            known = rng.choice(archive.scored) if archive.scored else None
            if known is not None:
                archive.remeasure(known, scored(throughput, ttft_ms) if rng.random() < 0.7 else REJECTED)
    if archive.scored:
        assert set(archive.front) == fresh_front(archive)


def test_loads_combine_by_the_geometric_mean_per_repeat() -> None:
    archive = archive_of(scored(100.0, 4.0, 9.0))
    assert archive.samples("c000000")["median_ttft_ms"] == (pytest.approx(6.0),)
    assert archive.costs("c000000") == pytest.approx([-math.log(100.0), math.log(6.0)])


def test_remeasurements_are_pooled_with_the_first() -> None:
    archive = archive_of(scored(100.0, 5.0))
    wide = archive.estimates("c000000")["output_throughput"]
    archive.remeasure("c000000", scored(104.0, 5.2))
    pooled = archive.estimates("c000000")["output_throughput"]
    assert pooled == estimate((100.0, 104.0), 0.05)
    assert pooled.n == 2 and wide.n == 1
    low, high = archive.bounds("c000000")
    assert (low <= archive.costs("c000000")).all() and (archive.costs("c000000") <= high).all()
    assert len(archive.evaluations("c000000")) == 2


def test_a_rejected_remeasurement_takes_a_candidate_off_the_front_for_good() -> None:
    archive = archive_of(scored(10.0, 5.0), scored(100.0, 1.0))
    assert archive.front == ("c000001",)
    archive.remeasure("c000001", REJECTED)
    archive.remeasure("c000001", scored(100.0, 1.0))
    assert archive.front == ("c000000",) and archive.scored == ("c000000",)
    assert archive.candidates["c000001"].evaluation == scored(100.0, 1.0)
    with pytest.raises(RunError, match="expected a scored candidate, but it was rejected"):
        archive.costs("c000001")


def test_rejected_children_and_failures_are_kept_but_not_scored() -> None:
    archive = archive_of(scored(10.0, 5.0), REJECTED)
    failure = Failure(
        proposal=Proposal(number=2, operator=Operator.MERGE),
        evaluation=Rejected(stage=Stage.MUTATE, reason="conflict"),
        cost_s=0.1,
    )
    archive.add(failure)
    assert list(archive.children) == [0, 1, 2] and list(archive.candidates) == ["c000000", "c000001"]
    assert archive.scored == ("c000000",)


def test_a_tree_belongs_to_the_first_child_that_had_it() -> None:
    archive = Archive(ObjectiveSet(OBJECTIVES))
    archive.add(candidate(0, scored(10.0, 5.0), tree="aa"))
    archive.add(candidate(1, REJECTED, tree="aa"))
    assert dict(archive.trees) == {"aa": "c000000"}


def test_views_cannot_be_written_to() -> None:
    archive = archive_of(scored(10.0, 5.0))
    with pytest.raises(TypeError):
        archive.children[1] = archive.children[0]  # type: ignore[index]
    with pytest.raises(ValueError, match="read-only"):
        archive.costs("c000000")[0] = 1.0


@pytest.mark.parametrize(
    ("samples", "reason"),
    [
        ({"output_throughput": (1.0,)}, "needs the metric median_ttft_ms@low, median_ttft_ms@shared"),
        (
            {"output_throughput": (1.0,), "median_ttft_ms@low": (1.0,)},
            r"reported: median_ttft_ms@low, output_throughput",
        ),
        ({"median_ttft_ms@low": (1.0, 2.0), "median_ttft_ms@shared": (1.0,)}, "as many repeats of every load"),
        (
            {"median_ttft_ms@low": (math.nan,), "median_ttft_ms@shared": (1.0,)},
            "NaN or negative ones in median_ttft_ms@low",
        ),
        ({"median_ttft_ms@low": (0.0,), "median_ttft_ms@shared": (1.0,)}, "which no server can reach"),
        (
            {"output_throughput": (math.inf,), "median_ttft_ms@low": (1.0,), "median_ttft_ms@shared": (1.0,)},
            "no server",
        ),
    ],
)
def test_a_measurement_without_its_objectives_is_not_admitted(
    samples: dict[str, tuple[float, ...]], reason: str
) -> None:
    archive = Archive(ObjectiveSet(OBJECTIVES))
    evaluation = Scored(samples={"output_throughput": (1.0,), **samples})
    admitted = archive.admit(evaluation)
    assert isinstance(admitted, Rejected) and admitted.stage is Stage.BENCHMARK
    with pytest.raises(RunError, match=reason):
        archive.add(candidate(0, evaluation))
    assert not archive.children


def test_infinite_latency_and_no_throughput_are_admitted_and_last() -> None:
    archive = archive_of(scored(10.0, 5.0), scored(0.0, math.inf))
    assert archive.front == ("c000000",)
    assert np.isposinf(archive.costs("c000001")).all()


def test_metrics_cover_what_is_no_objective_too() -> None:
    archive = archive_of(scored(10.0, 4.0, 9.0))
    found = archive.metrics("c000000")
    assert found["median_ttft_ms@low"].value == pytest.approx(4.0) and found["median_ttft_ms"].value == pytest.approx(
        6.0
    )


def script(rng: random.Random, length: int) -> list[Event]:
    """A plausible run: children in flight, faults, re-measurements, restarts."""
    events: list[Event] = [EpochStarted(epoch=1), STARTED, *child(0, scored(10.0, 5.0))]
    flying: dict[int, bool] = {}
    measuring: dict[int, str] = {}
    number, index, epoch, good = 1, 0, 1, ["c000000"]
    for _ in range(length):
        roll = rng.random()
        if roll < 0.35:
            events.append(Proposed(proposal=Proposal(number=number, operator=Operator.TUNE, parents=("c000000",))))
            flying[number] = False
            number += 1
        elif roll < 0.6 and (waiting := [n for n, done in flying.items() if not done]):
            n = rng.choice(waiting)
            flying[n] = True
            tree = f"{rng.randrange(40):040x}"
            events.append(
                MutationDone(number=n, commit=f"{n:040x}", tree=tree, genome=Genome(), elapsed_s=rng.random())
            )
        elif roll < 0.66 and (made := [n for n, done in flying.items() if done]):
            n = rng.choice(made)
            flying[n] = False
            events.append(SentBack(number=n, evaluation=REJECTED, elapsed_s=rng.random()))
        elif roll < 0.8 and flying:
            n = rng.choice(list(flying))
            fine = flying.pop(n) and rng.random() < 0.7
            events.append(
                Ended(number=n, evaluation=scored(rng.uniform(5, 90), rng.uniform(1, 9)) if fine else REJECTED)
            )
            good += [f"c{n:06d}"] if fine else []
        elif roll < 0.86:
            measuring[index] = rng.choice(good)
            events.append(RemeasureStarted(index=index, candidate=measuring[index]))
            index += 1
        elif roll < 0.92 and measuring:
            i = rng.choice(list(measuring))
            outcome = rng.choice([None, REJECTED, scored(20.0, 2.0)])
            events.append(Remeasured(index=i, candidate=measuring.pop(i), evaluation=outcome, elapsed_s=1.0))
        elif roll < 0.95:
            events.append(Faulted(key="c000001", reason="node lost", attempt=1))
        else:
            epoch += 1
            events += [Stopped(reason="interrupted"), EpochStarted(epoch=epoch)]
    return events


def picture(state: State) -> object:
    archive = state.archive
    return (
        dict(archive.children), dict(archive.trees), archive.scored, archive.front,
        {i: (archive.estimates(i), archive.costs(i).tolist()) for i in archive.scored},
        state.pending, state.mutated, state.next_number, state.remeasuring, state.next_remeasure, state.finals,
        state.attempts, state.attempted, state.advice, state.costs, state.commits,
        state.faults, state.epoch, state.stopped, state.elapsed_s, state.evaluate_s,
    )  # fmt: skip


@given(st.randoms(use_true_random=False), st.integers(0, 60), st.integers(0, 60))
def test_replay_equals_the_live_state(rng: random.Random, length: int, ask: int) -> None:
    events = script(rng, length)
    live = State()
    for at, event in enumerate(events):
        live.apply(event)
        if at % (ask + 1) == 0:
            assert live.archive.front is not None  # asking must not change what comes out
    assert picture(State.replay(events)) == picture(live)


def test_a_state_knows_what_to_go_on_with() -> None:
    state = State.replay(
        [
            EpochStarted(epoch=1),
            STARTED,
            *child(0, scored(10.0, 5.0)),
            *child(1, REJECTED)[:2],
            *child(2, REJECTED)[:1],
            RemeasureStarted(index=0, candidate="c000000"),
            Faulted(key="c000001", reason="r", attempt=2),
            FinalMeasured(subject="sequential-kv", round=1, evaluation=scored(1.0, 1.0)),
        ]
    )
    assert sorted(state.pending) == [1, 2] and sorted(state.mutated) == [1]
    assert state.next_number == 3 and state.remeasuring == {0: "c000000"} and state.next_remeasure == 1
    assert ("sequential-kv", 1) in state.finals and state.faults == {"c000001": 2} and state.stopped is None
    assert state.summaries == {0: "child 0", 1: "child 1"}
    assert state.twin_of(f"{0:040x}", 5) == "c000000" and state.twin_of(f"{1:040x}", 5) == "c000001"
    assert state.twin_of(f"{1:040x}", 1) is None
    assert state.mean_cost_s == 3.0


def test_a_child_that_was_sent_back_is_one_child_with_all_it_took() -> None:
    proposed, made, ended = child(1, scored(20.0, 4.0), tree=f"{9:040x}")
    first = replace(made, tree=f"{1:040x}", commit=f"{1:040x}")
    state = State.replay([*BEGUN, proposed, first])
    cost_s = state.candidates_s
    state.apply(SentBack(number=1, evaluation=REJECTED, elapsed_s=5.0))
    assert sorted(state.pending) == [1] and not state.mutated and state.next_number == 2
    assert state.commits["c000001"] == f"{1:040x}", "what is to be mended must not be lost"
    assert state.twin_of(f"{1:040x}", 1) == state.twin_of(f"{1:040x}", 2) == "c000001"
    assert [attempt.evaluation for attempt in state.attempts[1]] == [REJECTED]
    state.apply(made)
    assert state.commits["c000001"] == f"{9:040x}"
    state.apply(ended)
    candidate_ = state.archive.candidates["c000001"]
    assert (candidate_.commit, len(state.archive.children)) == (f"{9:040x}", 2)
    assert candidate_.cost_s == state.candidates_s - cost_s == 1.0 + 5.0 + 1.0 + 2.0
    assert (state.costs[1].mutate_s, state.costs[1].evaluate_s) == (2.0, 7.0)
    assert state.twin_of(f"{1:040x}", 2) == "c000001", "nobody else is evaluated with a tree that was rejected"


def test_a_draft_is_kept_in_flight_and_paid_until_its_judge_has_read_it() -> None:
    proposed, made, ended = child(1, scored(20.0, 4.0))
    spent = (Spending(role="implementer", model="m", requests=3),)
    draft = Drafted(number=1, commit=made.commit, tree=made.tree, summary="s", elapsed_s=made.elapsed_s, spent=spent)
    state = State.replay([*BEGUN, proposed, draft])
    mutate_s = state.mutate_s
    assert state.commits["c000001"] == made.commit, "what is to be judged must not be lost"
    assert state.twin_of(made.tree, 2) == "c000001" and state.twin_of(made.tree, 1) is None
    assert state.spent["implementer", "m"].requests == 3 and not state.mutated
    with pytest.raises(LedgerError, match="has a commit already"):
        state.apply(draft)
    state.apply(made)
    assert not state.drafts and sorted(state.mutated) == [1] and state.mutate_s - mutate_s == made.elapsed_s
    with pytest.raises(LedgerError, match="has a commit already"):
        state.apply(draft)
    assert state.twin_of(made.tree, 2) == "c000001"
    state.apply(ended)
    assert not state.trees and state.spent["implementer", "m"].requests == 3
    assert picture(State.replay([*BEGUN, proposed, draft, made, ended])) == picture(state)


def test_a_child_that_nobody_mended_keeps_its_last_commit() -> None:
    proposed, made, _ = child(1, REJECTED)
    state = State.replay([*BEGUN, proposed, made, SentBack(number=1, evaluation=REJECTED, elapsed_s=5.0)])
    state.apply(Ended(number=1, evaluation=REJECTED, elapsed_s=3.0))
    found = state.archive.children[1]
    assert isinstance(found, Candidate) and found.commit == f"{1:040x}" and found.cost_s == 1.0 + 5.0 + 3.0
    assert (state.costs[1].mutate_s, state.costs[1].evaluate_s) == (4.0, 5.0), "what ended it was a mutation"


def test_the_first_advice_about_a_candidate_stands() -> None:
    state = State.replay([*BEGUN, Advised(candidate="c000000", advice="a"), Advised(candidate="c000000", advice="b")])
    assert state.advice == {"c000000": "a"}


def test_elapsed_time_adds_up_over_epochs() -> None:
    state = State.replay(
        [
            EpochStarted(epoch=1),
            RunStarted_at(4.0),
            EpochStarted(epoch=2),
            Faulted(key="k", reason="r", attempt=1, active_s=2.5),
            Stopped(reason="done", active_s=3.0),
        ]
    )
    assert state.elapsed_s == 7.0 and state.stopped is not None


def RunStarted_at(active_s: float) -> Event:  # reads as an event
    from dataclasses import replace

    return replace(STARTED, active_s=active_s)


BEGUN = [EpochStarted(epoch=1), STARTED, *child(0, scored(10.0, 5.0))]


@pytest.mark.parametrize(
    ("before", "event", "reason"),
    [
        (BEGUN, Ended(number=0, evaluation=REJECTED), "not pending; it was never proposed, or has ended"),
        (BEGUN, Ended(number=7, evaluation=REJECTED), "child 7 is not pending"),
        (BEGUN, Proposed(proposal=Proposal(number=3, operator=Operator.TUNE)), "expected child number 1, got 3"),
        ([*BEGUN, *child(1, REJECTED)[:1]], Ended(number=1, evaluation=scored(1.0, 1.0)), "scored but has no commit"),
        ([*BEGUN, *child(1, REJECTED)[:2]], child(1, REJECTED)[1], "has a commit already"),
        ([*BEGUN, *child(1, REJECTED)[:2]], Ended(number=1, evaluation=Scored(samples={})), "needs the metric"),
        (BEGUN, Remeasured(index=0, candidate="c000000", evaluation=REJECTED), "not in flight"),
        (BEGUN, RemeasureStarted(index=0, candidate="c000009"), "c000009 was never scored"),
        (
            [*BEGUN, *child(1, REJECTED)[:1]],
            SentBack(number=1, evaluation=REJECTED),
            "child 1 has no commit that could",
        ),
        (BEGUN, SentBack(number=0, evaluation=REJECTED), "child 0 has no commit that could be rejected"),
        (BEGUN, Advised(candidate="c000009", advice="a"), "there is no candidate c000009"),
        (BEGUN, STARTED, "has started already"),
        ([EpochStarted(epoch=1)], child(0, REJECTED)[0], "no run has started yet"),
    ],
)
def test_contradictions_are_refused_and_change_nothing(before: list[Event], event: Event, reason: str) -> None:
    state = State.replay(before)
    known = picture(state)
    with pytest.raises(LedgerError, match=reason):
        state.apply(event)
    assert picture(state) == known


def test_ten_thousand_candidates_stay_cheap() -> None:
    import time

    rng = np.random.default_rng(0)
    archive = Archive(ObjectiveSet(OBJECTIVES))
    values = np.exp(rng.normal(0.0, 1.0, size=(5000, 2)))
    began = time.process_time()
    for number, (throughput, ttft_ms) in enumerate(values.tolist()):
        archive.add(candidate(number, scored(throughput, ttft_ms)))
        _ = archive.front
    assert time.process_time() - began < 5.0


def test_a_disturbed_evaluation_gets_a_wider_interval() -> None:
    calm, disturbed = scored(100.0, 5.0), replace(scored(100.0, 5.0), flags=("noisy",))
    low, high = archive_of(calm).bounds("c000000")
    wide_low, wide_high = archive_of(disturbed).bounds("c000000")
    assert wide_high - wide_low == pytest.approx(2 * (high - low))
