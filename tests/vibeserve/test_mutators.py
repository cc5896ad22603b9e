"""Recipe and knob mutations on real files: what is written, what is kept, what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from population.candidate import Operator, Proposal
from population.evaluation import Rejected, Stage
from population.recipe import Edit, Recipe
from vibeserve.mutators import Mutation, RecipeMutator, TuneMutator, _with_value, read_genome

SCHEDULER = """# scheduler of the toy
[component]
name = "scheduler"   # the stem
interface = 1
implementation = "fcfs"
provides = []

[knob.max_batch]
# how many at once
value = 16   # tuned by hand
type = "int"
low = 1
high = 64
scale = "log"

[knob.order]
value = "fcfs"
type = "choice"
choices = ["fcfs", "sjf"]

[knob.share]
value = 0.5
type = "float"
low = 0.0
high = 1.0
"""
SERVER = "value = 1\nflush = 1\n"
RECIPE = Recipe(
    name="batch",
    summary="Batches.",
    components={"scheduler": 1},
    provides=("batched",),
    replaces=("scheduler",),
    files={
        "scheduler.py": "new = True\n",
        "scheduler.toml": SCHEDULER.replace("provides = []", 'provides = ["batched"]'),
    },
    edits=(Edit(path="server.py", find="flush = 1", replace="flush = 2"),),
)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    root.mkdir()
    (root / "scheduler.py").write_text("old = True\n")
    (root / "scheduler.toml").write_text(SCHEDULER)
    (root / "server.py").write_text(SERVER)
    return root


def recipe_proposal(name: str | None = "batch", **knobs: object) -> Proposal:
    return Proposal(
        number=1,
        operator=Operator.RECIPE,
        parents=("c000000",),
        recipe=name,
        knobs={k.replace("__", "."): v for k, v in knobs.items()},  # type: ignore[misc]
    )


def tune_proposal(knobs: dict[str, object]) -> Proposal:
    return Proposal(number=1, operator=Operator.TUNE, parents=("c000000",), knobs=knobs)  # type: ignore[arg-type]


def snapshot(tree: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in tree.iterdir()}


def rejected(outcome: Mutation | Rejected, expected: str) -> None:
    assert isinstance(outcome, Rejected)
    assert outcome.stage is Stage.MUTATE
    assert expected in outcome.reason


def test_a_recipe_writes_its_files_edits_and_knobs(tree: Path) -> None:
    outcome = RecipeMutator({"batch": RECIPE}).mutate(tree, recipe_proposal(scheduler__max_batch=8), "")
    assert isinstance(outcome, Mutation)
    assert outcome.changed == ("scheduler.py", "scheduler.toml", "server.py")
    assert "batch" in outcome.summary
    assert (tree / "scheduler.py").read_text() == "new = True\n"
    assert (tree / "server.py").read_text() == "value = 1\nflush = 2\n"
    genome = read_genome(tree)
    assert not isinstance(genome, Rejected)
    assert genome.capabilities == {"batched"}
    assert genome.knobs["scheduler.max_batch"].value == 8


@pytest.mark.parametrize(
    ("server", "expected"),
    [("flush = 3\n", "found it 0 times"), ("flush = 1\nflush = 1\n", "found it 2 times"), (None, "does not have")],
)
def test_a_missing_or_ambiguous_edit_is_rejected_and_changes_nothing(
    tree: Path, server: str | None, expected: str
) -> None:
    (tree / "server.py").unlink()
    if server is not None:
        (tree / "server.py").write_text(server)
    before = snapshot(tree)
    rejected(RecipeMutator({"batch": RECIPE}).mutate(tree, recipe_proposal(), ""), expected)
    assert snapshot(tree) == before


def test_a_recipe_that_does_not_apply_says_why(tree: Path) -> None:
    mutator = RecipeMutator(
        {
            "batch": RECIPE,
            "needy": dataclasses.replace(RECIPE, name="needy", needs=("kv-cache",)),
            "later": dataclasses.replace(RECIPE, name="later", components={"scheduler": 2}),
        }
    )
    rejected(mutator.mutate(tree, recipe_proposal("absent"), ""), "known recipe (batch, later, needy), got 'absent'")
    rejected(mutator.mutate(tree, recipe_proposal("needy"), ""), "needs 'kv-cache'")
    rejected(mutator.mutate(tree, recipe_proposal("later"), ""), "scheduler interface 2, the tree has 1")
    assert isinstance(mutator.mutate(tree, recipe_proposal(), ""), Mutation)
    rejected(mutator.mutate(tree, recipe_proposal(), ""), "already provides batched")


def test_edits_of_one_file_apply_in_order(tree: Path) -> None:
    edits = (
        Edit(path="server.py", find="flush = 1", replace="flush = 7"),
        Edit(path="server.py", find="= 7", replace="= 9"),
    )
    recipe = dataclasses.replace(RECIPE, files={}, edits=edits)
    assert isinstance(RecipeMutator({"batch": recipe}).mutate(tree, recipe_proposal(), ""), Mutation)
    assert (tree / "server.py").read_text() == "value = 1\nflush = 9\n"


def test_links_are_never_followed_out_of_the_tree(tree: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.py"
    outside.write_text("flush = 1\n")
    (tree / "server.py").unlink()
    (tree / "server.py").symlink_to(outside)
    assert isinstance(RecipeMutator({"batch": RECIPE}).mutate(tree, recipe_proposal(), ""), Rejected)
    assert outside.read_text() == "flush = 1\n"


def test_tune_rewrites_values_and_nothing_else(tree: Path) -> None:
    outcome = TuneMutator().mutate(
        tree, tune_proposal({"scheduler.max_batch": 4, "scheduler.order": "sjf", "scheduler.share": 0.25}), ""
    )
    assert isinstance(outcome, Mutation)
    assert outcome.changed == ("scheduler.toml",)
    expected = SCHEDULER.replace("value = 16 ", "value = 4 ").replace('value = "fcfs"', 'value = "sjf"')
    assert (tree / "scheduler.toml").read_text() == expected.replace("value = 0.5", "value = 0.25")
    assert (tree / "server.py").read_text() == SERVER


@pytest.mark.parametrize(
    ("knobs", "expected"),
    [
        ({}, "at least one knob"),
        ({"scheduler.speed": 1}, "got 'scheduler.speed'"),
        ({"scheduler.max_batch": 65}, "expects int in [1, 64], got 65"),
        ({"scheduler.max_batch": 1.5}, "expects int"),
        ({"scheduler.order": "lifo"}, "expects choice in ['fcfs', 'sjf'], got 'lifo'"),
    ],
)
def test_tune_refuses_what_is_not_declared(tree: Path, knobs: dict[str, object], expected: str) -> None:
    before = snapshot(tree)
    rejected(TuneMutator().mutate(tree, tune_proposal(knobs), ""), expected)
    assert snapshot(tree) == before


def test_tune_refuses_an_inline_table_it_cannot_rewrite(tree: Path) -> None:
    (tree / "scheduler.toml").write_text(
        '[component]\nname = "scheduler"\ninterface = 1\nimplementation = "x"\n'
        '[knob]\nmax_batch = {value = 2, type = "int", low = 1, high = 9}\n'
    )
    rejected(TuneMutator().mutate(tree, tune_proposal({"scheduler.max_batch": 4}), ""), "on a line of its own")


def test_malformed_component_files_are_a_rejection(tree: Path) -> None:
    (tree / "scheduler.toml").write_text("[component\n")
    rejected(TuneMutator().mutate(tree, tune_proposal({"scheduler.max_batch": 4}), ""), "malformed")
    rejected(RecipeMutator({"batch": RECIPE}).mutate(tree, recipe_proposal(), ""), "malformed")


@given(value=st.integers(1, 64), crlf=st.booleans())
def test_only_one_line_changes_whatever_the_line_endings(value: int, crlf: bool) -> None:
    text = SCHEDULER.replace("\n", "\r\n") if crlf else SCHEDULER
    after = _with_value(text, "max_batch", value)
    pairs = list(zip(text.splitlines(keepends=True), after.splitlines(keepends=True), strict=True))
    differing = [(old, new) for old, new in pairs if old != new]
    assert len(differing) == (value != 16)
    assert all(new.startswith(f"value = {value} ") for _, new in differing)
