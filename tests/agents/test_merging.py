"""Merges that git cannot do are resolved by a model, and nothing with a conflict marker in it becomes a candidate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from population.candidate import Operator, Proposal
from population.evaluation import Rejected, Stage
from population.repository import Conflict, Repository
from population.spending import Spending
from tests.agents.cast import PROVIDERS, Cast
from tests.agents.endpoint import KEY, Answer, Asked, serving
from tests.agents.wire import Call, Chat
from tests.vibeserve.recorded import TOY, RecordedEvaluator
from vibeserve.agents.mutator import AgentMutator
from vibeserve.agents.options import AgentOptions
from vibeserve.executor import MutateTask, Returned
from vibeserve.making import Maker, Makers, NoWork, Work
from vibeserve.mutators import Change, Mutation, Review, Workplace

SEED = {path.name: path.read_bytes() for path in (TOY / "seed").iterdir() if path.is_file()}
LINE = b"value = 4.0"
FILE = "engine.toml"
MARKERS = ("<<<<<<< ", ">>>>>>> ")


@dataclass
class World:
    """A seed and two children of it."""

    repository: Repository
    seed: str
    ours: str
    theirs: str

    def task(self, **more: object) -> MutateTask:
        proposal = Proposal(number=3, operator=Operator.MERGE, parents=("c000001", "c000002"))
        given = {"proposal": proposal, "parents": (self.ours, self.theirs), "brief": "the brief", **more}
        return MutateTask(**given)  # type: ignore[arg-type]


def world(tmp_path: Path, ours: dict[str, bytes], theirs: dict[str, bytes], gone: str | None = None) -> World:
    repository = Repository.create(tmp_path / "population.git", durable=False)
    seed = repository.commit_tree(SEED, parents=(), message="seed", number=0).sha
    one = repository.commit_tree({**SEED, **ours}, parents=(seed,), message="one", number=1).sha
    changed = {name: text for name, text in {**SEED, **theirs}.items() if name != gone}
    two = repository.commit_tree(changed, parents=(seed,), message="two", number=2).sha
    return World(repository, seed, one, two)


def at_odds(tmp_path: Path) -> World:
    """Both sides change the same line, and each a file of its own."""
    one, two = SEED[FILE].replace(LINE, b"value = 2.0"), SEED[FILE].replace(LINE, b"value = 3.0")
    return world(tmp_path, {FILE: one, "ours.md": b"ours\n"}, {FILE: two, "theirs.md": b"theirs\n"})


@dataclass
class Resolver:
    """Does with the tree what it is told to."""

    work: Callable[[Path], None]
    briefs: list[str] = field(default_factory=list)

    def mutate(self, tree: Path, proposal: Proposal, brief: str) -> Mutation:
        self.briefs.append(brief)
        self.work(tree)
        return Mutation(summary="merge: both", changed=(FILE,), trace="", spent=(Spending(role="a", model="m"),))

    def repair(self, tree: Path, proposal: Proposal, brief: str, returned: Returned) -> Mutation:
        return self.mutate(tree, proposal, f"{brief} {returned.words}")


@dataclass
class Watcher:
    """A judge that remembers what it was shown."""

    shown: list[Change] = field(default_factory=list)

    def review(self, change: Change) -> Review:
        self.shown.append(change)
        return Review(objection=None)


def resolved(tree: Path) -> None:
    (tree / FILE).write_bytes(SEED[FILE].replace(LINE, b"value = 2.5"))


def test_a_model_resolves_what_git_cannot(tmp_path: Path) -> None:
    found, left, judge = at_odds(tmp_path), [], Watcher()

    def work(tree: Path) -> None:
        left.append((tree / FILE).read_text(encoding="utf-8"))
        assert (tree / "ours.md").exists() and (tree / "theirs.md").exists()
        resolved(tree)

    resolver = Resolver(work)
    maker = Maker(Makers(mutators={Operator.AGENT: resolver}, judge=judge, merges=True), found.repository)
    made = maker.make(found.task())
    assert isinstance(made, Work)
    assert all(marker in left[0] for marker in MARKERS) and "value = 2.0" in left[0] and "value = 3.0" in left[0]
    (brief,) = resolver.briefs
    assert brief.startswith("the brief") and '- "engine.toml"' in brief and "c000001 being ours" in brief
    files = found.repository.read_files(made.commit.sha)
    assert "value = 2.5" in files[FILE] and {"ours.md", "theirs.md"} <= set(files)
    assert found.repository.log(made.commit.sha)[0].parents == (found.ours, found.theirs)
    assert made.mutation.spent, "what it took is on the child's bill"
    assert judge.shown[0].diff.count("value = 2.5") == 1, "the judge reads what a model has merged"


@pytest.mark.parametrize("keep", MARKERS)
def test_no_marker_remains(keep: str, tmp_path: Path) -> None:
    found = at_odds(tmp_path)

    def work(tree: Path) -> None:
        lines = (tree / FILE).read_text(encoding="utf-8").splitlines(keepends=True)
        others = tuple(marker for marker in (*MARKERS, "=======") if marker != keep)
        (tree / FILE).write_text("".join(line for line in lines if not line.startswith(others)), encoding="utf-8")

    makers = Makers(mutators={Operator.AGENT: Resolver(work)}, merges=True)
    made = Maker(makers, found.repository).make(found.task())
    assert isinstance(made, NoWork) and made.unmade.spent
    assert made.unmade.rejected.stage is Stage.MUTATE
    assert made.unmade.rejected.reason == "expected no conflict markers, found some in engine.toml"


def test_without_anybody_for_it_a_conflict_is_a_rejection(tmp_path: Path) -> None:
    found, resolver = at_odds(tmp_path), Resolver(resolved)
    made = Maker(Makers(mutators={Operator.AGENT: resolver}), found.repository).make(found.task())
    assert isinstance(made, Rejected) and made.reason == "merge c000001 and c000002: conflict in engine.toml"
    assert not resolver.briefs


def test_git_does_what_git_can(tmp_path: Path) -> None:
    found, resolver = world(tmp_path, {"ours.md": b"1\n"}, {"theirs.md": b"2\n"}), Resolver(resolved)
    made = Maker(Makers(mutators={Operator.AGENT: resolver}, merges=True), found.repository).make(found.task())
    assert isinstance(made, Work) and not resolver.briefs
    assert {"ours.md", "theirs.md"} <= set(found.repository.read_files(made.commit.sha))


def test_a_file_that_one_side_removed_is_a_conflict_without_markers(tmp_path: Path) -> None:
    """git keeps the changed one; a model decides."""
    found = world(tmp_path, {"model.py": SEED["model.py"] + b"# ours\n"}, {}, gone="model.py")

    def work(tree: Path) -> None:
        assert (tree / "model.py").read_bytes().endswith(b"# ours\n")
        (tree / "model.py").unlink()

    makers = Makers(mutators={Operator.AGENT: Resolver(work)}, merges=True)
    made = Maker(makers, found.repository).make(found.task())
    assert isinstance(made, Work) and "model.py" not in found.repository.read_files(made.commit.sha)


def test_a_merge_that_was_rejected_goes_on_from_its_own_tree(tmp_path: Path) -> None:
    found = at_odds(tmp_path)
    first = Maker(Makers(mutators={Operator.AGENT: Resolver(resolved)}, merges=True), found.repository).make(
        found.task()
    )
    assert isinstance(first, Work)

    def work(tree: Path) -> None:
        assert "value = 2.5" in (tree / FILE).read_text(encoding="utf-8"), "its own tree, not the conflict"
        (tree / FILE).write_bytes(SEED[FILE].replace(LINE, b"value = 2.75"))

    resolver = Resolver(work)
    returned = Returned(commit=first.commit.sha, words="it was wrong", transcript="", attempt=1)
    maker = Maker(Makers(mutators={Operator.AGENT: resolver}, merges=True), found.repository)
    second = maker.make(found.task(returned=returned))
    assert isinstance(second, Work) and second.told == "it was wrong" and "it was wrong" in resolver.briefs[0]
    assert found.repository.log(second.commit.sha)[0].parents == (found.ours, found.theirs)


def test_a_conflict_has_its_tree_and_its_paths(tmp_path: Path) -> None:
    found = at_odds(tmp_path)
    conflict = found.repository.merge(found.ours, found.theirs, message="m", number=3)
    assert isinstance(conflict, Conflict) and conflict.paths == (FILE,)
    found.repository.export(conflict.tree, tmp_path / "tree")
    assert MARKERS[0] in (tmp_path / "tree" / FILE).read_text(encoding="utf-8")
    assert found.repository.merge_base(found.ours, found.theirs) == found.seed


@pytest.mark.tier("A")
def test_an_api_agent_is_told_of_markers_while_it_can_mend_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_KEY", KEY)
    wire, found = Chat(), at_odds(tmp_path)
    clean = SEED[FILE].replace(LINE, b"value = 2.5").decode()

    def model(asked: Asked) -> Answer:
        results = wire.results(asked)
        submit = Call("submit", {"summary": "both, at 2.5"}, f"call_{len(results)}")
        if not results:
            return wire.says("", [Call("read", {"path": FILE}, "call_r").raw])
        if len(results) == 1:
            begun = Call("write", {"path": "notes.md", "content": "begun"}, "call_n")
            return wire.says("", [begun.raw, submit.raw])
        return wire.says("", [Call("write", {"path": FILE, "content": clean}, "call_w").raw, submit.raw])

    cast = Cast(wire, implementer=model)
    with serving(cast, repeat=True) as endpoint:
        agent_options = AgentOptions(
            provider="openai-chat", model="a-model", key_env="A_KEY", base_url=wire.base_url(endpoint.url), retries=0
        )
        assert PROVIDERS[wire.name] == agent_options.provider
        place = Workplace(target=TOY, evaluator=RecordedEvaluator(), cpus=1)
        agent = AgentMutator(options=agent_options).settle(place)
        made = Maker(Makers(mutators={Operator.AGENT: agent}, merges=True), found.repository).make(found.task())
    assert isinstance(made, Work) and made.mutation.summary == "merge: both, at 2.5"
    refused = wire.results(cast.asked["implementer"][-1])[-1]
    assert refused == "Error: not accepted: expected no conflict markers, found some in engine.toml"
    assert "conflicts" in wire.said(cast.asked["implementer"][0])[0]
