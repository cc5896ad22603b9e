"""Decides how skills are listed, read, checked and begun on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vibeserve.commands.options import JsonOption

if TYPE_CHECKING:
    from vibeserve.recipes import Skill

app = typer.Typer(no_args_is_help=True, help="Serving techniques as text for people and agents, some with a recipe.")
_TEMPLATE = Path(__file__).resolve().parent.parent / "templates" / "skill" / "SKILL.md"

_DirOption = Annotated[
    Path | None,
    typer.Option("--dir", metavar="DIR", help="Folder of skills (default: skills, here or of the checkout)."),
]
_NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="A skill's name, e.g. continuous-batching.")]


@app.command("list")
def list_(folder: _DirOption = None, json: JsonOption = False) -> None:
    """Every skill: its name, whether it has a recipe, and what it is for."""
    from rich.table import Table

    from vibeserve.commands.output import console, print_json
    from vibeserve.recipes import load_skills
    from vibeserve.wording import one_line

    where = _folder(folder)
    skills = load_skills(where).values()
    table = Table("skill", "recipe", "use it", box=None, pad_edge=False)
    table.columns[0].no_wrap = True
    for skill in skills:
        table.add_row(skill.name, "yes" if skill.recipe else "", one_line(skill.description))
    console(json).print(table if skills else f"{where}: no skills yet; `vibeserve skills new NAME` begins one")
    if json:
        print_json({"folder": where, "skills": [_brief(skill) for skill in skills]})


@app.command()
def show(name: _NameArgument, folder: _DirOption = None, json: JsonOption = False) -> None:
    """The text of a skill, as an agent reads it."""
    from population.errors import ConfigError
    from vibeserve.commands.output import console, print_json
    from vibeserve.recipes import read_skill
    from vibeserve.wording import clean

    problems: list[str] = []
    skill = read_skill(_one(_folder(folder), name), problems)
    if skill is None:
        raise ConfigError(problems)
    if json:
        return print_json({**_brief(skill), "text": skill.body, "applies": _applies(skill)})
    console(json).print(clean(skill.body.strip()), soft_wrap=True)


@app.command()
def validate(
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="[FOLDER]", help="A skill, or a folder of skills (default: skills, as for list)."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Check skills by the Agent Skills specification, and their recipes; every defect at once, with file and key."""
    from population.errors import ConfigError
    from vibeserve.commands.output import console, print_json
    from vibeserve.recipes import load_skills, read_skill

    where = _folder(folder)
    if any((where / name).exists() for name in ("SKILL.md", "skill.md", "recipe.toml")):
        problems: list[str] = []
        skill = read_skill(where if where.name.strip(".") else where.resolve(), problems)
        if skill is None:
            raise ConfigError(problems)
        skills = [skill]
    else:
        skills = list(load_skills(where).values())
        if not skills:
            raise ConfigError(f"{where}: expected a skill's folder, or a folder of skills, found neither")
    recipes = sum(skill.recipe is not None for skill in skills)
    console(json).print(f"{where}: {len(skills)} valid, {recipes} with a recipe", soft_wrap=True)
    if json:
        print_json({"folder": where, "valid": True, "skills": [skill.name for skill in skills], "problems": []})


@app.command()
def new(
    name: _NameArgument,
    folder: _DirOption = None,
    description: Annotated[
        str | None, typer.Option("--description", metavar="TEXT", help="What it does and when to use it, in one line.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Begin a skill: a folder with a SKILL.md that is valid and has every section to fill in."""
    from population.errors import InfrastructureError, UsageError
    from vibeserve.commands.output import console, print_json
    from vibeserve.frontmatter import read_skill_text, wrong_name

    path = (folder or _folder(None)) / name / "SKILL.md"
    if wrong := wrong_name(name):
        raise UsageError(wrong)
    if path.parent.exists():
        raise UsageError(f"{path.parent}: expected no such folder yet, found one; choose another name")
    text = _begun(name, description)
    problems: list[str] = []
    read_skill_text(path, text, problems)
    if problems:
        raise UsageError("\n".join(problems))
    try:
        path.parent.mkdir(parents=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InfrastructureError(f"{path}: cannot be written: {error.strerror or error}") from error
    screen = console(json)
    screen.print(f"{path}\nNext: fill in its sections; vibeserve skills validate {path.parent}", soft_wrap=True)
    if json:
        print_json({"folder": path.parent, "files": ["SKILL.md"]})


def _folder(given: Path | None) -> Path:
    from vibeserve.layers import CHECKOUT

    folder = given or Path("skills")
    return CHECKOUT / folder if given is None and not folder.is_dir() else folder


def _one(folder: Path, name: str) -> Path:
    import difflib

    from population.errors import ConfigError, UsageError
    from vibeserve.recipes import skill_folders

    if not folder.is_dir():
        raise ConfigError(f"{folder}: expected a folder of skills, found none")
    names = [path.name for path in skill_folders(folder)]
    if name not in names:
        close = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean '{close[0]}'?" if close else "`vibeserve skills list` shows all"
        raise UsageError(f"{folder}: no skill '{name}'; {hint}")
    return folder / name


def _begun(name: str, description: str | None) -> str:
    from json import dumps

    text = _TEMPLATE.read_text(encoding="utf-8")
    text = text.replace("skill-name", name).replace("Skill name", name.replace("-", " ").capitalize())
    if description is None:
        return text
    head, line, rest = text.partition("description: ")
    return head + line + dumps(description, ensure_ascii=False) + rest[rest.index("\n") :]


def _brief(skill: Skill) -> dict[str, Any]:
    return {"name": skill.name, "recipe": skill.recipe is not None, "description": skill.description}


def _applies(skill: Skill) -> dict[str, Any] | None:
    """To which trees its recipe applies; None without one."""
    recipe = skill.recipe
    if recipe is None:
        return None
    lists = {"needs": recipe.needs, "conflicts": recipe.conflicts, "provides": recipe.provides}
    return {"summary": recipe.summary, "components": dict(recipe.components), **{k: list(v) for k, v in lists.items()}}
