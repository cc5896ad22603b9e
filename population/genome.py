"""Decides what a tree says about itself: components with interface versions, capabilities and declared knobs.

Every component of a candidate is one Python file with one TOML file of the same stem beside it:

    [component]
    name = "scheduler"            # the stem
    interface = 1                 # version of the component interface it implements (docs/recipes.md)
    implementation = "fcfs-one"   # which implementation this is
    provides = []                 # capabilities other recipes may need or conflict with

    [knob.max_batch]              # any number of knobs
    value = 16
    type = "int"                  # int | float | choice
    low = 1                       # int, float: inclusive range, and scale = "linear" | "log"
    high = 64
    scale = "log"
    doc = "sequences decoded together"

Recipes replace the whole file; `tune` changes `value` alone. Files without a [component] table are not components.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from population.errors import ConfigError

KnobValue = int | float | str


@dataclass(frozen=True, slots=True, kw_only=True)
class Knob:
    """One declared knob; `low`/`high` for int and float (inclusive), `choices` for choice."""

    value: KnobValue
    type: Literal["int", "float", "choice"]
    low: float | None = None
    high: float | None = None
    scale: Literal["linear", "log"] = "linear"
    choices: tuple[KnobValue, ...] = ()
    doc: str = ""

    def admits(self, value: KnobValue) -> bool:
        """Whether `value` is of the declared type and inside the declared range."""
        if self.type == "choice":
            return value in self.choices
        if isinstance(value, bool | str) or (self.type == "int" and not isinstance(value, int)):
            return False
        assert self.low is not None and self.high is not None
        return self.low <= value <= self.high


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """One component of a candidate, as its TOML file declares it."""

    name: str
    interface: int
    implementation: str
    provides: tuple[str, ...] = ()
    knobs: Mapping[str, Knob] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Genome:
    """All components of a tree by name; knobs are addressed as `component.knob`."""

    components: Mapping[str, Component] = field(default_factory=dict)

    @property
    def capabilities(self) -> frozenset[str]:
        return frozenset(c for component in self.components.values() for c in component.provides)

    @property
    def knobs(self) -> dict[str, Knob]:
        return {f"{c.name}.{k}": knob for c in self.components.values() for k, knob in c.knobs.items()}


def parse_genome(files: Mapping[str, str]) -> Genome:
    """Parse the TOML files of a tree, given as path → text; paths without a [component] table are ignored.

    Raises:
        ConfigError: with every defect.
    """
    components: dict[str, Component] = {}
    problems: list[str] = []
    for path, text in sorted(files.items()):
        try:
            data = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            problems.append(f"{path}: not valid TOML: {error}")
            continue
        if "component" not in data:
            continue
        component = _component(data, path, problems)
        if component is not None:
            components[component.name] = component
    if problems:
        raise ConfigError(problems)
    return Genome(components)


def _component(data: Mapping[str, Any], path: str, problems: list[str]) -> Component | None:
    head = data["component"]
    if not isinstance(head, dict):
        problems.append(f"{path}: expected a [component] table, got {head!r}")
        return None
    name, interface, implementation = head.get("name"), head.get("interface"), head.get("implementation")
    provides = head.get("provides", [])
    before = len(problems)
    if not isinstance(name, str) or not name:
        problems.append(f"{path}: [component] 'name' must be a string, got {name!r}")
    if isinstance(interface, bool) or not isinstance(interface, int):
        problems.append(f"{path}: [component] 'interface' must be a whole number, got {interface!r}")
    if not isinstance(implementation, str):
        problems.append(f"{path}: [component] 'implementation' must be a string, got {implementation!r}")
    if not isinstance(provides, list) or not all(isinstance(p, str) for p in provides):
        problems.append(f"{path}: [component] 'provides' must be a list of strings, got {provides!r}")
    tables = data.get("knob", {})
    knobs = {k: _knob(t, f"{path}: [knob.{k}]", problems) for k, t in tables.items()} if isinstance(tables, dict) else {}
    if len(problems) > before:
        return None
    return Component(
        name=str(name),
        interface=int(interface),  # type: ignore[arg-type]  # checked above
        implementation=str(implementation),
        provides=tuple(provides),
        knobs={k: knob for k, knob in knobs.items() if knob is not None},
    )


def _knob(table: Any, where: str, problems: list[str]) -> Knob | None:
    try:
        knob = Knob(**{k: tuple(v) if isinstance(v, list) else v for k, v in table.items()})
    except TypeError as error:
        problems.append(f"{where}: {error}; expected value, type, low, high, scale, choices, doc")
        return None
    if knob.type not in ("int", "float", "choice"):
        problems.append(f"{where}: 'type' must be int, float or choice, got {knob.type!r}")
    elif knob.type == "choice" and not knob.choices:
        problems.append(f"{where}: a choice needs 'choices'")
    elif knob.type != "choice" and (knob.low is None or knob.high is None or knob.low > knob.high):
        problems.append(f"{where}: needs 'low' <= 'high', got {knob.low!r} and {knob.high!r}")
    elif not knob.admits(knob.value):
        problems.append(f"{where}: value {knob.value!r} is outside its declared range")
    else:
        return knob
    return None
