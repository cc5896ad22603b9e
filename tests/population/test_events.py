"""Events survive their JSON exactly, and their JSON is strict."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from typing import NoReturn

import pytest
from hypothesis import given

from population.candidate import Operator, Proposal
from population.evaluation import Place, Rejected, Scored, Stage
from population.event_json import decode, encode
from population.events import Ended, Event, Proposed, Stopped
from tests.population.strategies import EVENT


def refuse(literal: str) -> NoReturn:
    raise AssertionError(literal)


@given(EVENT)
def test_round_trip(event: Event) -> None:
    line = encode(event)
    assert decode(line) == event
    assert type(decode(line)) is type(event)
    json.loads(line, parse_constant=refuse)
    assert b"\n" not in line and line.isascii()


def test_knob_types_survive() -> None:
    knobs = {"a": 1, "b": 1.0, "c": "1", "d": "inf"}
    found = decode(encode(Proposed(proposal=Proposal(number=1, operator=Operator.TUNE, knobs=knobs))))
    assert isinstance(found, Proposed)
    assert [type(v) for v in found.proposal.knobs.values()] == [int, float, str, str]


def test_infinity_is_the_string_inf() -> None:
    line = encode(Ended(number=1, evaluation=Scored(samples={"m": (math.inf, 1.0)})))
    assert b'"m":["inf",1.0]' in line


def test_nan_is_refused_on_the_way_in() -> None:
    with pytest.raises(ValueError, match="NaN"):
        encode(Stopped(reason="x", elapsed_s=math.nan))


def test_a_hostile_candidates_text_cannot_break_the_record() -> None:
    evidence = "\ud800\x00\x1b[2J\u2028\n nan Infinity"
    found = decode(encode(Ended(number=1, evaluation=Rejected(stage=Stage.BOOT, reason="nan", evidence=evidence))))
    assert isinstance(found, Ended) and isinstance(found.evaluation, Rejected)
    assert found.evaluation.evidence == "\ufffd\x00\x1b[2J\u2028\n nan Infinity"


@pytest.mark.parametrize(
    "line",
    [
        b'{"kind":"stopped","reason":"x","elapsed_s":NaN}',
        b'{"kind":"stopped","reason":"x","elapsed_s":Infinity}',
        b'{"kind":"stopped","reason":"x","elapsed_s":"nan"}',
        b'{"kind":"stopped","reason":"x","extra":1}',
        b'{"kind":"stopped"}',
        b'{"kind":"unheard"}',
        b'{"kind":"stopped","reason":"x"',
        b'{"kind":"ended","number":1,"evaluation":{"kind":"scored","samples":{},"surprise":1}}',
    ],
)
def test_anything_else_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode(line)


def test_a_record_older_than_the_place_still_loads() -> None:
    event = decode(b'{"kind":"ended","number":1,"evaluation":{"kind":"scored","samples":{}},"elapsed_s":2.5}')
    assert isinstance(event, Ended) and event.place is None


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (Place(node="n", gpus=("0",), cpus=(0, 1, 2, 3)), "n GPU 0 CPUs 0–3"),
        (Place(node="n", gpus=("1", "GPU-5f"), cpus=(7,)), "n GPUs 1 GPU-5f CPU 7"),
        (Place(node="n", cpus=(0, 2, 3)), "n CPUs 0 2–3"),
        (Place(node="n"), "n"),
    ],
)
def test_a_place_is_said_in_few_words(place: Place, words: str) -> None:
    assert str(place) == words


def test_importing_the_events_does_not_import_pydantic() -> None:
    script = "import sys, population.replay, population.ledger; sys.exit('pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_stopped_keeps_its_words() -> None:
    assert decode(encode(Stopped(reason="banana split"))) == Stopped(reason="banana split")
