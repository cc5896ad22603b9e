"""Decides the effective config: defaults < environment < preset < --config files < -s overrides < flags.

Every value keeps its origin, and every defect of every layer is reported at once.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from population.errors import ConfigError, RunError, UsageError
from vibeserve.config import Config, environment_layer

Values = dict[str, tuple[object, str]]
"""Dotted key → (value, origin)."""

CHECKOUT = Path(__file__).resolve().parent.parent
_PRESETS = Path(__file__).resolve().parent / "presets"
_RECORDED = "fingerprint"
"""Table of a run's run.toml that is a record of the machine and not an option."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where a config comes from, weakest first."""

    preset: str | None = None
    files: Sequence[Path] = ()
    overrides: Sequence[str] = ()
    """`key=value`, the value in TOML syntax or a bare string; `none` unsets."""
    flags: Mapping[str, tuple[object, str]] = field(default_factory=dict)
    """Dotted key → (value, flag) of command-line options that were given."""


def load_config(sources: Sources) -> Config:
    """The effective config of a new run.

    Raises:
        UsageError: the preset does not exist.
        ConfigError: with every defect of every layer.
    """
    problems: list[str] = []
    values: Values = dict(environment_layer())
    if sources.preset is not None:
        values |= _read(_preset_path(sources.preset), lambda line: f"preset {sources.preset}", problems)
    for path in sources.files:
        values |= _read(path, lambda line, path=path: f"{path}:{line}", problems)  # type: ignore[misc]
    values |= _overrides(sources.overrides, problems)
    values |= sources.flags
    return _resolved(_validated(values, problems))


def load_run_config(run_dir: Path, overrides: Sequence[str] = ()) -> Config:
    """The config of an existing run, from its run.toml, with the environment and `-s` overrides of a resume on top.

    Raises:
        RunError: the folder has no run.toml.
        ConfigError: with every defect.
    """
    path = run_dir / "run.toml"
    if not path.is_file():
        raise RunError(f"{run_dir}: expected a run.toml in a run folder, found none; `vibeserve ls` lists the runs")
    problems: list[str] = []
    values = _read(path, lambda line: f"run.toml:{line}", problems)
    values |= environment_layer()
    values["runs_dir"] = (str(run_dir.parent), "run folder")
    values |= _overrides(overrides, problems)
    return _resolved(_validated(values, problems))


def preset_names() -> list[str]:
    """The presets that come with VibeServe."""
    return sorted(path.stem for path in _PRESETS.glob("*.toml"))


def config_keys(model: type[BaseModel] = Config, prefix: str = "") -> list[str]:
    """Every dotted key, in the order of the tree."""
    keys: list[str] = []
    for name, info in model.model_fields.items():
        section = _section(info.annotation)
        keys += config_keys(section, f"{prefix}{name}.") if section else [prefix + name]
    return keys


def _preset_path(name: str) -> Path:
    path = _PRESETS / f"{name}.toml"
    if not path.is_file():
        raise UsageError(f"--preset {name}: no such preset; expected one of {', '.join(preset_names())}")
    return path


def _read(path: Path, origin: Callable[[int], str], problems: list[str]) -> Values:
    try:
        text = path.read_text(encoding="utf-8")
        data = tomllib.loads(text)
    except OSError as error:
        problems.append(f"{path}: cannot be read: {error.strerror}")
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        problems.append(f"{path}: not valid TOML: {error}")
        return {}
    data.pop(_RECORDED, None)
    lines = key_lines(text)

    def where(key: str) -> str:
        while key and key not in lines:
            key = key.rpartition(".")[0]
        return origin(lines.get(key, 1))

    return _flatten(data, Config, "", where, problems)


def _overrides(texts: Iterable[str], problems: list[str]) -> Values:
    values: Values = {}
    for text in texts:
        key, equals, raw = text.partition("=")
        if not equals:
            problems.append(f"-s {text}: expected key=value, e.g. -s search.frontier_bias=0.9")
            continue
        try:
            value: object = tomllib.loads(f"value = {raw}")["value"]
        except tomllib.TOMLDecodeError:
            value = raw.strip()
        nested: dict[str, Any] = {}
        _put(nested, key.strip(), value)
        values |= _flatten(nested, Config, "", lambda _: "-s", problems)
    return values


def _flatten(
    data: Mapping[str, Any], model: type[BaseModel], prefix: str, where: Callable[[str], str], problems: list[str]
) -> Values:
    values: Values = {}
    for name, value in data.items():
        key = prefix + name
        if name not in model.model_fields:
            problems.append(f"{where(key)}: unknown key '{key}'{_suggestion(key)}")
            continue
        section = _section(model.model_fields[name].annotation)
        if section is None:
            values[key] = (None if value == "none" else value, where(key))
        elif isinstance(value, Mapping):
            values |= _flatten(value, section, f"{key}.", where, problems)
        else:
            problems.append(f"{where(key)}: expected a table [{key}], got {value!r}")
    return values


def _section(annotation: Any) -> type[BaseModel] | None:
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _suggestion(key: str) -> str:
    keys = config_keys()
    sections = sorted({k.rpartition(".")[0] for k in keys} - {""})
    last = {k.rpartition(".")[2]: k for k in reversed(keys)}
    close = [last[n] for n in difflib.get_close_matches(key.rpartition(".")[2], last, n=1, cutoff=0.8)]
    close = close or difflib.get_close_matches(key, keys + sections, n=1, cutoff=0.7)
    return f"; did you mean '{close[0]}'?" if close else "; docs/config.md lists every key"


def _validated(values: Values, problems: list[str]) -> Config:
    nested: dict[str, Any] = {}
    for key, (value, _) in values.items():
        _put(nested, key, value)
    try:
        config = Config.model_validate(nested)
    except ValidationError as error:
        problems += [_sentence(dict(defect), values) for defect in error.errors()]
    if problems:
        raise ConfigError(problems)
    return config.with_origins({key: origin for key, (_, origin) in values.items()})


def _sentence(defect: dict[str, Any], values: Values) -> str:
    key = ".".join(str(part) for part in defect["loc"])
    while key and key not in values:
        key = key.rpartition(".")[0]
    value, origin = values.get(key, (None, "config"))
    message = str(defect["msg"]).replace("Input should be", "expected")
    inner = defect["loc"][len(key.split(".")) :]
    if inner and isinstance(inner[0], int):  # a row of an array of tables, and its key
        key, value = ".".join(map(str, defect["loc"])), defect["input"]
        message = "unknown key" if defect["type"] == "extra_forbidden" else message
    return f"{origin}: {key}: {message}, got {value!r}"


def _put(nested: dict[str, Any], key: str, value: object) -> None:
    *tables, last = key.split(".")
    for table in tables:
        nested = nested.setdefault(table, {})
    nested[last] = value


def _resolved(config: Config) -> Config:
    """Paths made absolute: against the working directory, or the checkout when only that has them."""
    target = None if config.target is None else _absolute(config.target)
    skills = config.skills.model_copy(update={"dir": _absolute(config.skills.dir)})
    paths = {"target": target, "skills": skills, "runs_dir": config.runs_dir.absolute()}
    return config.model_copy(update=paths).with_origins(config.origins)


def _absolute(path: Path) -> Path:
    path = path.expanduser()
    return CHECKOUT / path if not path.exists() and (CHECKOUT / path).exists() else path.absolute()


_HEADER = re.compile(r"^\s*\[\[?\s*([^\[\]]+?)\s*\]\]?\s*(?:#.*)?$")
_KEY = re.compile(r"^\s*([A-Za-z0-9_.\-\" ]+?)\s*=")


def key_lines(text: str) -> dict[str, int]:
    """Dotted key or table → the line (from 1) that declares it; lines of multi-line values may be taken for keys."""
    lines: dict[str, int] = {}
    table = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER.match(line):
            table = header[1].replace('"', "").replace(" ", "")
            lines.setdefault(table, number)
        elif key := _KEY.match(line):
            name = key[1].replace('"', "").replace(" ", "")
            lines.setdefault(f"{table}.{name}" if table else name, number)
    return lines
