"""Decides how a config is written down: run.toml with the origin of every value, and the reference docs/config.md."""

from __future__ import annotations

import json
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from vibeserve.config import Config

DEFAULT_ORIGIN = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One key of the config with its effective value."""

    key: str
    value: object
    origin: str


def options(config: Config) -> list[Option]:
    """Every key in the order of the tree, with its value and origin."""
    return [
        Option(key=key, value=_value(config, key), origin=config.origins.get(key, DEFAULT_ORIGIN))
        for key, _ in _fields(Config, "")
    ]


def to_toml(config: Config) -> str:
    """run.toml: every effective value with its origin as a comment.

    Values of the environment are commented out, because they belong to the machine and not to the run.
    """
    lines: list[str] = []
    table = ""
    for option in options(config):
        head, _, name = option.key.rpartition(".")
        if head != table:
            table = head
            lines += ["", f"[{table}]"]
        text = f"{'# ' if option.origin.startswith('env ') else ''}{name} = {_toml(option.value)}"
        lines.append(text if option.origin == DEFAULT_ORIGIN else f"{text}  # {option.origin}")
    return "\n".join(lines) + "\n"


def reference() -> str:
    """docs/config.md, from the docstrings of the config tree."""
    lines = [_INTRODUCTION]
    table: str | None = None
    for key, info in _fields(Config, ""):
        head, _, name = key.rpartition(".")
        if head != table:
            table = head
            lines += ["", f"## `[{table}]`" if table else "## Top level", ""]
            lines += ["| key | type | default | meaning |", "|---|---|---|---|"]
        default = info.get_default(call_default_factory=True)
        shown = "none" if default is None else f"`{_toml(default)}`"
        lines.append(f"| `{name}` | {_type(info)} | {shown} | {_oneline(info.description)} |")
    return "\n".join(lines) + "\n"


_INTRODUCTION = """# Config reference

Generated from `vibeserve/config.py` by `python -m vibeserve.config_text docs/config.md`; a test keeps it up to date.

Values come in layers, weakest first: defaults, environment (`VIBESERVE_RUNS_DIR`, `RAY_ADDRESS`), `--preset`,
`--config` files in the order given, `-s key=value`, and flags. `vibeserve run TARGET --dry-run` shows every effective
value and where it came from; `run.toml` in the run folder records the same. `none` unsets a value that may be unset.
Unknown keys are errors, and all errors are shown at once (exit code 3).

```
vibeserve run examples/tiny-llama --config run.toml -s search.frontier_bias=0.9 -s budget.children=50
```"""


def _fields(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, FieldInfo]]:
    nested = []
    for name, info in model.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            nested.append((name, info.annotation))
        else:
            yield prefix + name, info
    for name, section in nested:
        yield from _fields(section, f"{prefix}{name}.")


def _value(config: Config, key: str) -> object:
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part)
    if isinstance(value, tuple):  # rows of an array of tables; unset is left out: the loader does not look inside
        return [{n: v for n, v in row if v is not None} if isinstance(row, BaseModel) else row for row in value]
    return value


def _toml(value: object) -> str:
    if value is None:
        return '"none"'  # TOML has no null; the loader reads this word as unset
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(k)} = {_toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(v) for v in value) + "]"
    if isinstance(value, Path):
        value = str(value)
    # JSON's strings, numbers and booleans are TOML's too, once non-ASCII stays as it is.
    return json.dumps(value, ensure_ascii=False)


def _type(info: FieldInfo) -> str:
    bounds = [_bound(m) for m in info.metadata]
    bounds += [_bound(m) for part in get_args(info.annotation) for m in getattr(part, "__metadata__", ())]
    return " ".join([_name(info.annotation), *(b for b in bounds if b)])


def _name(annotation: Any) -> str:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _name(get_args(annotation)[0])
    if origin is Literal:
        return " \\| ".join(f"`{choice}`" for choice in get_args(annotation))
    if origin in (Union, types.UnionType):
        return " or ".join(_name(part) for part in get_args(annotation))
    if origin is dict:
        return "table"
    if origin is tuple:
        return "array of tables"
    names = {int: "whole number", float: "number", str: "text", bool: "true/false", Path: "path", type(None): "none"}
    return names.get(annotation, str(annotation))


def _bound(metadata: Any) -> str:
    if isinstance(metadata, FieldInfo):
        return " ".join(b for b in map(_bound, metadata.metadata) if b)
    for kind, sign in ((annotated_types.Ge, "≥"), (annotated_types.Gt, ">"), (annotated_types.Le, "≤")):
        if isinstance(metadata, kind):
            return f"{sign} {getattr(metadata, kind.__name__.lower())}"
    return ""


def _oneline(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")


if __name__ == "__main__":
    import sys

    Path(sys.argv[1]).write_text(reference(), encoding="utf-8")
