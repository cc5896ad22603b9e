"""Recipe folders: what loads, and that every defect is named at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from population.errors import ConfigError
from population.genome import parse_genome
from vibeserve.recipes import load_recipes, load_skills

SKILL = "---\nname: {name}\ndescription: Use when decoding is slow.\nmetadata:\n  area: decode\n---\n# Title\n\nText.\n"
COMPONENT = '[component]\nname = "{name}"\ninterface = {interface}\nimplementation = "x"\nprovides = ["fast"]\n'
RECIPE = (
    '[recipe]\nversion = 1\nsummary = "Faster."\ncomponents = {scheduler = 1}\nneeds = ["kv-cache"]\n'
    'conflicts = ["slow"]\nprovides = ["fast"]\n\n[expected]\noutput_throughput = 2\n\n'
    '[[replace]]\ncomponent = "scheduler"\n\n'
    '[[edit]]\npath = "server.py"\nfind = "a = 1"\nreplace = "a = 2"\n'
)


def make_skill(folder: Path, name: str, recipe: str | None = RECIPE, interface: int = 1) -> Path:
    skill = folder / name
    skill.mkdir(parents=True)
    (skill / "SKILL.md").write_text(SKILL.format(name=name))
    if recipe is not None:
        (skill / "recipe.toml").write_text(recipe)
    (skill / "scheduler.py").write_text("x = 1\n")
    (skill / "scheduler.toml").write_text(COMPONENT.format(name="scheduler", interface=interface))
    return skill


def problems_of(folder: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load_recipes(folder)
    return "\n".join(caught.value.problems)


def test_loads_everything_a_recipe_declares(tmp_path: Path) -> None:
    make_skill(tmp_path, "fast-path")
    make_skill(tmp_path, "text-only", recipe=None)
    recipes = load_recipes(tmp_path)
    assert list(recipes) == ["fast-path"]
    recipe = recipes["fast-path"]
    assert recipe.summary == "Faster."
    assert recipe.components == {"scheduler": 1}
    assert (recipe.needs, recipe.conflicts, recipe.provides) == (("kv-cache",), ("slow",), ("fast",))
    assert recipe.replaces == ("scheduler",)
    assert recipe.expected == {"output_throughput": 2.0}
    assert set(recipe.files) == {"scheduler.py", "scheduler.toml"}
    assert recipe.edits[0].path == "server.py"
    assert recipe.edits[0].replace == "a = 2"
    assert set(load_skills(tmp_path)) == {"fast-path", "text-only"}
    assert load_skills(tmp_path)["text-only"].body.startswith("# Title")


def test_applies_by_interface_needs_conflicts_and_provides(tmp_path: Path) -> None:
    make_skill(tmp_path, "fast-path")
    recipe = load_recipes(tmp_path)["fast-path"]

    def genome(provides: str, interface: int = 1):  # type: ignore[no-untyped-def]
        head = f'[component]\nname = "scheduler"\ninterface = {interface}\nimplementation = "fcfs"\n'
        return parse_genome({"scheduler.toml": f"{head}provides = {provides}\n"})

    assert recipe.applies(genome('["kv-cache"]'))
    assert not recipe.applies(genome("[]"))
    assert not recipe.applies(genome('["kv-cache", "slow"]'))
    assert not recipe.applies(genome('["kv-cache", "fast"]'))
    assert not recipe.applies(genome('["kv-cache"]', interface=2))


def test_every_defect_is_named_at_once_with_file_and_key(tmp_path: Path) -> None:
    first = make_skill(
        tmp_path,
        "first",
        '[recipe]\nversion = 2\nsummary = ""\ncomponents = {model = "1"}\nneeds = "kv"\nprovidez = []\n'
        '[[replace]]\ncomponent = "scheduler"\n[[edit]]\npath = "../x.py"\nfind = ""\nreplace = ""\n',
    )
    second = make_skill(tmp_path, "second", interface=3)
    (second / "SKILL.md").write_text("---\nname: other\ncolour: red\n---\n" + "x\n" * 500)
    text = problems_of(tmp_path)
    for expected in (
        f"{first / 'recipe.toml'}: [recipe] 'version' must be 1, got 2",
        "'summary' must be one sentence",
        "components.model must be an interface version, got '1'",
        "'needs' must be a list of capability names",
        "unknown key 'providez'",
        "component 'scheduler' is missing from [recipe] 'components'",
        "'path' must stay inside the tree, got '../x.py'",
        "[[edit]] 1 'find' must be text",
        f"{second / 'SKILL.md'}: unknown frontmatter field 'colour'",
        "'name' must be the folder's name 'second', got 'other'",
        "'description' must have 1-1024 characters, got 0",
        "the body must stay below 500 lines, got 500",
        "'interface' must be 1 as in recipe.toml, got 3",
    ):
        assert expected in text


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        ("[recipe\n", "not valid TOML"),
        ("x = 1\n", "expected a [recipe] table"),
        (RECIPE.replace('provides = ["fast"]', 'provides = ["warp"]'), "provides 'warp', but no replaced or edited"),
        (RECIPE.replace('["slow"]', '["kv-cache"]'), "both needs and conflicts with 'kv-cache'"),
        (RECIPE.replace("server.py", "scheduler.py"), "is replaced by the same recipe"),
        (RECIPE.replace('component = "scheduler"', 'component = "model"'), "component 'model' is missing"),
        (RECIPE.replace('component = "scheduler"', "component = 3"), "'component' must be a component's name"),
        (RECIPE.replace("throughput = 2", "throughput = 0"), "'output_throughput' must say how many times better"),
        (RECIPE.replace("throughput = 2", "throughput = true"), "'output_throughput' must say how many times better"),
        (RECIPE.replace('find = "a = 1"', "find = 1"), "[[edit]] 1 'find' must be a string, got 1"),
        (RECIPE.split("[[replace]]")[0], "expected at least one [[replace]] or [[edit]]"),
    ],
)
def test_a_defect_of_recipe_toml(tmp_path: Path, recipe: str, expected: str) -> None:
    make_skill(tmp_path, "one", recipe)
    assert expected in problems_of(tmp_path)


def test_missing_files_are_named(tmp_path: Path) -> None:
    skill = make_skill(tmp_path, "one")
    (skill / "scheduler.py").unlink()
    (skill / "SKILL.md").unlink()
    text = problems_of(tmp_path)
    assert f"{skill / 'scheduler.py'}: cannot be read" in text
    assert f"{skill / 'SKILL.md'}: cannot be read" in text
    assert "expected a folder of skills" in problems_of(tmp_path / "absent")


def test_bad_folder_names_and_missing_frontmatter(tmp_path: Path) -> None:
    make_skill(tmp_path, "Bad_Name")
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "SKILL.md").write_text("# no frontmatter\n")
    text = problems_of(tmp_path)
    assert "a skill's name is 1-64 lowercase letters" in text
    assert "expected frontmatter between two '---'" in text


def test_the_shipped_skills_load() -> None:
    recipes = load_recipes(Path(__file__).parents[2] / "skills")
    assert {"kv-cache", "continuous-batching"} <= set(recipes)
    for recipe in recipes.values():
        assert recipe.components
