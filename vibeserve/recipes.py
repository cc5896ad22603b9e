"""Decides which skills a folder offers and what their recipes are: loads them, and names every defect at once.

Format: docs/recipes.md.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import inf
from pathlib import Path, PurePosixPath
from typing import Any

from population.errors import ConfigError
from population.genome import Genome, parse_genome
from population.recipe import Edit, Recipe
from vibeserve.frontmatter import NAME, SkillText, read_skill_text

FORMAT_VERSION = 1
_RECIPE_KEYS = {"version", "summary", "components", "needs", "conflicts", "provides"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Skill:
    """The part of a skill that people and LLM agents read; https://agentskills.io/specification."""

    name: str
    description: str
    body: str
    recipe: Recipe | None = None
    """None: the skill is text only."""


def load_recipes(folder: Path) -> dict[str, Recipe]:
    """Recipes of every skill below `folder` that has a recipe.toml, by name, in name order.

    Raises:
        ConfigError: with every defect of every skill, each naming file and key.
    """
    return {name: skill.recipe for name, skill in load_skills(folder).items() if skill.recipe is not None}


def load_skills(folder: Path) -> dict[str, Skill]:
    """Every skill below `folder`, with or without a recipe, by name, in name order.

    Raises:
        ConfigError: with every defect of every skill, each naming file and key.
    """
    if not folder.is_dir():
        raise ConfigError(
            f"{folder}: expected a folder of skills, found none; give the path of a folder such as skills/"
        )
    problems: list[str] = []
    found = (read_skill(path, problems) for path in skill_folders(folder))
    skills = {skill.name: skill for skill in found if skill is not None}
    if problems:
        raise ConfigError(problems)
    return skills


def skill_folders(folder: Path) -> list[Path]:
    """Every folder below `folder` that should hold a skill, in name order."""
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith((".", "_")))


def read_skill(folder: Path, problems: list[str]) -> Skill | None:
    """The skill in `folder`; None if something is wrong with it, which is appended to `problems`."""
    before = len(problems)
    path = folder / "SKILL.md"
    text = _read(path, problems)
    found = read_skill_text(path, text, problems) if text is not None else SkillText()
    recipe = _recipe(folder, problems) if (folder / "recipe.toml").exists() else None
    if len(problems) > before:
        return None
    return Skill(name=folder.name, description=found.description, body=found.body, recipe=recipe)


def _read(path: Path, problems: list[str]) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        problems.append(f"{path}: cannot be read: {error.strerror}")
    except UnicodeDecodeError as error:
        problems.append(f"{path}: not UTF-8: {error}")
    return None


def _recipe(folder: Path, problems: list[str]) -> Recipe | None:
    path = folder / "recipe.toml"
    before = len(problems)
    text = _read(path, problems)
    if text is None:
        return None
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        problems.append(f"{path}: not valid TOML: {error}")
        return None
    head = data.get("recipe")
    if not isinstance(head, dict):
        problems.append(f"{path}: expected a [recipe] table, got {head!r}")
        return None
    problems += _unknown(data, {"recipe", "expected", "replace", "edit"}, str(path))
    problems += _unknown(head, _RECIPE_KEYS, f"{path}: [recipe]")
    if head.get("version") != FORMAT_VERSION:
        problems.append(f"{path}: [recipe] 'version' must be {FORMAT_VERSION}, got {head.get('version')!r}")
    if not isinstance(head.get("summary"), str) or not head["summary"].strip():
        problems.append(f"{path}: [recipe] 'summary' must be one sentence, got {head.get('summary')!r}")
    components = _components(head.get("components"), path, problems)
    needs, conflicts, provides = (
        _capabilities(head, key, path, problems) for key in ("needs", "conflicts", "provides")
    )
    replaces, files = _replaces(data.get("replace", []), folder, components, problems)
    edits = _edits(data.get("edit", []), path, files, problems)
    expected = _expected(data.get("expected", {}), path, problems)
    if not files and not edits and len(problems) == before:
        problems.append(f"{path}: expected at least one [[replace]] or [[edit]], found none")
    if len(problems) > before:
        return None
    problems += _consistency(path, needs, conflicts, provides, files, edits)
    return Recipe(
        name=folder.name,
        summary=head["summary"].strip(),
        components=components,
        needs=needs,
        conflicts=conflicts,
        provides=provides,
        replaces=replaces,
        files=files,
        edits=edits,
        expected=expected,
    )


def _unknown(table: Mapping[str, Any], known: Iterable[str], where: str) -> list[str]:
    expected = sorted(known)
    return [f"{where}: unknown key '{k}'; expected one of {', '.join(expected)}" for k in table if k not in expected]


def _components(value: Any, path: Path, problems: list[str]) -> dict[str, int]:
    if not isinstance(value, dict) or not value:
        problems.append(f"{path}: [recipe] 'components' must be a table such as {{scheduler = 1}}, got {value!r}")
        return {}
    for name, version in value.items():
        if isinstance(version, bool) or not isinstance(version, int):
            problems.append(f"{path}: [recipe] components.{name} must be an interface version, got {version!r}")
    return value


def _capabilities(head: Mapping[str, Any], key: str, path: Path, problems: list[str]) -> tuple[str, ...]:
    value = head.get(key, [])
    if not isinstance(value, list) or not all(isinstance(c, str) and NAME.fullmatch(c) for c in value):
        problems.append(
            f"{path}: [recipe] '{key}' must be a list of capability names such as 'kv-cache', got {value!r}"
        )
        return ()
    return tuple(value)


def _expected(value: Any, path: Path, problems: list[str]) -> dict[str, float]:
    if not isinstance(value, dict):
        problems.append(f"{path}: [expected] must be a table such as {{output_throughput = 1.2}}, got {value!r}")
        return {}
    bad = {k: v for k, v in value.items() if isinstance(v, bool) or not isinstance(v, int | float) or not 0 < v < inf}
    problems += [
        f"{path}: [expected] '{name}' must say how many times better the objective becomes: a number above 0 "
        f"(1: no change; 0.5: twice as bad), got {factor!r}"
        for name, factor in bad.items()
    ]
    return {name: float(factor) for name, factor in value.items() if name not in bad}


def _tables(value: Any, key: str, path: Path, problems: list[str]) -> list[dict[str, Any]]:
    if isinstance(value, list) and all(isinstance(v, dict) for v in value):
        return value
    problems.append(f"{path}: expected [[{key}]] tables, got {value!r}")
    return []


def _replaces(
    value: Any, folder: Path, components: Mapping[str, int], problems: list[str]
) -> tuple[tuple[str, ...], dict[str, str]]:
    path = folder / "recipe.toml"
    names: list[str] = []
    files: dict[str, str] = {}
    for i, table in enumerate(_tables(value, "replace", path, problems), 1):
        where = f"{path}: [[replace]] {i}"
        problems += _unknown(table, ("component",), where)
        name = table.get("component")
        if not isinstance(name, str) or not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            problems.append(f"{where} 'component' must be a component's name such as 'scheduler', got {name!r}")
            continue
        if name not in components:
            problems.append(f"{where}: component '{name}' is missing from [recipe] 'components'")
        if name in names:
            problems.append(f"{where}: component '{name}' is replaced twice")
        names.append(name)
        for suffix in ("py", "toml"):
            text = _read(folder / f"{name}.{suffix}", problems)
            if text is not None:
                files[f"{name}.{suffix}"] = text
        _check_component(folder / f"{name}.toml", files.get(f"{name}.toml"), components.get(name), problems)
    return tuple(names), files


def _check_component(path: Path, text: str | None, interface: int | None, problems: list[str]) -> None:
    if text is None:
        return
    try:
        genome = parse_genome({str(path): text})
    except ConfigError as error:
        problems.extend(error.problems)
        return
    component = genome.components.get(path.stem)
    if component is None:
        problems.append(f"{path}: [component] 'name' must be '{path.stem}', got {sorted(genome.components)}")
    elif interface is not None and component.interface != interface:
        problems.append(
            f"{path}: [component] 'interface' must be {interface} as in recipe.toml, got {component.interface}"
        )


def _edits(value: Any, path: Path, files: Mapping[str, str], problems: list[str]) -> tuple[Edit, ...]:
    edits: list[Edit] = []
    for i, table in enumerate(_tables(value, "edit", path, problems), 1):
        where = f"{path}: [[edit]] {i}"
        problems += _unknown(table, ("path", "find", "replace"), where)
        bad = [k for k in ("path", "find", "replace") if not isinstance(table.get(k), str)]
        problems += [f"{where} '{k}' must be a string, got {table.get(k)!r}" for k in bad]
        if bad:
            continue
        edit = Edit(path=table["path"], find=table["find"], replace=table["replace"])
        pure = PurePosixPath(edit.path)
        if pure.is_absolute() or ".." in pure.parts or not pure.parts:
            problems.append(f"{where} 'path' must stay inside the tree, got {edit.path!r}")
        if edit.path in files:
            problems.append(f"{where} 'path' {edit.path} is replaced by the same recipe; put the change into that file")
        if not edit.find.strip() or edit.find == edit.replace:
            problems.append(f"{where} 'find' must be text that differs from 'replace', got {edit.find!r}")
        edits.append(edit)
    return tuple(edits)


def _consistency(
    path: Path,
    needs: tuple[str, ...],
    conflicts: tuple[str, ...],
    provides: tuple[str, ...],
    files: Mapping[str, str],
    edits: tuple[Edit, ...],
) -> list[str]:
    """A capability that is promised must be written down in a component's TOML file, or `applies` never sees it."""
    written = parse_genome({name: text for name, text in files.items() if name.endswith(".toml")})
    declared = _declared(written) | {
        c for edit in edits if edit.path.endswith(".toml") for c in re.findall(r'"([a-z0-9-]+)"', edit.replace)
    }
    return [
        f"{path}: [recipe] provides '{c}', but no replaced or edited component TOML file declares it in 'provides'"
        for c in provides
        if c not in declared
    ] + [f"{path}: [recipe] both needs and conflicts with '{c}'" for c in needs if c in conflicts]


def _declared(genome: Genome) -> set[str]:
    return set(genome.capabilities)
