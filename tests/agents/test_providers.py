"""Every provider, through its real SDK, against an endpoint that speaks its wire format."""

from __future__ import annotations

import json
import time
from contextlib import closing
from dataclasses import replace

import pytest

from population.errors import ProviderDown, ProviderRefused
from population.spending import Usage
from tests.agents.endpoint import KEY, Answer, Endpoint, serving
from tests.agents.wire import CACHED, FORMATS, READ, WRITTEN, Anthropic, Call, Chat, Format, Responses
from vibeserve.agents.conversation import Conversation, Exchange, Stop, ToolCall, ToolResult, ToolSpec, Turn
from vibeserve.agents.provider import ContextOverflow, OutOfTime, Provider, StreamBroken
from vibeserve.agents.providers.connection import Connection

TOOL = ToolSpec(
    name="read",
    description="Reads a file.",
    parameters={"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]},
)
HELLO = Conversation(instructions="You write servers.", task="Make it faster.", tools=(TOOL,))
CALL = Call("read", {"path": "server.py"}).raw


@pytest.fixture(params=FORMATS, ids=lambda format_: format_.name)
def wire(request: pytest.FixtureRequest) -> Format:
    found: Format = request.param
    return found


def deadline() -> float:
    return time.monotonic() + 120.0


def opened(wire: Format, endpoint: Endpoint, **options: object) -> Provider:
    connection = Connection(model="a-model", key=KEY, base_url=wire.base_url(endpoint.url), retries=2)
    return wire.open(replace(connection, **options))  # type: ignore[arg-type]


def answer_to(wire: Format, *answers: Answer, **options: object) -> Turn:
    with serving(*answers) as endpoint:
        provider = opened(wire, endpoint, **options)
        try:
            return provider.respond(HELLO, deadline())
        finally:
            provider.close()


def test_an_answer_is_read_from_its_stream(wire: Format) -> None:
    with serving(wire.says("Good morning.")) as endpoint:
        provider = opened(wire, endpoint)
        turn = provider.respond(HELLO, deadline())
        provider.close()
    assert (turn.text, turn.calls, turn.stop) == ("Good morning.", (), Stop.END)
    assert turn.usage == Usage(input_tokens=READ, cached_tokens=CACHED, cache_write_tokens=10, output_tokens=WRITTEN)
    (asked,) = endpoint.asked
    assert asked.body["stream"] is True
    assert wire.system(asked) == "You write servers."
    assert wire.said(asked) == ["Make it faster."]
    assert KEY in asked.headers["authorization"]
    assert "temperature" not in asked.body and "top_p" not in asked.body


def test_tools_are_called_and_their_results_sent_back(wire: Format) -> None:
    other = ToolCall(id="call_2", name="read", arguments='{"path": "é.py"}')
    with serving(wire.says("I read.", [CALL, other]), wire.says("Done.")) as endpoint:
        provider = opened(wire, endpoint)
        turn = provider.respond(HELLO, deadline())
        assert turn.stop is Stop.TOOLS
        assert [(c.id, c.name) for c in turn.calls] == [("call_1", "read"), ("call_2", "read")]
        results = (ToolResult(call_id="call_1", text="x = 1"), ToolResult(call_id="call_2", text="gone", failed=True))
        longer = HELLO.then(Exchange(turn=turn, results=results, note="2 turns left"))
        assert provider.respond(longer, deadline()).text == "Done."
        provider.close()
    second = endpoint.asked[1]
    assert [text.removeprefix("Error: ") for text in wire.results(second)] == ["x = 1", "gone"]
    assert wire.said(second) == ["Make it faster.", "2 turns left"]


def test_a_turn_from_elsewhere_can_be_continued(wire: Format) -> None:
    """A repair goes on from a transcript, which has no provider's own JSON."""
    turn = Turn(text="I read.", calls=(CALL,), stop=Stop.TOOLS)
    replies = ToolResult(call_id="call_1", text="x = 1")
    with serving(wire.says("Done.")) as endpoint:
        provider = opened(wire, endpoint)
        assert provider.respond(HELLO.then(Exchange(turn=turn, results=(replies,))), deadline()).text == "Done."
        provider.close()
    assert wire.results(endpoint.asked[0]) == ["x = 1"]


def test_a_turn_that_was_cut_off_has_no_calls(wire: Format) -> None:
    half = ToolCall(id="call_1", name="read", arguments='{"path": "ser')
    turn = answer_to(wire, wire.says("I wr", [half], "length"))
    assert (turn.stop, turn.calls, turn.text) == (Stop.LENGTH, (), "I wr")


def test_a_refusal_is_a_turn(wire: Format) -> None:
    turn = answer_to(wire, wire.says("", (), "refusal"))
    assert turn.stop is Stop.REFUSAL
    assert "not this" in turn.detail


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_fails_before_the_stream_is_tried_again(wire: Format, status: int) -> None:
    busy = wire.error(status, "busy", "try later", retry_after="0.01")
    with serving(busy, busy, wire.says("Here.")) as endpoint:
        provider = opened(wire, endpoint)
        assert provider.respond(HELLO, deadline()).text == "Here."
        provider.close()
    assert len(endpoint.asked) == 3


def test_retry_after_is_waited_for(wire: Format) -> None:
    with serving(wire.error(429, "rate_limit_error", "slow down", retry_after="1"), wire.says("Here.")) as endpoint:
        provider = opened(wire, endpoint)
        began = time.monotonic()
        assert provider.respond(HELLO, deadline()).text == "Here."
        assert time.monotonic() - began >= 1.0
        provider.close()


def test_a_long_retry_after_is_left_to_the_driver(wire: Format) -> None:
    """The SDK alone would sleep for an hour here."""
    limited = wire.error(429, "rate_limit_error", "hourly limit", retry_after="3600")
    with pytest.raises(ProviderDown, match=r"429 .*hourly limit; it asks to wait 3600 s") as caught:
        answer_to(wire, limited)
    assert caught.value.wait_s == 3600


def test_a_provider_that_stays_away_is_down(wire: Format) -> None:
    with serving(wire.error(503, "x", "maintenance"), repeat=True) as endpoint:
        with closing(opened(wire, endpoint, retries=1)) as provider, pytest.raises(ProviderDown, match="503"):
            provider.respond(HELLO, deadline())
        assert len(endpoint.asked) == 2
    gone = rf"no answer from http://127.0.0.1:{endpoint.port}"
    with closing(opened(wire, endpoint, retries=0)) as provider, pytest.raises(ProviderDown, match=gone):
        provider.respond(HELLO, deadline())


def test_a_disconnect_within_the_stream_is_no_answer(wire: Format) -> None:
    whole = wire.says("Good morning to everybody.").events
    for kept in range(1, len(whole) - 2):
        with pytest.raises(StreamBroken):
            answer_to(wire, Answer(events=whole[:kept], cut=True))


def test_a_stream_that_ends_politely_too_early_is_no_answer(wire: Format) -> None:
    with pytest.raises(StreamBroken):
        answer_to(wire, Answer(events=wire.says("Good morning.").events[:2]))


def test_an_error_within_the_stream_can_be_tried_again(wire: Format) -> None:
    with pytest.raises(StreamBroken, match="no capacity"):
        answer_to(wire, wire.breaks("overloaded_error" if wire.name == "anthropic" else "server_error", "no capacity"))


def test_silence_within_the_stream_is_no_answer(wire: Format) -> None:
    with pytest.raises(StreamBroken):
        answer_to(wire, Answer(events=wire.says("Good morning.").events[:2], silent=True), silence_s=0.2)


def test_a_deadline_ends_an_answer_that_drips(wire: Format) -> None:
    with serving(wire.says("Good morning.")) as endpoint:
        provider = opened(wire, endpoint)
        with pytest.raises(OutOfTime):
            provider.respond(HELLO, time.monotonic() + 1e-4)
        with pytest.raises(OutOfTime):
            provider.respond(HELLO, time.monotonic() - 1)
        provider.close()


@pytest.mark.parametrize(
    ("status", "kind", "message"),
    [
        (400, "invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum"),
        (400, "context_length_exceeded", "Your input exceeds the context window of this model."),
        (400, "BadRequestError", "This model's maximum context length is 4096 tokens. However, you requested 9000."),
        (413, "request_too_large", "Request exceeds the maximum size"),
    ],
)
def test_a_conversation_that_is_too_long_is_told_apart(wire: Format, status: int, kind: str, message: str) -> None:
    with pytest.raises(ContextOverflow):
        answer_to(wire, wire.error(status, kind, message))


@pytest.mark.parametrize(
    ("status", "kind", "message", "words"),
    [
        (401, "authentication_error", f"invalid x-api-key: {KEY}", "the key was not accepted"),
        (403, "permission_error", "your key has no access", "the key was not accepted"),
        (404, "not_found_error", "model: a-model", "not found"),
        (429, "insufficient_quota", "You exceeded your current quota", "no credit"),
        (402, "billing_error", "pay first", "no credit"),
        (400, "invalid_request_error", "Your credit balance is too low", "no credit"),
        (422, "invalid_request_error", "effort: unknown value", "the request was not accepted"),
    ],
)
def test_what_asking_again_does_not_mend_stops_the_run(
    wire: Format, status: int, kind: str, message: str, words: str
) -> None:
    with pytest.raises(ProviderRefused, match=words) as caught:
        answer_to(wire, wire.error(status, kind, message), retries=0)
    assert KEY not in str(caught.value) and KEY not in repr(caught.value)


def test_a_filter_of_the_provider_is_a_refusal() -> None:
    for wire in (Responses(), Chat()):
        turn = answer_to(wire, wire.error(400, "content_policy_violation", "flagged"))
        assert (turn.stop, turn.detail) == (Stop.REFUSAL, "flagged")
    turn = answer_to(Responses(), Responses().breaks("invalid_prompt", "flagged"))
    assert turn.stop is Stop.REFUSAL


def test_effort_is_passed_on(wire: Format) -> None:
    with serving(wire.says("Hm.")) as endpoint:
        provider = opened(wire, endpoint, effort="high")
        provider.respond(HELLO, deadline())
        provider.close()
    body = endpoint.asked[0].body
    spelled = body.get("output_config") or body.get("reasoning") or {"effort": body.get("reasoning_effort")}
    assert spelled["effort"] == "high"


def test_anthropic_caches_the_prefix_and_the_last_message() -> None:
    wire = Anthropic()
    with serving(wire.says("I read.", [CALL]), wire.says("Done.")) as endpoint:
        provider = opened(wire, endpoint)
        turn = provider.respond(HELLO, deadline())
        provider.respond(HELLO.then(Exchange(turn=turn, results=(ToolResult(call_id="call_1", text="x"),))), deadline())
        provider.close()
    mark = {"type": "ephemeral"}
    for asked in endpoint.asked:
        assert asked.body["system"][0]["cache_control"] == mark
        marked = [b for m in asked.body["messages"] for b in m["content"] if "cache_control" in b]
        assert marked == [asked.body["messages"][-1]["content"][-1]]


def test_anthropic_pauses_and_goes_on_without_a_message() -> None:
    wire = Anthropic()
    with serving(wire.says("Let me", (), "pause_turn"), wire.says(" think.")) as endpoint:
        provider = opened(wire, endpoint)
        turn = provider.respond(HELLO, deadline())
        assert turn.stop is Stop.PAUSE
        assert provider.respond(HELLO.then(Exchange(turn=turn)), deadline()).text == " think."
        provider.close()
    assert [message["role"] for message in endpoint.asked[1].body["messages"]] == ["user", "assistant"]


def test_anthropic_says_itself_that_the_context_is_full() -> None:
    wire = Anthropic()
    with pytest.raises(ContextOverflow):
        answer_to(wire, wire.says("I was about to", (), "model_context_window_exceeded"))


def test_anthropic_thinking_goes_back_with_its_signature() -> None:
    def event(kind: str, **fields: object) -> bytes:
        return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()

    wire = Anthropic()
    plain = wire.says("", [CALL]).events
    thinking = (
        event("content_block_start", index=0, content_block={"type": "thinking", "thinking": "", "signature": ""}),
        event("content_block_delta", index=0, delta={"type": "thinking_delta", "thinking": "Hm."}),
        event("content_block_delta", index=0, delta={"type": "signature_delta", "signature": "c2ln"}),
        event("content_block_stop", index=0),
    )
    moved = tuple(piece.replace(b'"index": 0', b'"index": 1') for piece in plain[2:])
    with serving(Answer(events=(*plain[:2], *thinking, *moved)), wire.says("Done.")) as endpoint:
        provider = opened(wire, endpoint)
        turn = provider.respond(HELLO, deadline())
        assert turn.text == "" and turn.calls[0].name == "read"
        provider.respond(HELLO.then(Exchange(turn=turn, results=(ToolResult(call_id="call_1", text="x"),))), deadline())
        provider.close()
    back = endpoint.asked[1].body["messages"][1]["content"]
    assert back[0] == {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}
    assert back[1]["input"] == {"path": "server.py"}


def test_responses_store_nothing_and_send_reasoning_back() -> None:
    wire = Responses()
    reasoning = {"id": "rs_1", "type": "reasoning", "summary": [], "encrypted_content": "Z2Vo"}
    lost = {"id": "rs_2", "type": "reasoning", "summary": []}
    output = [reasoning, lost, {"id": "m", "type": "message", "role": "assistant", "status": "completed",
              "content": [{"type": "output_text", "text": "Hm.", "annotations": []}]}]  # fmt: skip
    done = {"type": "response.completed", "response": wire.response("completed", output=output, usage=wire.usage)}
    first = Answer(events=(*wire.beginning(), f"event: response.completed\ndata: {json.dumps(done)}\n\n".encode()))
    with serving(first, wire.says("Done.")) as endpoint:
        provider = opened(wire, endpoint, effort="low")
        turn = provider.respond(HELLO, deadline())
        provider.respond(HELLO.then(Exchange(turn=turn, note="Go on.")), deadline())
        provider.close()
    assert all(asked.body["store"] is False for asked in endpoint.asked)
    assert endpoint.asked[0].body["include"] == ["reasoning.encrypted_content"]
    sent = [item["id"] for item in endpoint.asked[1].body["input"] if item.get("type") == "reasoning"]
    assert sent == ["rs_1"]


def test_chat_without_usage_says_that_it_is_unknown() -> None:
    wire = Chat()
    events = wire.says("Good morning.").events
    turn = answer_to(wire, Answer(events=(*events[:-2], events[-1])))
    assert turn.usage is None


def test_a_server_of_ones_own_needs_no_key() -> None:
    wire = Chat()
    with serving(wire.says("Good morning.")) as endpoint:
        provider = opened(wire, endpoint, key="")
        assert provider.respond(HELLO, deadline()).text == "Good morning."
        provider.close()
    assert endpoint.asked[0].body["max_tokens"] == 16_000


@pytest.mark.parametrize(
    ("variable", "wire"),
    [("ANTHROPIC_API_KEY", Anthropic()), ("OPENAI_API_KEY", Responses())],
    ids=["anthropic", "openai"],
)
def test_credentials_of_the_machine_are_not_used(variable: str, wire: Format, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "sk-somebody-elses")
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "somebody-elses")
    with serving(wire.says("Hello.")) as endpoint:
        provider = opened(wire, endpoint)
        provider.respond(HELLO, deadline())
        provider.close()
    assert "somebody-elses" not in str(endpoint.asked[0].headers)
