"""Which machines a run measures on: refused, narrowed or accepted by the user, never mixed in silence."""

from __future__ import annotations

import pytest

from population.errors import ConfigError, RunError
from population.evaluation import Place, Rejected, Stage
from population.event_json import decode, encode
from population.events import Ended
from vibeserve.same_hardware import Surveyed, choose, differences, recorded

H200 = {"CPU": "a CPU", "GPU": "NVIDIA H200", "GPU power limit": "700 W"}
CAPPED = {**H200, "GPU power limit": "500 W"}
H100 = {**H200, "GPU": "NVIDIA H100"}
BOTH = {**H200, "GPU": "NVIDIA H100 + NVIDIA H200"}


def machine(name: str, fingerprint: dict[str, str], slots: int = 2) -> Surveyed:
    return Surveyed(id=name, name=name, slots=slots, fingerprint=fingerprint)


def test_one_kind_is_used_whole() -> None:
    stratum = choose([machine("a", H200), machine("b", dict(H200))], None, "refuse")
    assert stratum.members == {"a", "b"}
    assert stratum.expected == H200
    assert stratum.notes == ()
    assert stratum.admits(H200) and not stratum.admits(CAPPED)


def test_a_mixed_pool_is_refused_with_what_differs_and_the_cure() -> None:
    pool = [
        machine("a", H200),
        machine("b", H200),
        machine("c", CAPPED),
        machine("d", CAPPED, slots=1),
        machine("e", H100),
    ]
    with pytest.raises(ConfigError) as refused:
        choose(pool, None, "refuse")
    text = str(refused.value)
    assert "c, d has GPU power limit 500 W, not 700 W" in text
    assert "e has GPU NVIDIA H100, not NVIDIA H200" in text
    assert "accelerator_type" in text and "mixed_hardware=stratify" in text


def test_stratified_the_kind_with_most_slots_is_used_and_the_rest_named() -> None:
    pool = [machine("a", H100, slots=1), machine("b", H200, slots=8), machine("c", H100, slots=2)]
    stratum = choose(pool, None, "stratify")
    assert stratum.members == {"b"}
    assert stratum.expected == H200
    assert "a, c has GPU NVIDIA H100" in stratum.notes[0]


def test_a_run_that_goes_on_stays_with_the_kind_it_began_with_however_many_there_are_of_another() -> None:
    pool = [machine("a", H100, slots=1), machine("b", H200, slots=8)]
    assert choose(pool, H100, "stratify").members == {"a"}
    with pytest.raises(ConfigError, match="b has GPU NVIDIA H200, not NVIDIA H100"):
        choose(pool, H100, "refuse")


@pytest.mark.parametrize("rule", ["refuse", "stratify"])
def test_other_hardware_than_before_is_refused(rule: str) -> None:
    with pytest.raises(RunError) as refused:
        choose([machine("a", CAPPED)], H200, rule)  # type: ignore[arg-type]
    assert "a has GPU power limit 500 W, not 700 W" in str(refused.value)
    assert "-s cluster.mixed_hardware=accept" in str(refused.value)


def test_who_accepts_a_mixture_gets_it_with_a_warning() -> None:
    stratum = choose([machine("a", H200), machine("b", H100)], H200, "accept")
    assert stratum.members == {"a", "b"}
    assert stratum.expected is None and stratum.admits(CAPPED)
    assert stratum.notes[0].startswith("warning") and "b has GPU NVIDIA H100" in stratum.notes[0]
    assert choose([machine("a", H200)], H200, "accept").notes == ()


@pytest.mark.parametrize("rule", ["refuse", "stratify"])
def test_a_node_with_gpus_of_two_kinds_is_nobodys_equal_not_even_its_twins(rule: str) -> None:
    with pytest.raises(ConfigError, match=r"GPU NVIDIA H100 \+ NVIDIA H200 in one node"):
        choose([machine("a", BOTH), machine("b", BOTH)], None, rule)  # type: ignore[arg-type]
    assert choose([machine("a", BOTH, slots=9), machine("b", H200)], H200, "stratify").members == {"b"}


def test_a_fact_that_only_one_side_has_differs() -> None:
    assert differences({"CPU": "x"}, {"CPU": "x", "torch": "2.11"}) == ["torch 2.11, not none"]
    assert differences({"CPU": "x", "torch": "2.11"}, {"CPU": "x"}) == ["torch none, not 2.11"]


def test_the_first_measurement_on_record_is_what_counts() -> None:
    verdict = Rejected(stage=Stage.BOOT, reason="no")
    silent = Ended(number=0, evaluation=verdict, place=Place(node="old"))
    first = Ended(number=1, evaluation=verdict, place=Place(node="a", fingerprint=H200))
    later = Ended(number=2, evaluation=verdict, place=Place(node="a", fingerprint=H100))
    assert recorded([silent, first, later]) == H200
    assert recorded([silent]) is None
    read = decode(encode(first))
    assert isinstance(read, Ended) and read.place is not None and read.place.fingerprint == H200
