"""Whole searches on the toy target whose children are made by models: on loopback, recorded, and scripted."""

from __future__ import annotations

import itertools
import json
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from population.candidate import Operator
from population.errors import ConfigError, InfrastructureError
from population.evaluation import Rejected, Stage
from population.events import Ended, Faulted, MutationDone
from population.ledger import read_events
from population.replay import State
from population.repository import Repository
from population.spending import Spending
from tests.agents.endpoint import KEY, Answer, Asked, Endpoint, serving
from tests.agents.wire import CACHED, FORMATS, READ, WRITTEN, Anthropic, Call, Format
from tests.vibeserve.recorded import RecordedEvaluator, toy_config
from vibeserve.display import SilentDisplay
from vibeserve.wiring import Parts, resume, run

pytestmark = pytest.mark.tier("A")
PARTS = Parts(evaluator=RecordedEvaluator())
CHILDREN = 3
ALONE = ("search.operators.recipe=false", "search.operators.tune=false", "search.operators.merge=false",
         f"budget.children={CHILDREN}", "evaluation.remeasure=false", "search.use_surrogate=false",
         "agents.roles.judge.enabled=false", "agents.roles.evaluator.enabled=false")  # fmt: skip
NAMES = {"anthropic": "anthropic", "openai responses": "openai", "openai chat": "openai-chat"}


@pytest.fixture(autouse=True)
def ground(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("A_KEY", KEY)


@pytest.fixture(params=FORMATS, ids=lambda format_: format_.name)
def wire(request: pytest.FixtureRequest) -> Format:
    found: Format = request.param
    return found


def options(wire: Format, endpoint: Endpoint, *more: str) -> tuple[str, ...]:
    return (
        *ALONE, f"agents.provider={NAMES[wire.name]}", "agents.model=a-model", "agents.key_env=A_KEY",
        f"agents.base_url={wire.base_url(endpoint.url)}", "agents.retries=0", *more,
    )  # fmt: skip


_COUNT = itertools.count()


class Improver:
    """A model with one idea: it reads the engine's knob and makes the delay shorter, a little more for each child."""

    def __init__(self, wire: Format) -> None:
        self.wire = wire

    def __call__(self, asked: Asked) -> Answer:
        results = self.wire.results(asked)
        if not results:
            return self.wire.says("I look at it.", [Call("read", {"path": "engine.toml"}, "call_1").raw])
        if len(results) == 1:
            found = re.search(r"value = ([\d.]+)", results[0])
            assert found is not None
            new = f"value = {float(found[1]) * 0.9 - next(_COUNT) * 1e-3:.6f}"  # no two trees are equal
            edit = {"path": "engine.toml", "old": found[0], "new": new}
            return self.wire.says(
                "", [Call("edit", edit, "call_2").raw, Call("bash", {"command": "env"}, "call_3").raw]
            )
        return self.wire.says("Done.", [Call("submit", {"summary": f"shorter delay; my key is {KEY}"}, "call_4").raw])


def one_run(tmp_path: Path) -> Path:
    (found,) = (tmp_path / "runs").glob("*")
    return found


def state_of(run_dir: Path) -> State:
    return State.replay(read_events(run_dir / "ledger"))


def everything_below(folder: Path) -> Iterator[tuple[Path, bytes]]:
    for path in folder.rglob("*"):
        if path.is_file():
            yield path, path.read_bytes()


def test_a_model_makes_children(wire: Format, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with serving(Improver(wire), repeat=True) as endpoint:
        run(toy_config(tmp_path / "runs", *options(wire, endpoint)), SilentDisplay(), PARTS)
    run_dir = one_run(tmp_path)
    state = state_of(run_dir)
    children = [state.archive.candidates[f"c{number:06d}"] for number in range(1, CHILDREN + 1)]
    assert all(child.proposal.operator is Operator.AGENT for child in children)
    assert all(child.genome.knobs["engine.delay_ms"].value < 4.0 for child in children)
    spent = Spending(
        role="implementer", model="a-model", requests=3, input_tokens=3 * READ, cached_tokens=3 * CACHED,
        cache_write_tokens=30, output_tokens=3 * WRITTEN, longest_input_tokens=READ,
    )  # fmt: skip
    made = [event for event in read_events(run_dir / "ledger") if isinstance(event, MutationDone) and event.number]
    assert [event.spent for event in made] == [(spent,)] * CHILDREN
    assert state.spent["implementer", "a-model"].requests == 3 * CHILDREN
    assert len(endpoint.asked) == 3 * CHILDREN
    first = endpoint.asked[0]
    assert "deterministic stand-in for a language model" in wire.said(first)[0] and "- batching:" in wire.said(first)[0]
    lines = (run_dir / "children" / "c000001" / "transcript.jsonl").read_text().splitlines()
    assert [json.loads(line)["kind"] for line in lines] == [
        "task", "turn", "result", "turn", "result", "result", "turn", "result", "end",
    ]  # fmt: skip
    # The key: in no file of the run (its objects apart, which are looked into below), log, environment or request body.
    assert not [path for path, data in everything_below(tmp_path) if KEY.encode() in data]
    assert KEY not in caplog.text
    assert not [asked for asked in endpoint.asked if KEY in json.dumps(asked.body)]
    repository = Repository.open(run_dir / "population.git")
    for child in children:
        files = repository.read_files(child.commit, "*")
        assert KEY not in "".join(files.values())
        assert "[redacted]" in state.summaries[child.proposal.number]
    assert "HOME=" in wire.results(endpoint.asked[2])[2]  # what `env` in the sandbox has shown


def test_a_recording_can_be_played_again(tmp_path: Path) -> None:
    wire = Anthropic()
    with serving(Improver(wire), repeat=True) as endpoint:
        run(toy_config(tmp_path / "runs", *options(wire, endpoint)), SilentDisplay(), PARTS)
    first = one_run(tmp_path)
    replay = (*ALONE, "agents.provider=replay", f"agents.replay={first}")
    run(toy_config(tmp_path / "again", *replay), SilentDisplay(), PARTS)
    (second,) = (tmp_path / "again").glob("*")
    one, two = state_of(first), state_of(second)
    assert [c.tree for c in two.archive.candidates.values()] == [c.tree for c in one.archive.candidates.values()]
    assert two.spent["implementer", "replay"].tokens == 0


def test_a_replay_without_its_recording_stops_the_run(tmp_path: Path) -> None:
    (tmp_path / "c000077.jsonl").write_text('{"kind": "task", "version": 1, "instructions": "", "task": ""}\n')
    config = toy_config(tmp_path / "runs", *ALONE, "agents.provider=replay", f"agents.replay={tmp_path}")
    with pytest.raises(InfrastructureError, match="there is no transcript of c000001"):
        run(config, SilentDisplay(), PARTS)
    assert len(state_of(one_run(tmp_path)).archive.children) == 1
    with pytest.raises(ConfigError, match="expected transcripts"):
        run(
            toy_config(tmp_path / "x", *ALONE, "agents.provider=replay", "agents.replay=/nowhere"),
            SilentDisplay(),
            PARTS,
        )


SCRIPT = """
[[child]]
summary = "hold tokens back"
[[child.edit]]
path = "server.toml"
find = "value = 1"
replace = "value = 2"

[[child]]
summary = "does not fit"
[[child.edit]]
path = "server.toml"
find = "value = 99"
replace = "value = 2"

[[child]]
summary = "leave a note"
[[child.write]]
path = "notes/idea.md"
content = "Shorter delays."
"""


def test_a_script_makes_children(tmp_path: Path) -> None:
    script = tmp_path / "script.toml"
    script.write_text(SCRIPT)
    config = toy_config(tmp_path / "runs", *ALONE, "agents.provider=scripted", f"agents.script={script}")
    run(config, SilentDisplay(), PARTS)
    state = state_of(one_run(tmp_path))
    verdicts = [state.archive.children[number].evaluation for number in (1, 2, 3)]
    assert state.archive.candidates["c000001"].genome.knobs["server.flush_tokens"].value == 2
    assert isinstance(verdicts[1], Rejected) and verdicts[1].stage is Stage.MUTATE
    assert "found it 0 times" in verdicts[1].reason
    assert state.summaries[3] == "script: leave a note"
    assert not state.spent
    script.write_text("[[child]]\nsumary = 1\n")
    with pytest.raises(ConfigError, match=r"child\.0\.sumary"):
        run(config, SilentDisplay(), PARTS)


@pytest.mark.parametrize("policy", ["evolve", "random", "nsga2"])
def test_an_agent_beside_the_other_operators(policy: str, tmp_path: Path) -> None:
    script = tmp_path / "script.toml"
    script.write_text('[[child]]\nsummary = "a"\n[[child.write]]\npath = "a.md"\ncontent = "a"\n')
    more = ["budget.children=16", "evaluation.remeasure=false", f"search.policy={policy}"]
    if policy != "evolve":  # the baselines draw any move, and the free edit is one among a dozen knob changes
        more.append("search.operators.tune=false")
    config = toy_config(tmp_path / "runs", *more, "agents.provider=scripted", f"agents.script={script}")
    run(config, SilentDisplay(), PARTS)
    state = state_of(one_run(tmp_path))
    used = {child.proposal.operator for child in state.archive.children.values()}
    assert Operator.AGENT in used and len(used - {Operator.SEED}) > 1
    assert len(state.archive.children) == 17


def test_a_model_that_refuses_costs_its_child_and_its_tokens(wire: Format, tmp_path: Path) -> None:
    with serving(wire.says("", (), "refusal"), repeat=True) as endpoint:
        run(toy_config(tmp_path / "runs", *options(wire, endpoint)), SilentDisplay(), PARTS)
    run_dir = one_run(tmp_path)
    ended = [event for event in read_events(run_dir / "ledger") if isinstance(event, Ended) and event.number]
    assert len(ended) == CHILDREN
    for event in ended:
        assert isinstance(event.evaluation, Rejected)
        assert (event.evaluation.stage, event.evaluation.reason[:19]) == (Stage.MUTATE, "the model refused: ")
        assert event.spent[0].output_tokens == WRITTEN
    assert (run_dir / "children" / "c000001" / "transcript.jsonl").exists()
    assert state_of(run_dir).evaluate_s == state_of(run_dir).archive.children[0].cost_s


def test_a_dead_provider_pauses_the_search_and_burns_no_child(wire: Format, tmp_path: Path) -> None:
    outage = wire.error(503, "overloaded_error", "maintenance")
    with serving(outage, outage, Improver(wire), repeat=True) as endpoint:
        run(toy_config(tmp_path / "runs", *options(wire, endpoint)), SilentDisplay(), PARTS)
    run_dir = one_run(tmp_path)
    faults = [event for event in read_events(run_dir / "ledger") if isinstance(event, Faulted)]
    assert [fault.attempt for fault in faults] == [1, 2]
    assert all("503" in fault.reason and "maintenance" in fault.reason for fault in faults)
    assert len(state_of(run_dir).archive.scored) == CHILDREN + 1


def test_patience_ends_and_the_run_goes_on_later(wire: Format, tmp_path: Path) -> None:
    with serving(wire.error(503, "overloaded_error", "maintenance"), repeat=True) as endpoint:
        config = toy_config(tmp_path / "runs", *options(wire, endpoint, "cluster.patience_s=0"))
        with pytest.raises(InfrastructureError, match=r"maintenance.*Nothing is lost: .*`vibeserve resume`"):
            run(config, SilentDisplay(), PARTS)
    run_dir = one_run(tmp_path)
    assert len(state_of(run_dir).archive.children) == 1
    with serving(Improver(wire), repeat=True) as endpoint:
        resume(run_dir, (f"agents.base_url={wire.base_url(endpoint.url)}",), SilentDisplay(), PARTS)
    assert len(state_of(run_dir).archive.scored) == CHILDREN + 1


def test_a_long_wait_that_is_asked_for_counts_against_patience(wire: Format, tmp_path: Path) -> None:
    with serving(wire.error(429, "rate_limit_error", "weekly limit", retry_after="90000"), repeat=True) as endpoint:
        config = toy_config(tmp_path / "runs", *options(wire, endpoint))
        with pytest.raises(InfrastructureError, match="it asks to wait 90000 s"):
            run(config, SilentDisplay(), PARTS)
    assert len(endpoint.asked) == 1


def test_a_wrong_key_stops_the_run_at_once_and_is_not_shown(wire: Format, tmp_path: Path) -> None:
    """Although a scored seed is there, and no other task has failed: nobody but the provider is to blame."""
    answer = wire.error(401, "authentication_error", f"Incorrect API key provided: {KEY}")
    with serving(Improver(wire), Improver(wire), Improver(wire), answer, repeat=True) as endpoint:
        config = toy_config(tmp_path / "runs", *options(wire, endpoint))
        with pytest.raises(InfrastructureError, match="the key was not accepted") as caught:
            run(config, SilentDisplay(), PARTS)
    assert KEY not in str(caught.value)
    run_dir = one_run(tmp_path)
    assert len(state_of(run_dir).archive.children) == 2
    assert not [path for path, data in everything_below(tmp_path) if KEY.encode() in data]


def test_tokens_that_were_asked_for_in_vain_are_recorded(wire: Format, tmp_path: Path) -> None:
    busy = wire.error(503, "overloaded_error", "maintenance")
    with serving(Improver(wire), busy, Improver(wire), repeat=True) as endpoint:
        run(toy_config(tmp_path / "runs", *options(wire, endpoint)), SilentDisplay(), PARTS)
    run_dir = one_run(tmp_path)
    (fault,) = (event for event in read_events(run_dir / "ledger") if isinstance(event, Faulted))
    assert fault.spent[0].requests == 1
    assert state_of(run_dir).spent["implementer", "a-model"].requests == 3 * CHILDREN + 1


def test_a_key_that_a_model_writes_down_is_not_committed(tmp_path: Path) -> None:
    """It never sees its key; but if it ever got hold of it, the child ends."""
    wire = Anthropic()
    write = Call("write", {"path": "notes.md", "content": KEY}).raw
    submit = Call("submit", {"summary": "notes"}, "call_2").raw
    with serving(wire.says("", [write, submit]), repeat=True) as endpoint:
        run(toy_config(tmp_path / "runs", *options(wire, endpoint)), SilentDisplay(), PARTS)
    run_dir = one_run(tmp_path)
    verdict = state_of(run_dir).archive.children[1].evaluation
    assert isinstance(verdict, Rejected) and "found it in notes.md" in verdict.reason
    assert not [path for path, data in everything_below(tmp_path) if KEY.encode() in data]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("agents.provider=anthropic",), "agents.model: expected the name of a model"),
        (
            ("agents.provider=openai", "agents.model=m", "agents.key_env=NOT_SET"),
            "environment variable NOT_SET, found none",
        ),
        (("agents.provider=openai", f"agents.key_env={KEY}"), "expected the name of an environment variable"),
        (("agents.provider=openai", f"agents.base_url=https://me:{KEY}@host/v1"), "without a user or password"),
        (("agents.provider=scripted",), "agents.script"),
        (("agents.provider=replay",), "agents.replay"),
        (("agents.provider=openai", "agents.model=m", "agents.key_file=/nowhere/key"), "No such file"),
    ],
)
def test_options_that_cannot_work_are_told_before_anything_begins(
    more: tuple[str, ...], words: str, tmp_path: Path
) -> None:
    with pytest.raises((ConfigError, InfrastructureError), match=re.escape(words)) as caught:
        run(toy_config(tmp_path / "runs", *more), SilentDisplay(), PARTS)
    assert KEY not in str(caught.value)
    assert not list((tmp_path / "runs").glob("*"))


def test_a_key_from_a_file(tmp_path: Path) -> None:
    wire, file = Anthropic(), tmp_path / "key"
    file.write_text("sk-ant-from-a-file-0123456789\n")
    os.chmod(file, 0o600)
    with serving(Improver(wire), repeat=True) as endpoint:
        more = options(wire, endpoint, f"agents.key_file={file}", "budget.children=1")
        run(toy_config(tmp_path / "runs", *more), SilentDisplay(), PARTS)
    assert endpoint.asked[0].headers["authorization"] == "Bearer sk-ant-from-a-file-0123456789"
