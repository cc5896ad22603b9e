"""Pairs that a neighbour disturbed are measured again, and what stays disturbed is no claim."""

from __future__ import annotations

from dataclasses import dataclass, replace

from population.evaluation import Scored
from tests.vibeserve.test_claims import OBJECTIVES, SIDES, Shop
from vibeserve.claims import Claim, Verdict, claim_json, measure_claim
from vibeserve.executor import Evaluated, MeasureTask
from vibeserve.inline import InlineExecutor, Progress

OURS = 3.0
NOISE = 100.0


@dataclass
class Street(Shop):
    """A shop whose measurements are worthless, and say so, while `disturbed` of them are left."""

    disturbed: int = 0

    def measure(self, task: MeasureTask, progress: Progress) -> Evaluated:
        found = super().measure(task, progress)
        assert isinstance(found.evaluation, Scored)
        if len(self.tasks) > self.disturbed:
            return found
        samples = {name: tuple(NOISE * v for v in values) for name, values in found.evaluation.samples.items()}
        return replace(found, evaluation=Scored(samples=samples, flags=("noisy",)))


def claimed(shop: Shop, said: list[str]) -> Claim:
    return measure_claim(SIDES, InlineExecutor(shop), OBJECTIVES, 5, 10, said.append)


def test_disturbed_pairs_are_measured_again_and_do_not_count() -> None:
    shop, said = Street(OURS, disturbed=5), list[str]()
    claim = claimed(shop, said)
    assert claim.discarded == 3
    assert (claim.pairs, claim.flags, claim.shortfalls) == (10, (), ())
    assert 2.8 < claim.gains["tok"].low < claim.gains["tok"].high < 3.2
    assert [task.commit for task in shop.tasks] == ["ours", "seed"] * 4 + ["seed", "ours", "ours", "seed"] * 4 + [
        "seed",
        "ours",
    ]
    seeds = [task.content_seed for task in shop.tasks]
    assert len(set(seeds)) == 13
    assert sum("measured again" in text for text in said) == 3


def test_what_stays_noisy_is_no_claim() -> None:
    shop = Street(OURS, disturbed=1000)
    claim = claimed(shop, [])
    assert len(shop.tasks) == 40  # ten pairs, and ten more
    assert claim.discarded == 10
    assert claim.flags == ("noisy",)
    assert claim.verdict("tok") is Verdict.NONE
    assert claim.claimed("tok") is None
    (why,) = claim.shortfalls
    assert "also when 10 pairs were measured again" in why
    assert claim_json(claim)["discarded_pairs"] == 10
