"""`vibeserve skills`, and that nothing passes our validator that fails the reference validator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from skills_ref.validator import validate
from typer.testing import CliRunner, Result

from population.errors import ConfigError
from tests.vibeserve.test_recipes import make_skill
from vibeserve.cli import app
from vibeserve.recipes import load_skills

GOOD = "---\nname: one\ndescription: Use when decoding is slow.\n---\n# One\n\nText.\n"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("VIBESERVE_RUNS_DIR", "VIBESERVE_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)


def skills(*args: str | Path) -> Result:
    return CliRunner().invoke(app, ["skills", *(str(arg) for arg in args)])


def told(result: Result) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(result.stdout.strip().splitlines()[-1], parse_constant=pytest.fail)
    return value


def write(text: str, folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "SKILL.md").write_text(text, encoding="utf-8")
    return folder


def problems_of(folder: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load_skills(folder)
    return "\n".join(caught.value.problems)


@pytest.mark.parametrize("command", ["list", "show", "validate", "new"])
def test_every_command_has_help_and_json(command: str) -> None:
    result = skills(command, "--help")
    assert result.exit_code == 0
    assert "--json" in result.output


# --- list and show ----------------------------------------------------------------------------------------------------


def test_list_tells_skills_with_a_recipe_from_text(tmp_path: Path) -> None:
    make_skill(tmp_path / "skills", "fast-path")
    make_skill(tmp_path / "skills", "only-text", recipe=None)
    text = skills("list").stdout.splitlines()
    assert [line.split()[:2] for line in text[1:]] == [["fast-path", "yes"], ["only-text", "Use"]]
    found = told(skills("list", "--json"))
    assert [(s["name"], s["recipe"]) for s in found["skills"]] == [("fast-path", True), ("only-text", False)]
    assert found["skills"][0]["description"] == "Use when decoding is slow."


def test_list_looks_where_it_is_told_and_says_when_there_is_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = skills("list", "--dir", tmp_path / "empty")
    assert (result.exit_code, "no skills yet" in result.stdout) == (0, True)
    assert skills("list", "--dir", tmp_path / "absent").exit_code == ConfigError.exit_code
    assert "continuous-batching" in skills("list").stdout, "the checkout's, where there are none here"


def test_show_gives_the_text_and_where_the_recipe_applies(tmp_path: Path) -> None:
    make_skill(tmp_path, "fast-path")
    make_skill(tmp_path, "only-text", recipe=None)
    assert skills("show", "fast-path", "--dir", tmp_path).stdout == "# Title\n\nText.\n"
    found = told(skills("show", "fast-path", "--dir", tmp_path, "--json"))
    assert found["text"].strip() == "# Title\n\nText."
    assert found["applies"]["needs"] == ["kv-cache"]
    assert found["applies"]["components"] == {"scheduler": 1}
    assert told(skills("show", "only-text", "--dir", tmp_path, "--json"))["applies"] is None


def test_show_cannot_steer_a_terminal(tmp_path: Path) -> None:
    write(GOOD + "\x1b[2J\n", tmp_path / "one")
    assert "\x1b" not in skills("show", "one", "--dir", tmp_path).stdout


@pytest.mark.parametrize(
    ("name", "said"), [("fast-pth", "did you mean 'fast-path'?"), ("../x", "skills list"), ("", "skills list")]
)
def test_show_of_an_unknown_name_helps(tmp_path: Path, name: str, said: str) -> None:
    make_skill(tmp_path, "fast-path")
    result = skills("show", name, "--dir", tmp_path)
    assert (result.exit_code, said in result.stderr) == (2, True)


def test_a_defect_elsewhere_does_not_hide_a_skill(tmp_path: Path) -> None:
    make_skill(tmp_path, "fast-path")
    write("no frontmatter", tmp_path / "broken")
    assert skills("show", "fast-path", "--dir", tmp_path).exit_code == 0
    assert skills("show", "broken", "--dir", tmp_path).exit_code == 3


# --- validate and new -------------------------------------------------------------------------------------------------


def test_validate_names_every_defect_of_text_and_recipe(tmp_path: Path) -> None:
    make_skill(tmp_path, "one", "[recipe]\nversion = 2\n")
    write(GOOD.replace("name: one", "name: other\ncolour: red"), tmp_path / "two")
    result = skills("validate", tmp_path, "--json")
    found = told(result)
    assert (result.exit_code, found["exit_code"]) == (3, 3)
    said = "\n".join(found["problems"])
    assert f"{tmp_path / 'one' / 'recipe.toml'}: [recipe] 'version' must be 1, got 2" in said
    assert "'summary' must be one sentence" in said
    assert f"{tmp_path / 'two' / 'SKILL.md'}: unknown frontmatter field 'colour'" in said
    assert "'name' must be the folder's name 'two', got 'other'" in said


def test_validate_takes_one_skill_a_folder_of_them_or_the_folder_one_is_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_skill(tmp_path / "skills", "fast-path")
    write(GOOD, tmp_path / "skills" / "one")
    assert told(skills("validate", "--json"))["skills"] == ["fast-path", "one"]
    assert "1 valid, 1 with a recipe" in skills("validate", tmp_path / "skills" / "fast-path").stdout
    monkeypatch.chdir(tmp_path / "skills" / "one")
    assert told(skills("validate", ".", "--json"))["skills"] == ["one"]


@pytest.mark.parametrize("folder", ["absent", "empty"])
def test_validate_of_nothing_is_no_success(tmp_path: Path, folder: str) -> None:
    (tmp_path / "empty").mkdir()
    assert skills("validate", tmp_path / folder).exit_code == 3


def test_a_recipe_without_a_text_is_a_defect(tmp_path: Path) -> None:
    (make_skill(tmp_path, "one") / "SKILL.md").unlink()
    assert "SKILL.md: cannot be read" in skills("validate", tmp_path / "one").stderr


@pytest.mark.parametrize("options", [[], ["--description", 'Use when "x": y # z - does a thing.']])
def test_a_new_skill_is_valid_by_both(tmp_path: Path, options: list[str]) -> None:
    assert skills("new", "my-skill", "--dir", tmp_path / "mine", *options).exit_code == 0
    assert skills("validate", tmp_path / "mine").exit_code == 0
    assert validate(tmp_path / "mine" / "my-skill") == []
    text = (tmp_path / "mine" / "my-skill" / "SKILL.md").read_text(encoding="utf-8")
    assert "# My skill" in text
    assert load_skills(tmp_path / "mine")["my-skill"].description == (
        options[1] if options else load_skills(tmp_path / "mine")["my-skill"].description
    )


@pytest.mark.parametrize("name", ["Bad", "a--b", "-a", "a_b", "x" * 65, "../a"])
def test_new_refuses_names_that_are_not_valid(tmp_path: Path, name: str) -> None:
    result = skills("new", "--dir", tmp_path / "mine", "--", name)
    assert (result.exit_code, (tmp_path / "mine").exists()) == (2, False)


def test_new_never_overwrites(tmp_path: Path) -> None:
    folder = write(GOOD, tmp_path / "one")
    assert skills("new", "one", "--dir", tmp_path).exit_code == 2
    assert (folder / "SKILL.md").read_text(encoding="utf-8") == GOOD
    assert skills("new", "two", "--dir", tmp_path, "--description", "x" * 1025).exit_code == 2
    assert not (tmp_path / "two").exists()


# --- the specification ------------------------------------------------------------------------------------------------

BROKEN = {
    "no frontmatter": "# One\n",
    "not closed": "---\nname: one\ndescription: x\n# One\n",
    "blank first": "\n" + GOOD,
    "indented fence": " " + GOOD,
    "byte order mark": "\ufeff" + GOOD,
    "colon in a value": GOOD.replace("is slow.", "is slow: x."),
    "tab": GOOD.replace("description: ", "description:\t- "),
    "unknown field": GOOD.replace("---\n#", "version: 1\n---\n#"),
    "key twice": GOOD.replace("---\n#", "name: one\n---\n#"),
    "flow list": GOOD.replace("---\n#", "allowed-tools: [a, b]\n---\n#"),
    "flow map": GOOD.replace("---\n#", "metadata: {a: b}\n---\n#"),
    "anchor": GOOD.replace("description: ", "description: &a "),
    "tag": GOOD.replace("description: ", "description: !!str "),
    "a list": "---\n- name\n---\nx\n",
    "empty": "---\n---\nx\n",
    "no description": "---\nname: one\n---\nx\n",
    "empty description": GOOD.replace("Use when decoding is slow.", ""),
    "blank description": GOOD.replace("Use when decoding is slow.", "'  '"),
    "long description": GOOD.replace("slow", "s" * 1024),
    "description is a map": GOOD.replace("Use when decoding is slow.", "\n  a: b"),
    "long compatibility": GOOD.replace("---\n#", f"compatibility: {'x' * 501}\n---\n#"),
    "other name": GOOD.replace("name: one", "name: two"),
    "upper case": GOOD.replace("name: one", "name: One"),
    "no name": GOOD.replace("name: one\n", ""),
    "compatibility is a map": GOOD.replace("---\n#", "compatibility:\n  a: b\n---\n#"),
}
FINE = {
    "plain": GOOD,
    "quoted": GOOD.replace("Use when decoding is slow.", '"Use when: it is # slow"'),
    "folded": GOOD.replace("Use when", ">-\n  Use when\n "),
    "all fields": GOOD.replace(
        "---\n#",
        "license: MIT\ncompatibility: Linux\nallowed-tools: Bash Read\nmetadata:\n  area: x\n  version: 1.0\n---\n#",
    ),
    "a comment": GOOD.replace("name: one", "# why\nname: one"),
    "windows": GOOD.replace("\n", "\r\n"),
    "a rule in the body": GOOD + "\n---\n\nMore.\n",
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_the_reference_refuses_we_refuse(tmp_path: Path, what: str) -> None:
    folder = write(BROKEN[what], tmp_path / "one")
    assert validate(folder) != [], "the case is none"
    assert str(folder / "SKILL.md") in problems_of(tmp_path)


@pytest.mark.parametrize("what", FINE)
def test_what_the_reference_accepts_we_accept(tmp_path: Path, what: str) -> None:
    folder = tmp_path / "one"
    folder.mkdir()
    (folder / "SKILL.md").write_bytes(FINE[what].encode())
    assert validate(folder) == []
    assert set(load_skills(tmp_path)) == {"one"}


def test_a_folded_description_is_one_line(tmp_path: Path) -> None:
    write(FINE["folded"], tmp_path / "one")
    assert load_skills(tmp_path)["one"].description == "Use when decoding is slow."


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("[a](../other/SKILL.md)", "leaves the skill's folder"),
        ("[a](/etc/passwd)", "leaves the skill's folder"),
        ("[a](references/deep/x.md)", "more than one level deep"),
        ("[a](references/absent.md)", "leads to no file"),
        ("[a](references/chain.md)", "chain.md: links to 'more.md', which SKILL.md does not"),
        ("", "the body is empty"),
        ("x\n" * 500, "must stay below 500 lines, got 500"),
    ],
)
def test_what_we_ask_beyond_the_reference(tmp_path: Path, body: str, expected: str) -> None:
    folder = write(GOOD.split("# One")[0] + body, tmp_path / "one")
    (folder / "references").mkdir()
    (folder / "references" / "chain.md").write_text("[more](more.md)\n")
    (folder / "references" / "more.md").write_text("more\n")
    assert expected in problems_of(tmp_path)


def test_dashes_in_the_frontmatter_would_cut_it_for_other_readers(tmp_path: Path) -> None:
    write(GOOD.replace("is slow", "--- is slow"), tmp_path / "one")
    assert "readers of the format cut there" in problems_of(tmp_path)


def test_links_that_are_fine(tmp_path: Path) -> None:
    body = "[a](references/a.md#part) [b](https://example.org/x/y/z) [c](#one) `[d](../x)`\n```\n[e](/x/y)\n```\n"
    folder = write(GOOD + body, tmp_path / "one")
    (folder / "references").mkdir()
    (folder / "references" / "a.md").write_text("[back](../SKILL.md) and [itself](a.md)\n")
    assert set(load_skills(tmp_path)) == {"one"}


def test_metadata_holds_text_under_text(tmp_path: Path) -> None:
    write(GOOD.replace("---\n#", "metadata:\n  a:\n    b: c\n---\n#"), tmp_path / "one")
    write(GOOD.replace("one", "two").replace("---\n#", "metadata: x\ncompatibility:\n---\n#"), tmp_path / "two")
    said = problems_of(tmp_path)
    assert "'metadata.a' must be text, got a mapping" in said
    assert "'metadata' must be 'key: value' lines" in said
    assert "'compatibility' must have 1-500 characters, got 0" in said
