"""Decides whether a SKILL.md keeps the Agent Skills specification, and names every defect with file and key.

Source: https://agentskills.io/specification. YAML is read as its reference validator (skills-ref) reads it: block
style, no key twice, no anchors, no tags, every scalar a text. Stricter than that: names are ASCII, the body stays below
500 lines, and what a body links to lies in the skill's folder, one level deep.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
MAX_NAME = 64
MAX_DESCRIPTION = 1024
MAX_COMPATIBILITY = 500
MAX_BODY_LINES = 500
FIELDS = ("name", "description", "license", "compatibility", "metadata", "allowed-tools")

_CODE = re.compile(r"^(`{3,}|~{3,}).*?^\1[^\n]*$|`[^`\n]*`", re.M | re.S)
_LINK = re.compile(r"\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)")
_SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*:|#|//")


@dataclass(frozen=True, slots=True, kw_only=True)
class SkillText:
    """A SKILL.md taken apart."""

    fields: Mapping[str, str | Mapping[str, str]] = field(default_factory=dict)
    body: str = ""

    @property
    def description(self) -> str:
        """Without surrounding blanks and line breaks; empty if there is none."""
        value = self.fields.get("description", "")
        return " ".join(value.split()) if isinstance(value, str) else ""


def read_skill_text(path: Path, text: str, problems: list[str]) -> SkillText:
    """SKILL.md at `path` with the content `text`; what is wrong with it is appended to `problems`."""
    lines = text.split("\n")
    closing = next((i for i, line in enumerate(lines[1:], 1) if line.rstrip() == "---"), None)
    if lines[0].rstrip() != "---" or closing is None:
        problems.append(f"{path}: expected frontmatter between two '---' lines at the top of the file, found none")
        return SkillText(body=text)
    head = "\n".join(lines[1:closing])
    found = SkillText(fields=_fields(head, path, problems), body="\n".join(lines[closing + 1 :]))
    if "---" in head:
        problems.append(f"{path}: '---' inside the frontmatter: readers of the format cut there; use another dash")
    problems += _wrong_fields(found.fields, path)
    problems += _wrong_body(found.body, path)
    return found


def wrong_name(name: str) -> str | None:
    """Why this cannot be the name of a skill, or None if it can."""
    if NAME.fullmatch(name) and len(name) <= MAX_NAME:
        return None
    return f"a skill's name is 1-{MAX_NAME} lowercase letters, digits and single hyphens between them, got {name!r}"


def _fields(head: str, path: Path, problems: list[str]) -> dict[str, str | dict[str, str]]:
    import yaml  # 60 ms that `--help` and a run without skills need not pay

    try:
        node = yaml.compose(head, Loader=yaml.SafeLoader)
        problems += [f"{path}: frontmatter: {wrong}" for wrong in _beyond_block_style(head)]
    except yaml.YAMLError as error:
        said = " ".join(str(error).split())
        problems.append(f"{path}: frontmatter is not YAML: {said}; quote values that hold ': ' or ' #'")
        return {}
    if not isinstance(node, yaml.MappingNode):
        problems.append(f"{path}: frontmatter: expected 'key: value' lines, found none")
        return {}
    fields: dict[str, str | dict[str, str]] = {}
    for key, value in _pairs(node, str(path), problems):
        if isinstance(value, yaml.ScalarNode):
            fields[key] = value.value
        elif key == "metadata" and isinstance(value, yaml.MappingNode):
            pairs = _pairs(value, f"{path}: 'metadata'", problems)
            fields[key] = {name: _text(item, f"{path}: 'metadata.{name}'", problems) for name, item in pairs}
        else:
            fields[key] = _text(value, f"{path}: '{key}'", problems)
    return fields


def _beyond_block_style(head: str) -> Iterator[str]:
    """What YAML allows and the reference validator does not."""
    import yaml

    for event in yaml.parse(head, Loader=yaml.SafeLoader):
        where = f"line {event.start_mark.line + 2}: "
        if getattr(event, "flow_style", None):
            yield where + "[…] and {…} are not read; write one 'key: value' per line"
        if getattr(event, "anchor", None) is not None or getattr(event, "tag", None) is not None:
            yield where + "anchors, aliases and tags are not read; write the value itself"


def _pairs(mapping: Any, where: str, problems: list[str]) -> Iterator[tuple[str, Any]]:
    seen: set[str] = set()
    for key, value in mapping.value:
        name = _text(key, f"{where}: a key", problems)
        if name in seen:
            problems.append(f"{where}: key '{name}' is given twice")
        seen.add(name)
        yield name, value


def _text(node: Any, where: str, problems: list[str]) -> str:
    import yaml

    if isinstance(node, yaml.ScalarNode):
        return str(node.value)
    problems.append(f"{where} must be text, got a {node.id}")
    return ""


def _wrong_fields(fields: Mapping[str, str | Mapping[str, str]], path: Path) -> Iterator[str]:
    for key in fields:
        if key not in FIELDS:
            yield f"{path}: unknown frontmatter field '{key}'; expected one of {', '.join(FIELDS)}"
    folder = path.parent.name
    if fields.get("name") != folder:
        yield f"{path}: 'name' must be the folder's name '{folder}', got {fields.get('name')!r}"
    if wrong := wrong_name(folder):
        yield f"{path.parent}: {wrong}"
    for key, most, needed in (("description", MAX_DESCRIPTION, True), ("compatibility", MAX_COMPATIBILITY, False)):
        value = fields.get(key, "")
        if (needed or key in fields) and not (isinstance(value, str) and value.strip() and len(value) <= most):
            yield f"{path}: '{key}' must have 1-{most} characters, got {len(value)}"
    if isinstance(fields.get("metadata", {}), str):
        yield f"{path}: 'metadata' must be 'key: value' lines, indented below it, got text"


def _wrong_body(body: str, path: Path) -> Iterator[str]:
    if not body.strip():
        yield f"{path}: the body is empty; write what an agent should know"
    if (count := len(body.splitlines())) >= MAX_BODY_LINES:
        yield f"{path}: the body must stay below {MAX_BODY_LINES} lines, got {count}; move detail to references/"
    linked = sorted(set(_links(body)))
    for target in linked:
        yield from _wrong_link(path, target)
    for target in (t for t in linked if t.endswith(".md") and (path.parent / t).is_file()):
        file = path.parent / target
        for deeper in sorted(set(_links(file.read_text(encoding="utf-8", errors="replace")))):
            named = (file.parent / deeper).resolve()
            if named not in {path.resolve(), *((path.parent / t).resolve() for t in linked)}:
                yield f"{file}: links to '{deeper}', which SKILL.md does not; references are one level deep"


def _links(markdown: str) -> list[str]:
    """Targets of links to files, without fragments; code is no link."""
    targets = (match[1] for match in _LINK.finditer(_CODE.sub("", markdown)))
    return [target.partition("#")[0] for target in targets if not _SCHEME.match(target)]


def _wrong_link(path: Path, target: str) -> Iterator[str]:
    if target.startswith("/") or ".." in target.split("/"):
        yield f"{path}: the link '{target}' leaves the skill's folder; name another skill by its name alone"
    elif target.count("/") > 1:
        yield f"{path}: the link '{target}' is more than one level deep; use references/FILE"
    elif not (path.parent / target).exists():
        yield f"{path}: the link '{target}' leads to no file"
