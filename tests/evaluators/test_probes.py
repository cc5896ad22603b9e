"""Probes: a secret few of the timed answers, asked again; known prompts must still cost computing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest

from evaluators.audit import sample_responses
from evaluators.load.endpoint import Endpoint
from evaluators.load.record import Failure, Request, Response
from evaluators.load.session import LoadSession
from evaluators.load.workload import Load
from evaluators.probes import (
    ECHO,
    ENOUGH_TOKENS,
    LEAD,
    MOST_PAIRS,
    PROBE,
    Probing,
    mark_probes,
    refused,
    remembered,
    unseeded,
)
from population.evaluation import Rejected
from tests.evaluators.test_audit import response
from tests.evaluators.toy_server import VOCAB, Script, ToyServer


def timed(count: int, load: str = "high") -> list[Response]:
    return [response(i, load=load, sent_s=i / 10, end_s=i / 10 + 1) for i in range(count)]


def probes_of(responses: list[Response], seed: int = 1) -> list[str]:
    return [r.id for r in mark_probes(responses, seed) if r.purpose == PROBE]


@pytest.mark.parametrize(("count", "probes"), [(1, 1), (10, 2), (100, 3), (140, 4), (5000, 150)])
def test_a_few_percent_are_probes(count: int, probes: int) -> None:
    assert len(probes_of(timed(count))) == probes


def test_nothing_but_the_secret_tells_which() -> None:
    picks = {tuple(probes_of(timed(100), seed)) for seed in range(20)}
    assert len(picks) == 20
    assert probes_of(timed(100), 7) == probes_of(timed(100), 7)
    changed = [replace(r, purpose="timed") for r in mark_probes(timed(100), 7)]
    assert changed == timed(100)


def test_every_load_has_probes_and_only_answers_are() -> None:
    loads = Counter(name.partition("/")[0] for name in probes_of(timed(90) + timed(20, "low")))
    assert set(loads) == {"high", "low"}
    failed = [replace(r, failure=Failure(kind="timeout", evidence="")) for r in timed(9)]
    silent = [replace(r, output_ids=[]) for r in timed(9, "low")]
    warm = [replace(r, purpose="warmup") for r in timed(9, "x")]
    assert probes_of(failed + silent + warm) == []


def test_probes_and_echoes_are_always_audited_and_sampled_answers_never() -> None:
    marked = mark_probes(timed(100), 3)
    echoes = [replace(r, id=f"{r.id}~alone0", purpose=ECHO) for r in timed(3)]
    others = [replace(r, id=f"{r.id}~{p}", purpose=p) for r in timed(2) for p in ("seed", "stop", "fresh")]
    chosen = [item.response for item in sample_responses(marked + echoes + others, 10, seed=5)]
    assert {r.id for r in chosen} >= set(probes_of(timed(100), 3)) | {r.id for r in echoes}
    assert Counter(r.purpose for r in chosen) == {"timed": 7, PROBE: 3, ECHO: 3}


def test_runs_of_one_load_are_no_crowd_for_each_other() -> None:
    first, second = ([replace(r, id=f"{n}:{r.id}") for r in timed(1)] for n in range(2))
    assert [item.occupancy for item in sample_responses(first + second, 2, seed=1)] == [1, 1]


def answer(purpose: str, first_s: float, per_token_s: float, tokens: int = 5) -> Response:
    chunks = [first_s + per_token_s * k for k in range(tokens)]
    return replace(
        response(1), purpose=purpose, sent_s=0.0, first_s=chunks[0], last_s=chunks[-1], chunk_s=chunks,
        chunk_tokens=[1] * tokens, output_ids=list(range(tokens)),
    )  # fmt: skip


FRESH = answer("fresh", 0.030, 0.010)


@pytest.mark.parametrize(
    ("echo", "said"),
    [
        (answer(ECHO, 0.030, 0.010), None),
        (answer(ECHO, 0.009, 0.010), None),  # a prefix cache: one step, then as before
        (answer(ECHO, 0.010, 0.0015), None),  # guesses from what was said before, verified
        (answer(ECHO, 0.001, 0.010), "its first token came after 1 ms"),
        (answer(ECHO, 0.0005, 0.0001), "answered from memory"),
        (answer(ECHO, 0.0055, 0.0, tokens=64), "ms per token"),
        (replace(answer(ECHO, 0.001, 0.0), first_s=None), None),
    ],
)
def test_known_prompts_must_cost_a_step(echo: Response, said: str | None) -> None:
    for pair in ([FRESH, echo], [echo, FRESH]):
        found = remembered(pair)
        assert (found is None) if said is None else (found is not None and said in found)


@pytest.mark.parametrize(
    ("echo", "per_step", "said"),
    [
        (answer(ECHO, 0.030, 0.0001, tokens=17), 8, "its 17 tokens came within 1.6 ms"),
        (answer(ECHO, 0.030, 0.0001, tokens=17), None, None),
        (answer(ECHO, 0.030, 0.0001, tokens=8), 8, None),  # all of them guessed, and verified by the first step
        (answer(ECHO, 0.030, 0.00125, tokens=17), 8, None),  # guessed, and verified by two steps more
    ],
)
def test_tokens_beyond_one_step_must_cost_further_steps(echo: Response, per_step: int | None, said: str | None) -> None:
    """However long the way to the server is."""
    found = remembered([FRESH, echo], per_step)
    assert (found is None) if said is None else (found is not None and said in found)


def test_without_a_pace_nothing_is_said() -> None:
    memory = answer(ECHO, 0.0001, 0.0)
    assert remembered([answer("fresh", 0.03, 0.01, tokens=2), memory]) is None
    assert remembered([memory]) is None
    # A server that is fast in everything is nobody's memory.
    assert remembered([answer("fresh", 0.0001, 0.00005), memory]) is None


class Scripted(LoadSession):
    """Pairs that look as they are told, one letter each; nobody in the crowd.

    M: memory, C: computing, X: the second of the two is not answered in time.
    """

    def __init__(self, looks: str) -> None:
        super().__init__(Endpoint(url="http://127.0.0.1:1", vocab=VOCAB, prompt_ids=(0, 999)), [LOAD])
        self.looks = list(looks)
        self.halves = 0

    def ask(self, requests: Sequence[Request], window_s: float, *, in_turn: bool) -> list[Response]:
        if not in_turn:
            return []
        (request,) = requests
        self.halves += 1
        second = self.halves % 2 == 0
        look = self.looks.pop(0) if second else self.looks[0]
        if look == "X" and second:
            return []
        echo = answer(ECHO, 0.001, 0.0001) if look == "M" else answer(ECHO, 0.030, 0.010)
        return [echo if request.purpose == ECHO else FRESH]


@pytest.mark.parametrize(
    ("looks", "remembers", "unasked"),
    [
        ("CCC" + "M", False, 1),
        ("MMM" + "C", True, 1),
        ("CMCCC", False, 0),  # a client that stalled once
        ("CMMMM", True, 0),  # a server that stalled once: the first pair clears nobody
        ("MCMMCMM", True, 0),
        ("MC" * 6 + "M", False, 1),  # nobody is condemned on a draw
        ("MC" * 5 + "MM" + "M", False, 1),  # nor on a lead that another stall could have made
        ("XXXMXMXM", True, 0),  # what was cut off clears nobody
        ("X" * 12 + "M", False, 1),
    ],
)
def test_a_lead_decides_not_one_pair(looks: str, remembers: bool, unasked: int) -> None:
    session = Scripted(looks)
    found = Probing(session=session, loads=[LOAD], seed=4).ask_again(timed(9), 2.0)
    assert isinstance(found, Rejected) == remembers
    assert len(session.looks) == unasked


def test_seeds_are_compared_as_far_as_both_came() -> None:
    def sampled(*ids: int) -> Response:
        return replace(response(1), purpose="seed", output_ids=list(ids))

    assert unseeded([sampled(1, 2, 3), sampled(1, 2)]) is None
    assert unseeded([sampled(1, 2, 3)]) is None
    assert unseeded([sampled(1), sampled()]) is None
    said = unseeded([sampled(1, 2, 3), sampled(1, 9, 3)])
    assert said is not None
    assert "[1, 2, 3] and [1, 9, 3]" in said


def test_what_is_unusual_must_not_be_sent_away() -> None:
    echo, seeded = answer(ECHO, 0.03, 0.01), answer("seed", 0.03, 0.01)
    away = Failure(kind="http-status", evidence="503 busy")
    assert refused([echo, seeded]) is None
    said = refused([echo, replace(seeded, failure=away)])
    assert said is not None
    assert "a request with 'seed' is refused while others are served: http-status, 503 busy" in said
    assert refused([replace(echo, failure=away), replace(seeded, failure=away)]) is None  # overloaded


LOAD = Load(name="high", rate_per_s=15.0, window_s=1.0, input_tokens=(6, 6), output_tokens=(30, 30))


def asked_again(script: Script) -> tuple[tuple[Response, ...] | Rejected, ToyServer]:
    with ToyServer(script) as server:
        endpoint = Endpoint(url=server.url, vocab=VOCAB, prompt_ids=(0, 999))
        with LoadSession(endpoint, [LOAD]) as session:
            timed = session.run(LOAD, 1, 2).responses
            before = len(server.seen)
            # As after a minute of loads: time enough for a machine that is busy with other things.
            found = Probing(session=session, loads=[LOAD], seed=4).ask_again(timed, 60.0)
        server.seen = server.seen[before:]
    return found, server


def test_probes_are_asked_alone_and_in_a_crowd() -> None:
    found, server = asked_again(Script(first_s=0.02, per_token_s=0.01))
    assert not isinstance(found, Rejected), found
    prompts = {tuple(r.prompt_ids) for r in found if r.purpose == PROBE}
    echoes = [r for r in found if r.purpose == ECHO]
    assert {tuple(r.prompt_ids) for r in echoes} <= prompts
    pairs = sum("~alone" in r.id for r in echoes)
    assert LEAD <= pairs <= MOST_PAIRS  # a machine that stalls makes a pair mislead; another is asked then
    assert len(echoes) == pairs + 2
    assert {r.max_tokens for r in echoes} == {30}  # their shape is that of timed ones
    assert all(r.tokens >= ENOUGH_TOKENS for r in echoes)
    assert any(r.tokens < 30 and r.censored for r in echoes)  # the client hung up, unless it stalled
    bodies = [seen.body for seen in server.seen]
    assert [seen.in_flight for seen in server.seen[: 2 * pairs]] == [1] * 2 * pairs
    assert {key for body in bodies for key in body} == set(bodies[0]) | {"stop", "seed"}
    fresh = [b for b in bodies if tuple(b["prompt"]) not in prompts and "seed" not in b]
    assert [len(b["prompt"]) for b in fresh] == [6] * pairs
    assert sum("stop" in body for body in bodies) == 1
    assert len({body["seed"] for body in bodies if "seed" in body}) == 1


def test_a_server_whose_small_writes_wait_is_nobodys_memory() -> None:
    """On a connection that was used before, Linux acknowledges late: there an answer comes all at once after 40 ms."""
    with ToyServer(Script(first_s=0.002, per_token_s=0.001, nagle=True)) as server:
        endpoint = Endpoint(url=server.url, vocab=VOCAB, prompt_ids=(0, 999), max_tokens_per_chunk=16)
        with LoadSession(endpoint, [LOAD]) as session:
            timed = session.run(LOAD, 1, 2).responses
            for seed in range(5):
                found = Probing(session=session, loads=[LOAD], seed=seed).ask_again(timed, 60.0)
                assert not isinstance(found, Rejected), found.reason


@pytest.mark.parametrize(
    ("fault", "said"),
    [("memory", "answered from memory"), ("unseeded", "'seed' is ignored"), ("ignores-stop", "stop-ignored")],
)
def test_what_only_shows_when_asked_again(fault: str, said: str) -> None:
    found, _ = asked_again(Script(first_s=0.02, per_token_s=0.01, fault=fault))
    assert isinstance(found, Rejected)
    assert said in found.reason
