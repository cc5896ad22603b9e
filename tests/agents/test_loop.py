"""How a conversation goes on, whatever the model and its provider do; without a network."""

from __future__ import annotations

import errno
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest

from population.errors import InfrastructureError, ProviderDown, ProviderRefused
from population.spending import Spending, Usage, summed
from tests.agents.wire import Call
from vibeserve.agents.conversation import Conversation, Stop, ToolCall, Turn
from vibeserve.agents.loop import Dialogue, Ending, Limits, Outcome
from vibeserve.agents.provider import ContextOverflow, OutOfTime, StreamBroken
from vibeserve.agents.secrets import Redactor
from vibeserve.agents.tools.submit import Submit
from vibeserve.agents.tools.tool import Arguments, ToolProblem, bounded
from vibeserve.agents.transcript import Transcript, read_turns, readable

USAGE = Usage(input_tokens=10, cached_tokens=4, output_tokens=2)


@dataclass
class Says:
    """A provider that says, or raises, what is in its list."""

    script: list[Turn | Exception]
    model: str = "a-model"
    heard: list[Conversation] = field(default_factory=list)

    def respond(self, conversation: Conversation, deadline_s: float) -> Turn:
        self.heard.append(conversation)
        said = self.script[len(self.heard) - 1] if len(self.heard) <= len(self.script) else self.script[-1]
        if isinstance(said, Exception):
            raise said
        return said

    def close(self) -> None:
        pass


class EchoArguments(Arguments):
    text: str
    times: int = 1


@dataclass
class Echo:
    """Says what it is told."""

    name = "echo"
    description = "Repeats a text."
    arguments = EchoArguments
    calls: int = 0

    def call(self, given: EchoArguments, deadline_s: float) -> str:
        self.calls += 1
        if given.text == "bad":
            raise ToolProblem("expected a good text")
        if given.text == "full":
            raise OSError(errno.ENOSPC, "No space left on device", "/somewhere")
        if given.text == "lost":
            raise InfrastructureError("the sandbox is gone")
        return given.text * given.times


class DoneArguments(Arguments):
    summary: str


def turn(*calls: ToolCall, text: str = "", stop: Stop | None = None) -> Turn:
    return Turn(text=text, calls=calls, stop=stop or (Stop.TOOLS if calls else Stop.END), usage=USAGE)


def echo(text: str) -> Turn:
    return turn(Call("echo", {"text": text}).raw)


DONE = Call("submit", {"summary": "faster"}, id="call_9").raw


@dataclass
class Talk:
    """A conversation that was held."""

    ending: Ending
    provider: Says
    transcript: Transcript
    submit: Submit
    echo: Echo

    @property
    def results(self) -> list[tuple[str, bool]]:
        return [(r.text, r.failed) for e in self.provider.heard[-1].exchanges for r in e.results]


def talk(*script: Turn | Exception, refuses: Sequence[str] = (), **limits: float) -> Talk:
    problems = list(refuses)
    submit = Submit("Hand in.", DoneArguments, lambda given: problems.pop(0) if problems else None)
    provider, transcript, tool = Says(list(script)), Transcript(Redactor()), Echo()
    dialogue = Dialogue(provider, [tool], submit, Limits(retry_wait_s=0, **limits), transcript)  # type: ignore[arg-type]
    return Talk(dialogue.run("implementer", "Be good.", "Do it."), provider, transcript, submit, tool)


def test_it_ends_with_what_is_handed_in() -> None:
    held = talk(echo("ab"), turn(DONE))
    assert held.ending.outcome is Outcome.SUBMITTED
    assert held.submit.taken == DoneArguments(summary="faster")
    assert held.results == [("ab", False)]
    assert held.ending.spent == Spending(
        role="implementer", model="a-model", requests=2, input_tokens=20, cached_tokens=8, output_tokens=4,
        longest_input_tokens=10,
    )  # fmt: skip
    names = [tool.name for tool in held.provider.heard[0].tools]
    assert names == ["echo", "submit"]
    schema = held.provider.heard[0].tools[0].parameters
    assert schema["required"] == ["text"] and schema["additionalProperties"] is False


def test_what_is_not_fit_to_be_handed_in_goes_back() -> None:
    held = talk(turn(DONE), turn(DONE), refuses=["nothing was changed"])
    assert held.ending.outcome is Outcome.SUBMITTED
    assert held.results == [("not accepted: nothing was changed", True)]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (ToolCall(id="1", name="rm", arguments="{}"), "there is no tool 'rm'; there are echo, submit"),
        (ToolCall(id="1", name="echo", arguments="{"), "expected its arguments as a JSON object"),
        (ToolCall(id="1", name="echo", arguments="[1]"), "expected its arguments as a JSON object"),
        (ToolCall(id="1", name="echo", arguments="{}"), "text: Field required"),
        (ToolCall(id="1", name="echo", arguments='{"text": "a", "x": 1}'), "x: Extra inputs are not permitted"),
        (ToolCall(id="1", name="echo", arguments='{"text": "bad"}'), "expected a good text"),
    ],
)
def test_a_wrong_call_is_told_to_the_model(call: ToolCall, words: str) -> None:
    held = talk(turn(call), turn(DONE))
    ((text, failed),) = held.results
    assert words in text and failed


def test_nothing_is_done_after_submit() -> None:
    held = talk(turn(DONE, Call("echo", {"text": "late"}).raw))
    assert held.echo.calls == 0


def test_a_model_that_only_talks_is_reminded_and_then_given_up() -> None:
    held = talk(turn(text="I think it is fine."))
    assert held.ending.outcome is Outcome.EXHAUSTED
    assert held.ending.reason == "the model stopped 3 times without calling a tool"
    notes = [exchange.note for exchange in held.provider.heard[-1].exchanges]
    assert len(notes) == 2 and all("call `submit`" in note for note in notes)


def test_a_turn_that_was_cut_off_is_told() -> None:
    held = talk(turn(stop=Stop.LENGTH), turn(DONE))
    assert "cut off" in held.provider.heard[-1].exchanges[0].note


def test_a_pause_is_continued_without_a_word() -> None:
    held = talk(turn(stop=Stop.PAUSE, text="hm"), turn(DONE))
    (exchange,) = held.provider.heard[-1].exchanges
    assert (exchange.results, exchange.note) == ((), "")


def test_a_refusal_ends_it() -> None:
    held = talk(Turn(stop=Stop.REFUSAL, usage=USAGE, detail="cyber"))
    assert (held.ending.outcome, held.ending.reason) == (Outcome.REFUSED, "cyber")
    assert held.ending.spent.output_tokens == 2


@pytest.mark.parametrize(
    ("limits", "words"),
    [({"turns": 3}, "within 3 turns"), ({"tokens": 30}, "within 30 tokens"), ({"seconds": 0.0}, "within 0 s")],
)
def test_limits_end_it(limits: dict[str, float], words: str) -> None:
    held = talk(echo("a"), **limits)
    assert held.ending.outcome is Outcome.EXHAUSTED
    assert words in held.ending.reason


def test_the_model_is_warned_before_its_turns_end() -> None:
    held = talk(echo("a"), turns=7)
    notes = [exchange.note for exchange in held.provider.heard[-1].exchanges]
    assert notes[0] == "" and notes[1].startswith("Turns left: 5.") and notes[-1].startswith("Turns left: 1.")


def test_a_broken_answer_is_asked_for_again_and_counted_as_unmetered() -> None:
    held = talk(StreamBroken("cut"), StreamBroken("cut"), echo("a"), turn(DONE))
    assert held.ending.outcome is Outcome.SUBMITTED
    assert (held.ending.spent.requests, held.ending.spent.unmetered) == (4, 2)
    assert held.provider.heard[0] == held.provider.heard[2]


def test_an_answer_that_breaks_again_and_again_is_a_dead_provider() -> None:
    with pytest.raises(ProviderDown, match="cut; it broke off 4 times in a row") as caught:
        talk(echo("a"), StreamBroken("cut"))
    (spent,) = caught.value.spent
    assert (spent.requests, spent.unmetered, spent.input_tokens) == (5, 4, 10)


@pytest.mark.parametrize("error", [ProviderDown("503"), ProviderRefused("no key")])
def test_a_failed_provider_leaves_with_its_bill(error: ProviderDown | ProviderRefused) -> None:
    with pytest.raises(type(error)) as caught:
        talk(echo("a"), error)
    assert caught.value.spent[0].input_tokens == 10


def test_time_that_runs_out_within_an_answer_ends_it() -> None:
    held = talk(echo("a"), OutOfTime())
    assert held.ending.outcome is Outcome.EXHAUSTED
    assert held.ending.spent.unmetered == 1


def test_an_overflow_forgets_old_results_first() -> None:
    script = [echo(f"{number}" * 200) for number in range(6)]
    held = talk(*script, ContextOverflow(), turn(DONE))
    assert held.ending.outcome is Outcome.SUBMITTED
    texts = [text for text, _ in held.results]
    assert all(text.startswith("[left out") for text in texts[:2])
    assert texts[2:] == [f"{number}" * 200 for number in range(2, 6)]


def test_an_overflow_that_stays_ends_it() -> None:
    held = talk(echo("a" * 200), echo("b" * 200), ContextOverflow())
    assert held.ending.outcome is Outcome.EXHAUSTED
    assert held.ending.reason == "the conversation is longer than the model can read"
    lengths = [max(len(r.text) for e in c.exchanges for r in e.results) for c in held.provider.heard[2:]]
    assert lengths[0] == 200 and lengths[-1] < 200


def test_a_transcript_can_be_read_and_played_again() -> None:
    held = talk(turn(Call("echo", {"text": "é\n\u2028"}).raw, text="Well."), StreamBroken("cut"), turn(DONE))
    turns = read_turns(held.transcript.text, "here")
    assert [t.calls for t in turns] == [(Call("echo", {"text": "é\n\u2028"}).raw,), (DONE,)]
    assert turns[0].usage == USAGE
    told = readable(held.transcript.text)
    assert "Do it." in told and "Well." in told and "## submitted: after 2 turns" in told and "trouble: cut" in told


def test_a_transcript_holds_no_key() -> None:
    key = 'odd"key\\with-quotes'
    transcript = Transcript(Redactor([key]))
    transcript.begin("implementer", "m", Conversation(instructions=f"use {key}", task="sk-ant-api03-abcdefghijklmnop"))
    transcript.turn(turn(Call("echo", {"text": key}).raw, text=key))
    transcript.trouble(f"401 {key}")
    kept = transcript.text
    assert "odd" not in kept and "api03" not in kept
    assert all(json.loads(line) for line in kept.splitlines())


@pytest.mark.parametrize(("text", "words"), [("full", "/somewhere: No space left on device"), ("lost", "is gone")])
def test_a_fault_of_the_machine_has_the_bill(text: str, words: str) -> None:
    with pytest.raises(InfrastructureError, match=words) as caught:
        talk(echo("ab"), echo(text), turn(DONE))
    (spent,) = caught.value.spent
    assert (spent.requests, spent.input_tokens) == (2, 20)


def test_spendings_are_summed_by_role_and_model() -> None:
    one = Spending(role="a", model="m").with_answer(USAGE)
    other = Spending(role="b", model="m").with_answer(None)
    assert summed([one, other, one]) == (one + one, other)
    assert other.unmetered == 1 and one.tokens == 12
    assert (one + one).longest_input_tokens == one.longest_input_tokens == 10
    said, unsaid = replace(one, dollars=0.25), Spending(role="a", model="m")
    assert (said + said).dollars == 0.5 and (said + unsaid).dollars == 0.25
    assert (said + one).dollars is None, "what one of them has cost nobody said"


def test_a_long_result_keeps_both_its_ends() -> None:
    text = bounded("a" * 50 + "b" * 50, 20)
    assert text.startswith("a" * 10 + "\n[… 80 characters left out …]") and text.endswith("b" * 10)
