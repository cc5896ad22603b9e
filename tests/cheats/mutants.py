"""Decides what is switched off to show that each check is needed: a mutant, and the cheat that it lets through.

A mutant replaces one check by one that is always content. `then` says what becomes of the cheat: it is scored, its
trick is rewarded, or it gets as far as the next line of defence.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from evaluators.load import client, exchange, metrics
from evaluators.load.exchange import Exchange
from population.errors import InfrastructureError
from population.evaluation import Rejected
from tests.cheats.corpus import Cheat
from tests.cheats.ground import Conditions, Ground

Switch = Callable[[pytest.MonkeyPatch], None]
SCORED, FAULT = "scored", "fault"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One check that is switched off."""

    check: str
    """In words, unique."""
    cheat: str
    switch: Switch = lambda _: None
    settings: Mapping[str, str] = field(default_factory=dict)
    """Lines of the target's settings → what stands there instead."""
    plain: bool = False
    """Without a sandbox."""
    then: str = SCORED
    """`scored`, the stage at which the next check rejects, or `fault`: our own machinery is blamed for it."""
    effect: str = ""
    """Regular expression in what the witnesses then see."""
    sample: bool = False
    """Tried by the tests too, not only by `python -m benchmarks.cheats.mutants`."""


def without(place: str, result: Any = None) -> Switch:
    """A function of ours that says nothing any more."""
    return lambda patch: patch.setattr(place, lambda *_, **__: result)


def _any_chunk_is_a_token(patch: pytest.MonkeyPatch) -> None:
    """TTFT as `vllm bench serve` takes it: the first chunk with choices."""
    choice = Exchange._choice

    def counted(self: Exchange, found: dict[str, Any], now: float) -> None:
        if not self.chunk_s:
            self.chunk_s, self.chunk_tokens = [now], [0]
            self.output_ids = []
        choice(self, found, now)

    patch.setattr(Exchange, "_choice", counted)
    _untimed_without_tokens(patch)


def _any_line_is_a_token(patch: pytest.MonkeyPatch) -> None:
    feed = Exchange.feed

    def counted(self: Exchange, line: bytes, now: float) -> None:
        if not self.chunk_s:
            self.chunk_s, self.chunk_tokens = [now], [0]
            self.output_ids = []
        feed(self, line, now)

    patch.setattr(Exchange, "feed", counted)
    _untimed_without_tokens(patch)


def _untimed_without_tokens(patch: pytest.MonkeyPatch) -> None:
    """An answer that was cut off between its false first token and its first has no TPOT."""
    tpot = metrics.tpot
    patch.setattr(metrics, "tpot", lambda response: tpot(response) if response.tokens else None)


def _text_is_believed(patch: pytest.MonkeyPatch) -> None:
    """Where it is never compared with the ids, where a stop string ends is not either."""
    patch.setattr(exchange, "check_text", lambda *_, **__: None)
    patch.setattr(exchange, "check_stop", lambda *_: None)


def _unlimited_tokens(patch: pytest.MonkeyPatch) -> None:
    def arrived(self: Exchange, count: int, now: float) -> None:
        self.tokens += count
        self.chunk_s.append(now)
        self.chunk_tokens.append(count)

    patch.setattr(Exchange, "_arrived", arrived)


def _ends_anyhow(patch: pytest.MonkeyPatch) -> None:
    conclude = Exchange.conclude

    def concluded(self: Exchange) -> None:
        self.done = True
        conclude(self)

    patch.setattr(Exchange, "conclude", concluded)


def _ignores_garbage(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(exchange, "IGNORED_FIELDS", (b"",))


async def _no_rest(*_: object) -> None:
    """Nobody looks behind [DONE]."""


def _deaf_after_done(patch: pytest.MonkeyPatch) -> None:
    feed = Exchange.feed

    def fed(self: Exchange, line: bytes, now: float) -> None:
        if not self.done:
            feed(self, line, now)

    patch.setattr(Exchange, "feed", fed)
    patch.setattr(client.Client, "_finish_body", _no_rest)


def _lenient_json(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(exchange, "_DECODER", exchange.json.JSONDecoder())


def _first_choice_of_many(patch: pytest.MonkeyPatch) -> None:
    event = Exchange._event

    def first(self: Exchange, payload: bytes, now: float) -> None:
        found = exchange.json.loads(payload)
        found["choices"] = found.get("choices", [])[:1]
        event(self, exchange.json.dumps(found).encode(), now)

    patch.setattr(Exchange, "_event", first)


def _errors_are_ignored(patch: pytest.MonkeyPatch) -> None:
    def failed_quietly(self: Exchange) -> None:
        self.done = True

    patch.setattr(Exchange, "conclude", failed_quietly)
    event = Exchange._event

    def deaf(self: Exchange, payload: bytes, now: float) -> None:
        if b'"error"' not in payload:
            event(self, payload, now)

    patch.setattr(Exchange, "_event", deaf)


def _failures_are_left_out(patch: pytest.MonkeyPatch) -> None:
    summarise = metrics.summarise
    patch.setattr(
        "evaluators.load.result.summarise",
        lambda load, responses, wall_s: summarise(load, [r for r in responses if r.failure is None], wall_s),
    )


def _cut_off_are_left_out(patch: pytest.MonkeyPatch) -> None:
    summarise = metrics.summarise
    patch.setattr(
        "evaluators.load.result.summarise",
        lambda load, responses, wall_s: summarise(load, [r for r in responses if r.first_s is not None], wall_s),
    )


def _unlimited_log(patch: pytest.MonkeyPatch) -> None:
    from evaluators import server

    launch = server.Launch
    patch.setattr(server, "Launch", lambda **given: launch(**given, log_limit_bytes=1 << 30))


def _text_as_it_is(patch: pytest.MonkeyPatch) -> None:
    for module in ("judge", "process", "command"):
        patch.setattr(f"evaluators.{module}.printable", lambda text: text, raising=False)


_AUDIT = without("evaluators.pipeline.audit", {"tokens": 0.0})


def _neither_roofline_nor_audit(patch: pytest.MonkeyPatch) -> None:
    without("evaluators.repeat.impossible")(patch)
    _AUDIT(patch)


_RESTART = {"restart_after_checker = true": "restart_after_checker = false"}

MUTANTS = (
    Mutant(check="a first token has ids", cheat="empty-first-chunk", switch=_any_chunk_is_a_token, sample=True),
    Mutant(check="a role is no token", cheat="role-only-first-chunk", switch=_any_chunk_is_a_token),
    Mutant(check="a comment is no token", cheat="comment-as-first-token", switch=_any_line_is_a_token),
    Mutant(check="completion_tokens", cheat="inflated-usage", switch=without("evaluators.load.exchange.check_usage")),
    Mutant(
        check="prompt_tokens", cheat="prompt-tokens-understated", switch=without("evaluators.load.exchange.check_usage")
    ),
    Mutant(
        check="text of ids",
        cheat="ids-that-are-not-the-text",
        switch=_text_is_believed,
        sample=True,
    ),
    Mutant(
        check="ids in the vocabulary",
        cheat="truth-values-as-ids",
        switch=without("evaluators.load.exchange.check_ids"),
        then=FAULT,
    ),
    Mutant(
        check="tokens per chunk",
        cheat="twelve-tokens-in-a-chunk",
        settings={"max_tokens_per_chunk = 8": ""},
        sample=True,
    ),
    Mutant(
        check="tokens per chunk and roofline",
        cheat="one-burst-at-the-end",
        settings={"max_tokens_per_chunk = 8": ""},
        switch=without("evaluators.repeat.impossible"),
    ),
    Mutant(check="at most max_tokens", cheat="longer-than-asked", switch=_unlimited_tokens),
    Mutant(
        check="at least max_tokens", cheat="shorter-than-asked", switch=without("evaluators.load.exchange.check_finish")
    ),
    Mutant(
        check="ignore_eos",
        cheat="stops-early-despite-ignore-eos",
        switch=without("evaluators.load.exchange.check_finish"),
    ),
    Mutant(check="finish_reason", cheat="wrong-finish-reason", switch=without("evaluators.load.exchange.check_finish")),
    Mutant(check="[DONE] comes", cheat="never-says-done", switch=_ends_anyhow),
    Mutant(check="[DONE] is the end", cheat="tokens-after-done", switch=_deaf_after_done),
    Mutant(check="nothing but events", cheat="garbage-behind-the-answer", switch=_ignores_garbage),
    Mutant(check="strict JSON", cheat="not-a-number-in-the-stream", switch=_lenient_json),
    Mutant(check="one choice", cheat="two-choices-for-one", switch=_first_choice_of_many),
    Mutant(check="errors in a stream", cheat="error-body-with-status-200", switch=_errors_are_ignored),
    Mutant(
        check="bytes per token", cheat="never-ending-stream", switch=without("evaluators.load.exchange.Exchange.spend")
    ),
    Mutant(check="failures are infinite", cheat="sheds-most-of-the-load", switch=_failures_are_left_out),
    Mutant(check="cut-off requests are bounds", cheat="sleeps-through-the-window", switch=_cut_off_are_left_out),
    Mutant(check="stop strings", cheat="ignores-stop-strings", switch=without("evaluators.probes._stop_word")),
    Mutant(check="seeds", cheat="ignores-the-seed", switch=without("evaluators.probes.unseeded"), sample=True),
    Mutant(
        check="prompts asked again",
        cheat="memo-by-prompt-hash",
        switch=without("evaluators.probes.remembered"),
        sample=True,
    ),
    Mutant(
        check="roofline", cheat="faster-than-the-hardware", switch=without("evaluators.repeat.impossible"), then="audit"
    ),
    Mutant(
        check="roofline and audit",
        cheat="faster-than-the-hardware",
        switch=_neither_roofline_nor_audit,
    ),
    Mutant(check="audit", cheat="wrong-when-batched", switch=_AUDIT, sample=True),
    Mutant(check="audit of every timed answer", cheat="wrong-for-one-token-in-sixty-four", switch=_AUDIT),
    Mutant(check="checker", cheat="skipped-layer", switch=without("evaluators.pipeline.accuracy_check"), then="audit"),
    Mutant(
        check="smoke", cheat="redirects-the-client", switch=without("evaluators.pipeline.smoke_check"), then="checker"
    ),
    Mutant(
        check="a server that ends is dead",
        cheat="exits-under-load",
        switch=without("evaluators.server.ServerUnderTest.crash"),
    ),
    Mutant(
        check="a fresh process after the checker", cheat="remembers-the-checker", settings=_RESTART, effect="secret"
    ),
    Mutant(
        check="a fresh home after the checker",
        cheat="remembers-the-checker-in-its-home",
        settings=_RESTART,
        effect="secret",
        sample=True,
    ),
    Mutant(check="log limit", cheat="floods-the-log", switch=_unlimited_log, effect="server.log has"),
    Mutant(
        check="printable evidence",
        cheat="escape-sequences-in-the-log",
        switch=_text_as_it_is,
        then="benchmark",
        effect="escape",
    ),
    Mutant(check="private /tmp", cheat="cache-in-tmp", plain=True, effect="left behind", sample=True),
    Mutant(check="private /dev/shm", cheat="cache-in-shared-memory", plain=True, effect="left behind"),
    Mutant(check="nothing else is writable", cheat="cache-in-a-shared-folder", plain=True, effect="left behind"),
    Mutant(check="read-only workspace", cheat="answers-kept-in-the-workspace", plain=True, effect="secret"),
    Mutant(check="the target does not exist", cheat="reads-the-checkers-questions", plain=True, effect="secret"),
    Mutant(check="other workspaces do not exist", cheat="reads-a-siblings-workspace", plain=True, effect="secret"),
    Mutant(check="other processes do not exist", cheat="reads-a-siblings-environment", plain=True, effect="secret"),
    Mutant(check="loopback of its own", cheat="claims-the-port-of-another", plain=True, effect="secret"),
    Mutant(check="no other network", cheat="proxies-elsewhere", plain=True),
)


def problems(mutant: Mutant, cheat: Cheat, ground: Ground) -> list[str]:
    """Where the cheat is stopped although its check is switched off, or ends otherwise than the table says."""
    conditions = Conditions(blind=True, settings=tuple(mutant.settings.items()), plain=mutant.plain)
    ground.target(conditions)
    with pytest.MonkeyPatch.context() as patch:
        mutant.switch(patch)
        try:
            trial = ground.try_out(cheat.tree, conditions)
        except InfrastructureError as error:
            return [] if mutant.then == FAULT else [f"expected the cheat to end as {mutant.then}, got a fault: {error}"]
    ended = trial.evaluation.stage.value if isinstance(trial.evaluation, Rejected) else SCORED
    found = [] if ended == mutant.then else [f"expected the cheat to end as {mutant.then}, got {trial.evaluation}"]
    effects = " ".join(trial.effects)
    if not re.search(mutant.effect, effects) or (effects and not mutant.effect):
        found.append(f"expected {mutant.effect or 'no effect'}, the witnesses saw {effects or 'none'}")
    if not trial.problems(cheat.outcome):
        found.append("expected the fixture to fail without its check, but nothing is different")
    return found
