"""The tool by which a model reads a skill, once its name and description made it curious."""

from __future__ import annotations

from collections.abc import Mapping

from vibeserve.agents.tools.tool import Arguments, ToolProblem, bounded

Shelf = Mapping[str, Mapping[str, str]]
"""Skill → relative path → text."""
_MAIN = "SKILL.md"


class LoadSkillArguments(Arguments):
    name: str
    file: str = _MAIN
    """Another file of the skill, such as one that SKILL.md refers to."""


class LoadSkill:
    """Shows a skill's text, or one of its files."""

    name = "load_skill"
    description = "Read a serving skill: what it is, when it pays, how to do it right, and its pitfalls."
    arguments = LoadSkillArguments

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    def call(self, given: LoadSkillArguments, deadline_s: float) -> str:
        skill = self._shelf.get(given.name)
        if skill is None:
            raise ToolProblem(f"there is no skill '{given.name}'; there are {', '.join(sorted(self._shelf)) or 'none'}")
        text = skill.get(given.file)
        if text is None:
            raise ToolProblem(f"{given.name} has no {given.file}; it has {', '.join(sorted(skill))}")
        others = sorted(name for name in skill if name != given.file)
        return bounded(text) + (f"\n\n[other files: {', '.join(others)}]" if others and given.file == _MAIN else "")
