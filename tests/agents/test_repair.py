"""Rejected children go back to who made them, a few times, before they count."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from evaluators.evaluator import EvaluationTask, Lease
from population.candidate import Candidate, Operator, Proposal
from population.evaluation import Evaluation, Rejected, Scored, Stage
from population.events import Ended, MutationDone, Proposed, RunStarted, SentBack
from population.genome import Genome
from population.replay import State
from population.repository import Repository
from population.spending import Spending
from tests.agents.cast import MODELS_ALONE, Cast, Verdict, events_of, objection, options
from tests.agents.endpoint import KEY, Answer, Asked, serving
from tests.agents.wire import FORMATS, Call, Chat, Format
from tests.population.strategies import OBJECTIVES, scored
from tests.vibeserve.recorded import TOY, RecordedEvaluator, toy_config
from tests.vibeserve.test_driver import Crash, CrashingDisk, population_of
from vibeserve.display import SilentDisplay
from vibeserve.repair import Repair
from vibeserve.wiring import Parts, resume, run

pytestmark = pytest.mark.tier("A")
TOML = (TOY / "seed" / "engine.toml").read_text(encoding="utf-8")
BROKEN = TOML.replace("provides = []", 'provides = ["broken"]')
FAST = TOML.replace("value = 4.0", "value = 2.0")
PARTS = Parts(evaluator=RecordedEvaluator())

MENDED = """
[[child]]
summary = "make it fast"
[[child.edit]]
path = "engine.toml"
find = "provides = []"
replace = 'provides = ["broken"]'
[[child.repair]]
[[child.repair.edit]]
path = "engine.toml"
find = 'provides = ["broken"]'
replace = 'provides = ["shortcut"]'
[[child.repair]]
[[child.repair.edit]]
path = "engine.toml"
find = 'provides = ["shortcut"]'
replace = "provides = []"
[[child.repair.write]]
path = "notes.md"
content = "Mended."

[[child]]
summary = "hopeless"
[[child.write]]
path = "hopeless.md"
content = "0"
[[child.edit]]
path = "engine.toml"
find = "provides = []"
replace = 'provides = ["broken"]'
[[child.repair]]
[[child.repair.write]]
path = "hopeless.md"
content = "1"
[[child.repair]]
[[child.repair.write]]
path = "hopeless.md"
content = "2"
[[child.repair]]
[[child.repair.write]]
path = "hopeless.md"
content = "3"
[[child.repair]]
[[child.repair.write]]
path = "hopeless.md"
content = "4"

[[child]]
summary = "given up"
[[child.edit]]
path = "server.toml"
find = "value = 1"
replace = "value = 2"
[[child.edit]]
path = "engine.toml"
find = "provides = []"
replace = 'provides = ["shortcut"]'

[[child]]
summary = "no idea"
[[child.edit]]
path = "server.toml"
find = "value = 1"
replace = "value = 3"
[[child.edit]]
path = "engine.toml"
find = "provides = []"
replace = 'provides = ["shortcut"]'
[[child.repair]]
"""
CHILDREN = 4


@pytest.fixture(autouse=True)
def ground(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("A_KEY", KEY)


@dataclass
class Seeds:
    """Records the content seed of every evaluation."""

    seen: list[int]

    def evaluate(self, task: EvaluationTask, lease: Lease, progress: Callable[[Stage], None]) -> Evaluation:
        self.seen.append(task.content_seed)
        return RecordedEvaluator().evaluate(task, lease, progress)


def scripted(tmp_path: Path, folder: str, *more: str, parts: Parts = PARTS) -> Path:
    """A run by the script, with a secret that does not change."""
    script = tmp_path / "script.toml"
    script.write_text(MENDED, encoding="utf-8")
    by_script = (*MODELS_ALONE, "agents.provider=scripted", f"agents.script={script}", f"budget.children={CHILDREN}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vibeserve.wiring.secrets.token_hex", lambda size: "5e" * size)
        patch.setenv("XDG_CACHE_HOME", str(tmp_path / f"cache-{folder}"))
        return run(toy_config(tmp_path / folder, *by_script, *more), SilentDisplay(), parts).run_dir


def state_of(run_dir: Path) -> State:
    return State.replay(events_of(run_dir))


def test_a_child_is_mended_before_it_counts(tmp_path: Path) -> None:
    seeds = Seeds([])
    run_dir = scripted(tmp_path, "runs", parts=Parts(evaluator=seeds))
    events, state = events_of(run_dir), state_of(run_dir)
    of_one = [e for e in events if isinstance(e, MutationDone | SentBack | Ended) and e.number == 1]
    assert [event.kind for event in of_one] == [
        "mutation_done", "sent_back", "mutation_done", "sent_back", "mutation_done", "ended",
    ]  # fmt: skip
    assert [event.evaluation.stage for event in of_one if isinstance(event, SentBack)] == [Stage.BOOT, Stage.AUDIT]
    child = state.archive.candidates["c000001"]
    assert isinstance(child.evaluation, Scored) and child.evaluation.samples
    assert len(state.archive.children) == CHILDREN + 1, "what was sent back did not count"
    assert len(set(seeds.seen)) == len(seeds.seen), "every evaluation has prompts of its own"
    assert child.cost_s == pytest.approx(sum(event.elapsed_s for event in of_one))
    evaluated_s = sum(event.elapsed_s for event in of_one if not isinstance(event, MutationDone))
    assert state.costs[1].evaluate_s == pytest.approx(evaluated_s)


def test_only_the_last_tree_belongs_to_the_population(tmp_path: Path) -> None:
    run_dir = scripted(tmp_path, "runs")
    state, repository = state_of(run_dir), Repository.open(run_dir / "population.git")
    child = state.archive.candidates["c000001"]
    assert repository.ref("c000001") == child.commit
    assert repository.read_files(child.commit, "notes.md") == {"notes.md": "Mended."}
    assert repository.log(child.commit)[0].parents == (state.archive.candidates["c000000"].commit,)
    assert [attempt.commit for attempt in state.attempts[1]] != []
    briefs = {path.name: path.read_text() for path in (run_dir / "children" / "c000001").glob("brief*.md")}
    assert set(briefs) == {"brief.md", "brief-1.md", "brief-2.md"}
    assert (
        "the server did not start" in briefs["brief-1.md"]
        and "Attempts left after this one: 2." in briefs["brief-1.md"]
    )
    assert "expected the model's tokens" in briefs["brief-2.md"]


def test_three_times_at_most(tmp_path: Path) -> None:
    run_dir = scripted(tmp_path, "runs")
    sent = [event for event in events_of(run_dir) if isinstance(event, SentBack) and event.number == 2]
    assert len(sent) == 3
    verdict = state_of(run_dir).archive.children[2].evaluation
    assert isinstance(verdict, Rejected) and verdict.stage is Stage.BOOT
    fewer = scripted(tmp_path, "fewer", "agents.repair=1")
    assert len([event for event in events_of(fewer) if isinstance(event, SentBack) and event.number == 2]) == 1
    none = scripted(tmp_path, "none", "agents.repair=0")
    assert not [event for event in events_of(none) if isinstance(event, SentBack)]


def test_a_child_that_nobody_mends_ends_with_what_it_was_rejected_for(tmp_path: Path) -> None:
    """Its maker gives up, or hands in the same again: there is a commit, and there is a verdict."""
    state = state_of(scripted(tmp_path, "runs"))
    for number, why in ((3, "the script does not say how to mend it"), (4, "the same tree as c000004")):
        child = state.archive.children[number]
        assert isinstance(child, Candidate) and isinstance(child.evaluation, Rejected)
        assert child.evaluation.stage is Stage.AUDIT
        assert child.evaluation.reason == f"expected the model's tokens, got others (not mended: {why})"
        assert child.commit == state.attempts[number][-1].commit


def test_a_tree_that_was_sent_back_is_not_evaluated_for_another_child(tmp_path: Path) -> None:
    seeds = Seeds([])
    run_dir = scripted(tmp_path, "runs", "budget.children=8", parts=Parts(evaluator=seeds))  # the script begins again
    state = state_of(run_dir)
    again = state.archive.children[5].evaluation
    assert isinstance(again, Rejected) and again.stage is Stage.DEDUPE and again.reason == "the same tree as c000001"
    assert len(seeds.seen) == len([e for e in events_of(run_dir) if isinstance(e, MutationDone)])


@pytest.mark.parametrize("written", [False, True])
def test_a_crash_at_any_record_changes_nothing(written: bool, tmp_path: Path) -> None:
    one = "budget.children=1"
    whole = population_of(scripted(tmp_path, "whole", one))
    for at in range(6, 30):
        disk = CrashingDisk(at=at, written=written)
        folder = f"crashed-{at}"
        try:
            run_dir = scripted(tmp_path, folder, one, parts=Parts(evaluator=RecordedEvaluator(), disk=disk))
        except Crash:
            (run_dir,) = (tmp_path / folder).glob("*")
            resume(run_dir, (), SilentDisplay(), PARTS)
            assert population_of(run_dir) == whole
        else:
            assert at > 10, "there are records of the mending to crash at"
            return
    pytest.fail("the run has more records than were looked at")


# --- by a model -------------------------------------------------------------------------------------------------------


class Learner:
    """Writes a broken server first; mends it when it is told what is wrong, and remembers what it did."""

    def __init__(self, wire: Format, broken: Mapping[str, str], mended: Mapping[str, str]) -> None:
        self.wire, self.broken, self.mended = wire, broken, mended
        self.count = 0

    def __call__(self, asked: Asked) -> Answer:
        self.count += 1
        told = self.wire.said(asked)
        back = [text for text in told if "was rejected at stage" in text]
        files = self.mended if back else self.broken
        calls = [
            Call("write", {"path": p, "content": f"{t}# {self.count}\n"}, f"call_{self.count}_{n}").raw
            for n, (p, t) in enumerate(files.items())
        ]
        submit = Call("submit", {"summary": "mended" if back else "faster"}, f"call_{self.count}_s").raw
        return self.wire.says("Again." if back else "Once.", [*calls, submit])


MODEL = ("budget.children=1", "agents.roles.evaluator.enabled=false")


@pytest.mark.parametrize("wire", FORMATS, ids=lambda wire: wire.name)
def test_the_conversation_goes_on(wire: Format, tmp_path: Path) -> None:
    cast = Cast(wire, implementer=Learner(wire, {"engine.toml": BROKEN}, {"engine.toml": FAST}), judge=Verdict(wire))
    with serving(cast, repeat=True) as endpoint:
        run_dir = run(toy_config(tmp_path / "runs", *options(wire, endpoint, *MODEL)), SilentDisplay(), PARTS).run_dir
    first, second = cast.asked["implementer"]
    told = wire.said(second)
    assert told[0] == wire.said(first)[0], "the task stands where it stood"
    assert "the server did not start" in told[-1] and "Attempts left after this one: 2." in told[-1]
    assert wire.results(second) == ["wrote engine.toml: 14 lines", "accepted"]
    assert len(cast.asked["judge"]) == 2, "what was mended is read again"
    state, folder = state_of(run_dir), run_dir / "children" / "c000001"
    assert isinstance(state.archive.children[1].evaluation, Scored)
    assert state.spent["implementer", "a-model"].requests == 2 and state.spent["judge", "a-model"].requests == 2
    assert [bill.requests for bill in state.costs[1].spent] == [2, 2]
    kinds = [json.loads(line)["kind"] for line in (folder / "transcript.jsonl").read_text().splitlines()]
    assert kinds == ["task", "turn", "result", "result", "end", "note", "turn", "result", "result", "end"]
    assert {path.name for path in folder.glob("judge*")} == {"judge.jsonl", "judge-1.jsonl"}
    replay = (*MODELS_ALONE, *MODEL, "agents.provider=replay", f"agents.replay={run_dir}")
    again = run(toy_config(tmp_path / "again", *replay), SilentDisplay(), PARTS).run_dir
    assert state_of(again).archive.candidates["c000001"].tree == state.archive.candidates["c000001"].tree
    assert state_of(again).spent["judge", "replay"].requests == 2


def test_an_objection_goes_back_too(tmp_path: Path) -> None:
    wire = Chat()
    line = "WARM = [0]  # the client that asks first is answered from here"
    learner = Learner(wire, {"warm.py": f"{line}\n"}, {"warm.py": "", "engine.toml": FAST})

    def judge(asked: Asked) -> Answer:
        found = [objection(line, file="warm.py")] if line in wire.said(asked)[0] else []
        return Verdict(wire, *found)(asked)

    cast = Cast(wire, implementer=learner, judge=judge)
    with serving(cast, repeat=True) as endpoint:
        run_dir = run(toy_config(tmp_path / "runs", *options(wire, endpoint, *MODEL)), SilentDisplay(), PARTS).run_dir
    told = wire.said(cast.asked["implementer"][1])[-1]
    assert "rejected at stage review" in told and line in told and "The judge is another model" in told
    (sent,) = (event for event in events_of(run_dir) if isinstance(event, SentBack))
    assert sent.place is None and sent.elapsed_s == 0
    assert isinstance(state_of(run_dir).archive.children[1].evaluation, Scored)


def test_a_crash_after_an_objection_does_not_run_the_child(tmp_path: Path) -> None:
    """The objection is part of the record that says that there is a commit: none of them is ever without the other."""
    wire, line = Chat(), "WARM = [0]  # the client that asks first is answered from here"
    for at in range(6, 30):
        cast = Cast(
            wire,
            implementer=Learner(wire, {"warm.py": f"{line}\n"}, {}),
            judge=Verdict(wire, objection(line, file="warm.py")),
        )
        seeds = Seeds([])
        disk = CrashingDisk(at=at, written=True)
        with serving(cast, repeat=True) as endpoint:
            more = options(wire, endpoint, *MODEL, "agents.repair=0")
            try:
                run(toy_config(tmp_path / f"{at}", *more), SilentDisplay(), Parts(evaluator=seeds, disk=disk))
            except Crash:
                (run_dir,) = (tmp_path / f"{at}").glob("*")
                resume(run_dir, (), SilentDisplay(), Parts(evaluator=seeds))
            else:
                assert at > 8, "there is a record of the objection to crash at"
                return
        verdict = state_of(run_dir).archive.children[1].evaluation
        assert isinstance(verdict, Rejected) and verdict.stage is Stage.REVIEW
        assert len(seeds.seen) <= 2, "the seed alone, twice at most"
        assert not [e for e in events_of(run_dir) if isinstance(e, Ended) and e.number == 1 and e.place is not None]
    pytest.fail("the run has more records than were looked at")


def test_a_transcript_that_was_lost_begins_again(tmp_path: Path) -> None:
    """The brief and the verdict are told anew, with the rejected tree as the workspace."""
    wire = Chat()
    learner = Learner(wire, {"engine.toml": BROKEN}, {"engine.toml": FAST})

    def forgetful(asked: Asked) -> Answer:
        for path in tmp_path.rglob("transcript.jsonl"):
            path.unlink()
        return Verdict(wire)(asked)

    class Losing(RecordedEvaluator):
        def evaluate(self, task: EvaluationTask, lease: Lease, progress: Callable[[Stage], None]) -> Evaluation:
            for path in tmp_path.rglob("transcript.jsonl"):
                path.unlink()
            return super().evaluate(task, lease, progress)

    cast = Cast(wire, implementer=learner, judge=forgetful)
    with serving(cast, repeat=True) as endpoint:
        config = toy_config(tmp_path / "runs", *options(wire, endpoint, *MODEL))
        run_dir = run(config, SilentDisplay(), Parts(evaluator=Losing())).run_dir
    (told,) = wire.said(cast.asked["implementer"][1])
    assert told.startswith("# Objective") and "the server did not start" in told
    assert isinstance(state_of(run_dir).archive.children[1].evaluation, Scored)


@pytest.mark.parametrize(
    ("operator", "spent", "stage", "used_up", "wanted"),
    [
        (Operator.AGENT, (), Stage.AUDIT, None, True),
        (Operator.AGENT, (), Stage.REVIEW, None, True),
        (Operator.AGENT, (), Stage.AUDIT, "budget: tokens", False),
        (Operator.AGENT, (), Stage.MUTATE, None, False),
        (Operator.AGENT, (), Stage.DEDUPE, None, False),
        (Operator.MERGE, (Spending(role="implementer", model="m"),), Stage.BOOT, None, True),
        (Operator.MERGE, (), Stage.BOOT, None, False),
        (Operator.RECIPE, (), Stage.BOOT, None, False),
    ],
)
def test_who_goes_back(
    operator: Operator, spent: tuple[Spending, ...], stage: Stage, used_up: str | None, wanted: bool
) -> None:
    """What somebody wrote, was rejected as a tree, and may be paid for still."""
    proposal, state = Proposal(number=0, operator=operator), State()
    for event in (
        RunStarted(run="r", seed=1, objectives=OBJECTIVES),
        Proposed(proposal=proposal),
        MutationDone(number=0, commit="c", tree="t", genome=Genome(), spent=spent),
    ):
        state.apply(event)
    verdict = Rejected(stage=stage, reason="wrong")
    assert Repair(1, state, lambda: used_up).wanted(proposal, verdict) is wanted
    assert not Repair(0, state, lambda: used_up).wanted(proposal, verdict)
    state.apply(SentBack(number=0, evaluation=verdict))
    state.apply(MutationDone(number=0, commit="d", tree="u", genome=Genome(), spent=spent))
    assert not Repair(1, state, lambda: used_up).wanted(proposal, verdict), "once is enough"
    assert not Repair(3, state, lambda: used_up).wanted(proposal, scored(1.0, 1.0))
