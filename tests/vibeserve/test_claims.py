"""What may be called a claim: ten fresh pairs in ABBA order on one device, with an interval that excludes 1."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest

from population.evaluation import Place, Scored
from population.objectives import Direction, Objective, ObjectiveSet
from vibeserve.claims import Claim, Subject, Verdict, claim_json, measure_claim
from vibeserve.executor import ChildTask, Evaluated, MeasureTask, Mutated
from vibeserve.inline import InlineExecutor, Progress

OBJECTIVES = ObjectiveSet(
    (Objective(name="tok", direction=Direction.MAX), Objective(name="ttft", direction=Direction.MIN))
)
SIDES = (Subject(name="c000001", commit="ours", bundle=b""), Subject(name="seed", commit="seed", bundle=b""))


@dataclass
class Shop:
    """Measures `ours` as `gain` times the seed with 2 % noise, on the device that `place` names."""

    gain: float
    place: Callable[[int], Place] = lambda count: Place(node="node", cpus=(0, 1))
    ttft: Callable[[int], float] = lambda count: 10.0
    tasks: list[MeasureTask] = field(default_factory=list)

    def mutate(self, task: ChildTask) -> Mutated:
        raise AssertionError(f"a claim mutates nothing, got {task}")

    def measure(self, task: MeasureTask, progress: Progress) -> Evaluated:
        count = len(self.tasks)
        self.tasks.append(task)
        noise = np.exp(0.02 * np.random.default_rng(count).standard_normal(2)).tolist()
        gain = self.gain if task.commit == "ours" else 1.0
        samples = {"tok": (100.0 * gain * noise[0],), "ttft": (self.ttft(count) * noise[1],)}
        return Evaluated(evaluation=Scored(samples=samples), elapsed_s=1.0, place=self.place(count))


def claimed(shop: Shop, pairs: int = 10) -> Claim:
    return measure_claim(SIDES, InlineExecutor(shop), OBJECTIVES, 5, pairs, lambda text: None)


def test_pairs_alternate_share_prompts_and_never_repeat_them() -> None:
    shop = Shop(1.0)
    claimed(shop)
    assert [task.commit for task in shop.tasks] == ["ours", "seed", "seed", "ours"] * 5
    seeds = [task.content_seed for task in shop.tasks]
    assert seeds[::2] == seeds[1::2] and len(set(seeds)) == 10
    assert {(task.trace_seed, task.repeats) for task in shop.tasks} == {(5, 1)}


def test_a_gain_that_is_there_is_claimed_by_the_cautious_end_of_its_interval() -> None:
    claim = claimed(Shop(1.5))
    gain = claim.gains["tok"]
    assert claim.shortfalls == ()
    assert claim.verdict("tok") is Verdict.BETTER
    assert claim.claimed("tok") == gain.low
    assert 1.4 < gain.low < gain.value < gain.high < 1.6


def test_a_loss_is_claimed_too() -> None:
    claim = claimed(Shop(0.5))
    assert claim.verdict("tok") is Verdict.WORSE
    assert claim.claimed("tok") == claim.gains["tok"].high < 0.6


def test_an_interval_that_includes_one_shows_no_difference() -> None:
    claim = claimed(Shop(1.0))
    assert claim.gains["ttft"].low <= 1 <= claim.gains["ttft"].high
    assert claim.verdict("ttft") is Verdict.UNDECIDED
    assert claim.claimed("ttft") is None


@pytest.mark.parametrize("pairs", [2, 9])
def test_fewer_than_ten_pairs_are_not_a_claim_however_clear(pairs: int) -> None:
    claim = claimed(Shop(9.0), pairs)
    assert claim.shortfalls == (f"{pairs} pairs, at least 10 are needed",)
    assert claim.verdict("tok") is Verdict.NONE and claim.claimed("tok") is None
    found = claim_json(claim)
    assert found["claim"] is False and found["not_a_claim_because"] == list(claim.shortfalls)


def test_two_devices_are_not_a_claim() -> None:
    claim = claimed(Shop(1.5, place=lambda count: Place(node="node", gpus=(str(int(count == 7)),), cpus=(0, 1))))
    assert claim.devices == ("node GPU 0 CPUs 0–1", "node GPU 1 CPUs 0–1")
    assert claim.verdict("tok") is Verdict.NONE
    assert "several devices" in claim.shortfalls[0]


def test_failed_requests_of_one_run_undo_the_gain_of_ten() -> None:
    claim = claimed(Shop(1.5, ttft=lambda count: math.inf if count == 0 else 1.0 if count % 4 in (0, 3) else 10.0))
    assert claim.gains["ttft"].low == 0.0
    assert claim.verdict("ttft") is Verdict.UNDECIDED
    assert claim.verdict("tok") is Verdict.BETTER


def test_json_is_strict_and_has_the_verdicts() -> None:
    claim = claimed(Shop(1.5, ttft=lambda count: math.inf if count == 1 else 10.0))
    found = json.loads(json.dumps(claim_json(claim), allow_nan=False))
    assert found["claim"] is True and found["joint_confidence"] == 0.95
    assert found["gains"]["tok"]["verdict"] == "better"
    assert found["gains"]["tok"]["claimed"] == claim.gains["tok"].low
    assert found["gains"]["ttft"]["high"] is None
    assert claim.gains["ttft"].high == math.inf
