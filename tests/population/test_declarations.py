"""objectives.toml, component files and recipes: what is read, and that every defect is named at once."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from population.errors import ConfigError
from population.genome import Knob, parse_genome
from population.objectives import Direction, Objective, load_objectives, objective_samples
from population.recipe import Recipe

GOOD = """
[pareto]
relative_noise = 0.1
[[objective]]
name = "output_throughput"
direction = "max"
unit = "tok/s"
[[objective]]
name = "median_ttft_ms"
direction = "min"
loads = ["low", "shared"]
relative_noise = 0.08
"""

SCHEDULER = """
[component]
name = "scheduler"
interface = 1
implementation = "fcfs"
provides = ["batching"]
[knob.max_batch]
value = 16
type = "int"
low = 1
high = 64
scale = "log"
[knob.order]
value = "fcfs"
type = "choice"
choices = ["fcfs", "sjf"]
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "objectives.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_objectives_are_read_in_order(tmp_path: Path) -> None:
    found = load_objectives(written(tmp_path, GOOD))
    assert found.names == ("output_throughput", "median_ttft_ms")
    assert [o.relative_noise for o in found] == [0.1, 0.08]
    assert found.objectives[1].loads == ("low", "shared")


def test_every_defect_of_objectives_is_named(tmp_path: Path) -> None:
    bad = """
    [pareto]
    relative_noise = 7
    [[objective]]
    name = ""
    direction = "up"
    [[objective]]
    name = "a"
    direction = "min"
    colour = "red"
    loads = [1]
    [[objective]]
    name = "b"
    direction = "max"
    [[objective]]
    name = "b"
    direction = "max"
    """
    with pytest.raises(ConfigError) as error:
        load_objectives(written(tmp_path, bad))
    text = "\n".join(error.value.problems)
    for expected in (
        "[pareto]",
        "'name' must be",
        "got 'up'",
        "unknown key 'colour'",
        "'loads' must be",
        "declared 2 times",
    ):
        assert expected in text
    assert len(error.value.problems) == 6 and all("objectives.toml" in p for p in error.value.problems)


@pytest.mark.parametrize(
    ("text", "reason"), [("", "found none"), ("objective = 3", "found none"), ("[[objective", "not valid TOML")]
)
def test_objectives_that_are_none(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        load_objectives(written(tmp_path, text))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml: cannot be read: No such file"):
        load_objectives(tmp_path / "nowhere.toml")


@given(st.sampled_from(Direction), st.floats(1e-6, 1e6), st.floats(1e-6, 1e6))
def test_cost_is_lower_exactly_when_better(direction: Direction, a: float, b: float) -> None:
    objective = Objective(name="x", direction=direction)
    better = a > b if direction is Direction.MAX else a < b
    if not math.isclose(a, b):
        assert (objective.cost(a) < objective.cost(b)) == better == (objective.gain(a, b) > 1)
    assert objective.value(objective.cost(a)) == pytest.approx(a)


@pytest.mark.parametrize(
    ("direction", "low", "shared", "expected"),
    [
        (Direction.MIN, 4.0, 9.0, 6.0),
        (Direction.MIN, 4.0, math.inf, math.inf),
        (Direction.MAX, 0.0, 9.0, 0.0),
        (Direction.MAX, math.inf, 0.0, 0.0),
    ],
)
def test_geometric_mean_over_loads(direction: Direction, low: float, shared: float, expected: float) -> None:
    objective = Objective(name="x", direction=direction, loads=("low", "shared"))
    assert objective_samples(objective, {"x@low": (low,), "x@shared": (shared,)}) == (pytest.approx(expected),)


def test_a_genome_knows_capabilities_and_knobs() -> None:
    genome = parse_genome({"scheduler.toml": SCHEDULER, "other.toml": "[tool]\nx = 1\n"})
    assert genome.capabilities == {"batching"}
    assert set(genome.knobs) == {"scheduler.max_batch", "scheduler.order"}
    knob = genome.knobs["scheduler.max_batch"]
    assert knob.admits(64) and not knob.admits(65) and not knob.admits(1.5) and not knob.admits(True)
    assert not genome.knobs["scheduler.order"].admits("lifo")


def test_every_defect_of_a_tree_is_named() -> None:
    files = {
        "a.toml": "[component]\nname = 3\ninterface = true\nprovides = 'x'\n",
        "b.toml": "component = 7",
        "c.toml": "[[[",
        "d.toml": SCHEDULER.replace("high = 64", "high = nan")
        .replace('"sjf"', "[]")
        .replace("[knob.order]", "[knob.o]"),
        "e.toml": "knob = 3\n" + SCHEDULER.partition("[knob")[0],
        "f.toml": SCHEDULER.replace("value = 16", "value = 999").replace('type = "choice"', 'type = "colour"'),
        "g.toml": SCHEDULER.replace("low = 1", "low = 0").replace('"fcfs"\ntype', '"lifo"\ntype'),
        "h.toml": "knob.x = 3\nknob.y = {value = 1, type = [], surprise = 2}\n" + SCHEDULER.partition("[knob")[0],
    }
    with pytest.raises(ConfigError) as error:
        parse_genome(files)
    problems = error.value.problems
    assert sorted({p.partition(":")[0] for p in problems}) == sorted(files)
    assert [sum(p.startswith(f) for p in problems) for f in sorted(files)] == [4, 1, 1, 2, 1, 2, 2, 2]


def test_two_files_may_not_declare_one_component() -> None:
    with pytest.raises(ConfigError, match=r"b\.toml: component 'scheduler' is declared by another file too"):
        parse_genome({"a.toml": SCHEDULER, "b.toml": SCHEDULER})


TOML_VALUES = st.recursive(
    st.booleans() | st.integers(-9, 9) | st.sampled_from(["nan", "inf", '"x"', '"int"', '"choice"', '"log"', "1.5"]),
    lambda inner: st.lists(inner, max_size=2),
    max_leaves=3,
)


@given(st.dictionaries(st.sampled_from(["value", "type", "low", "high", "scale", "choices", "doc"]), TOML_VALUES))
def test_no_knob_table_breaks_the_parser(table: dict[str, object]) -> None:
    def toml(value: object) -> str:
        if isinstance(value, list):
            return "[" + ", ".join(map(toml, value)) + "]"
        return str(value).lower() if isinstance(value, bool) else str(value)

    lines = "\n".join(f"{key} = {toml(value)}" for key, value in table.items())
    text = f'[component]\nname = "x"\ninterface = 1\nimplementation = "y"\n[knob.k]\n{lines}\n'
    try:
        knob = parse_genome({"x.toml": text}).knobs["x.k"]
    except ConfigError:
        return
    assert isinstance(knob, Knob) and knob.admits(knob.value)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"components": {"scheduler": 2}}, False),
        ({"components": {"sampler": 1}}, False),
        ({"needs": ("paging",)}, False),
        ({"conflicts": ("batching",)}, False),
        ({"provides": ("batching",)}, False),
        ({"provides": ("batching", "chunking")}, True),
    ],
)
def test_a_recipe_applies_where_it_can(changes: dict[str, object], expected: bool) -> None:
    genome = parse_genome({"scheduler.toml": SCHEDULER})
    recipe = Recipe(**{"name": "r", "summary": "s", "components": {"scheduler": 1}, **changes})  # type: ignore[arg-type]
    assert recipe.applies(genome) is expected


def test_unknown_tables_of_objectives_are_named(tmp_path: Path) -> None:
    path = tmp_path / "objectives.toml"
    path.write_text('[objectives]\n[pareto]\nnoise = 0.1\n[[objective]]\nname = "x"\ndirection = "max"\n')
    with pytest.raises(ConfigError) as caught:
        load_objectives(path)
    assert len(caught.value.problems) == 2
