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
    trades = true                 # optional: a dial along the front, better in one objective, worse in another

Recipes replace the whole file; `tune` changes `value` alone. Files without a [component] table are not components.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeGuard

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
    trades: bool = False
    """Whether moving it is known to make one objective better and another worse; the search tries such dials first."""

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
        if component is not None and component.name in components:
            problems.append(f"{path}: component '{component.name}' is declared by another file too")
        elif component is not None:
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
    if not isinstance(tables, dict):
        problems.append(f"{path}: expected [knob.NAME] tables, got knob = {tables!r}")
        tables = {}
    knobs = {k: _knob(t, f"{path}: [knob.{k}]", problems) for k, t in tables.items()}
    if len(problems) > before:
        return None
    return Component(
        name=str(name),
        interface=int(interface),  # type: ignore[arg-type]  # checked above
        implementation=str(implementation),
        provides=tuple(provides),
        knobs={k: knob for k, knob in knobs.items() if knob is not None},
    )


_KNOB_KEYS = frozenset({"value", "type", "low", "high", "scale", "choices", "doc", "trades"})


def _knob(table: Any, where: str, problems: list[str]) -> Knob | None:
    """The declared knob, or None with one problem added. The file may be a candidate's: anything can stand in it."""
    problem = _knob_problem(table)
    if problem is None:
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in table.items()}
        knob = Knob(**fields)
        if knob.admits(knob.value):
            return knob
        problem = f"value {knob.value!r} is outside its declared range"
    problems.append(f"{where}: {problem}")
    return None


def _knob_problem(table: Any) -> str | None:
    if not isinstance(table, dict) or not {"value", "type"} <= table.keys() <= _KNOB_KEYS:
        return f"expected a table with value and type, and of low, high, scale, choices, doc, trades, got {table!r}"
    if table["type"] not in ("int", "float", "choice"):
        return f"'type' must be int, float or choice, got {table['type']!r}"
    if table.get("scale", "linear") not in ("linear", "log"):
        return f"'scale' must be linear or log, got {table['scale']!r}"
    if not isinstance(table.get("doc", ""), str):
        return f"'doc' must be a string, got {table['doc']!r}"
    if not isinstance(table.get("trades", False), bool):
        return f"'trades' must be true or false, got {table['trades']!r}"
    if table["type"] == "choice":
        choices = table.get("choices")
        fine = isinstance(choices, list) and choices and all(_is_value(choice) for choice in choices)
        return None if fine else f"a choice needs 'choices', a list of numbers or strings, got {choices!r}"
    low, high = table.get("low"), table.get("high")
    if not _is_number(low) or not _is_number(high) or low > high:
        return f"needs 'low' <= 'high', got {low!r} and {high!r}"
    return "scale 'log' needs 'low' > 0" if table.get("scale") == "log" and low <= 0 else None


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_value(value: Any) -> bool:
    return isinstance(value, str) or _is_number(value)
