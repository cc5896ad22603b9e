"""What one answer may look like, line by line: each rule has a broken answer that only it refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from evaluators.load.endpoint import Endpoint
from evaluators.load.exchange import Exchange
from evaluators.load.record import Failure, Request
from evaluators.load.verify import ProtocolError

VOCAB = tuple(f" t{number}" for number in range(100))
ENDPOINT = Endpoint(url="http://127.0.0.1:1", vocab=VOCAB, prompt_ids=(0, 99), max_tokens_per_chunk=2)
REQUEST = Request(id="x/0.0", load="x", prompt_ids=[7, 8, 9], max_tokens=4)
USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}

Event = dict[str, Any]


def chunk(*ids: int, reason: str | None = None, **change: Any) -> Event:
    choice = {"index": 0, "text": "".join(VOCAB[i] for i in ids), "token_ids": list(ids), "finish_reason": reason}
    return {"choices": [choice | change]}


def good(**usage: Any) -> list[Event]:
    return [chunk(1), chunk(2, 3), chunk(4, reason="length"), {"choices": [], "usage": USAGE | usage}]


def answer(events: list[Event], request: Request = REQUEST, endpoint: Endpoint = ENDPOINT) -> Exchange:
    """The exchange after the whole stream, or the ProtocolError that ended it."""
    exchange = Exchange(request, endpoint)
    exchange.sent_s = 0.0
    for number, event in enumerate(events):
        exchange.feed(b"data: " + json.dumps(event).encode(), float(number + 1))
    exchange.feed(b"data: [DONE]", 9.0)
    exchange.conclude()
    exchange.end_s = 9.0
    return exchange


def fault(events: list[Event], request: Request = REQUEST, endpoint: Endpoint = ENDPOINT) -> Failure | None:
    try:
        answer(events, request, endpoint)
    except ProtocolError as error:
        return error.failure
    return None


def test_a_good_answer() -> None:
    exchange = answer(good())
    assert exchange.output_ids == [1, 2, 3, 4]
    assert exchange.response(0.0, 10.0).completed


@pytest.mark.parametrize(
    ("events", "kind"),
    [
        ([chunk(1, 2, 3), chunk(4, reason="length"), good()[-1]], "too-many-tokens-per-chunk"),
        ([chunk(1, 2), chunk(3, 4, reason="length"), chunk(5), good()[-1]], "tokens-after-finish"),
        ([chunk(1, 2), chunk(3, 4, reason="length"), chunk(reason="stop"), good()[-1]], "bad-finish-reason"),
        ([chunk(1, 2), chunk(3, 4, reason="done"), good()[-1]], "bad-finish-reason"),
        ([chunk(1, 2), chunk(3, 4, reason=True), good()[-1]], "bad-finish-reason"),  # type: ignore[arg-type]
        ([chunk(1, 2, index=1), chunk(3, 4, reason="length"), good()[-1]], "bad-choices"),
        ([chunk(1, 2, index=False), chunk(3, 4, reason="length"), good()[-1]], "bad-choices"),
        (good(prompt_tokens=3.0), "bad-usage"),
        (good(prompt_tokens=-3), "bad-usage"),
        (good(total_tokens=True), "bad-usage"),
        (good(total_tokens=8), "usage-mismatch"),
        (good(completion_tokens=4.0), "bad-usage"),
        (good(completion_tokens=10**30), "usage-mismatch"),
    ],
)
def test_each_rule_refuses(events: list[Event], kind: str) -> None:
    found = fault(events)
    assert found is not None
    assert found.kind == kind
    assert found.evidence


def test_only_a_token_is_a_first_token() -> None:
    """Neither a role, nor an empty chunk; whitespace without an id is not even allowed."""
    role = {"choices": [{"index": 0, "text": "", "delta": {"role": "assistant"}}]}
    assert answer([role, chunk(), chunk(text=""), *good()]).response(0.0, 10.0).first_s == 4.0
    found = fault([{"choices": [{"index": 0, "text": " \n"}]}, *good()])
    assert found is not None
    assert found.kind == "no-token-ids"
    lenient = replace(ENDPOINT, strict=False)
    plain = [{"choices": [{"index": 0, "text": text}]} for text in (" ", "\n", " t1", " t2 t3 t4")]
    plain[-1]["choices"][0]["finish_reason"] = "length"
    assert answer([*plain, good()[-1]], endpoint=lenient).response(0.0, 10.0).first_s == 3.0


def test_undeclared_chunks_may_hold_anything() -> None:
    events = [chunk(1, 2, 3, 4, reason="length"), good()[-1]]
    assert fault(events, endpoint=replace(ENDPOINT, max_tokens_per_chunk=None)) is None
    assert any("max_tokens_per_chunk" in text for text in replace(ENDPOINT, max_tokens_per_chunk=0).problems())


STOPPED = replace(REQUEST, stop=("t3",), max_tokens=8)


def stopped(*events: Event, tokens: int = 3) -> list[Event]:
    return [*events, {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": tokens}}]


def test_a_stop_string_cuts_the_text() -> None:
    assert fault(stopped(chunk(1), chunk(2, 3, reason="stop", text=" t2 ")), STOPPED) is None
    # A step that brought more tokens than were needed may still name them all.
    over = stopped(chunk(1), chunk(2), chunk(3, 4, reason="stop", text=" "), tokens=4)
    assert fault(over, STOPPED) is None


@pytest.mark.parametrize(
    ("events", "kind"),
    [
        (stopped(chunk(1), chunk(2, 3, reason="stop")), "stop-ignored"),
        (stopped(chunk(1), chunk(2, 3, reason="stop", text=" t2")), "text-mismatch"),
        (stopped(chunk(1), chunk(2), chunk(reason="stop"), tokens=2), "early-stop"),
    ],
)
def test_stop_is_kept(events: list[Event], kind: str) -> None:
    found = fault(events, STOPPED)
    assert found is not None
    assert found.kind == kind


def test_a_stop_string_that_came_ends_the_answer() -> None:
    request = replace(STOPPED, max_tokens=3)
    found = fault(stopped(chunk(1), chunk(2, 3, reason="length", text=" t2 ")), request)
    assert found is not None
    assert found.kind == "stop-ignored"


def test_what_was_cut_off_is_checked_as_far_as_it_came() -> None:
    def cut(*events: Event) -> Failure | None:
        exchange = Exchange(REQUEST, ENDPOINT)
        for event in events:
            exchange.feed(b"data: " + json.dumps(event).encode(), 1.0)
        response = exchange.response(0.0, 5.0)
        assert response.censored
        return response.failure

    assert cut(chunk(1), chunk(2)) is None
    assert cut(chunk(1), chunk(2, text="")) is None  # text may lag behind its ids
    assert cut() is None
    wrong = cut(chunk(1), chunk(2, text=" t5"))
    assert wrong is not None
    assert wrong.kind == "text-mismatch"


def test_enough_is_only_asked_of_answers_that_go_on() -> None:
    exchange = Exchange(replace(REQUEST, enough_tokens=2), ENDPOINT)
    exchange.feed(b"data: " + json.dumps(chunk(1)).encode(), 1.0)
    assert not exchange.enough
    exchange.feed(b"data: " + json.dumps(chunk(2, 3)).encode(), 2.0)
    assert exchange.enough
    exchange.feed(b"data: [DONE]", 3.0)
    assert not exchange.enough


def test_bodies_differ_in_what_was_asked_for_only() -> None:
    def body(request: Request) -> dict[str, Any]:
        return dict(json.loads(Exchange(request, ENDPOINT).body))

    timed = body(REQUEST)
    assert body(replace(REQUEST, enough_tokens=2, purpose="echo", id="y", load="y")) == timed
    assert body(replace(REQUEST, stop=("a",))) == timed | {"stop": ["a"]}
    assert body(replace(REQUEST, seed=5, temperature=0.5)) == timed | {"seed": 5, "temperature": 0.5}
