"""Decides how a frozen dataclass of another room becomes a table of the config, so that each option is declared once.

Names, defaults and docstrings are taken over; nested dataclasses become nested tables, tuples of them arrays of tables.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
from collections.abc import Collection
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, create_model

T = TypeVar("T")


class Section(BaseModel):
    """One table of the config; unknown keys are errors."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


def section_of(
    declared: type[Any],
    *,
    base: type[Section] = Section,
    without: Collection[str] = (),
    shares: Collection[str] = (),
    counts: Collection[str] = (),
) -> type[Section]:
    """A table with the fields of the dataclass `declared`, except `without`.

    Numbers must be at least 0; those named in `shares`, at any depth, at most 1, those in `counts` at least 1.
    """
    hints, docs = get_type_hints(declared), field_docs(declared)
    fields: dict[str, Any] = {}
    for field in dataclasses.fields(declared):
        if field.name in without:
            continue
        hint, default = hints[field.name], _default(field)
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            nested = section_of(hint, without=without, shares=shares, counts=counts)
            fields[field.name] = (nested, nested())
            continue
        if get_origin(hint) is tuple and dataclasses.is_dataclass(get_args(hint)[0]):
            rows = section_of(get_args(hint)[0], without=without, shares=shares, counts=counts)
            listed: Any = Annotated[tuple[rows, ...], Field(strict=False)]  # type: ignore[valid-type]  # TOML has lists
            fields[field.name] = (listed, Field(default=default, description=docs.get(field.name)))
            continue
        bounds: dict[str, Any] = {}
        if hint in (int, float):
            bounds = {"ge": 1 if field.name in counts else 0} | ({"le": 1} if field.name in shares else {})
        fields[field.name] = (hint, Field(default=default, description=docs.get(field.name), **bounds))
    made: type[Section] = create_model(declared.__name__, __base__=base, **fields)
    made.__doc__ = declared.__doc__
    return made


def dataclass_of(declared: type[T], section: BaseModel, **given: Any) -> T:
    """The dataclass `declared` with the values of its table; `given` are those that the table does not have."""
    hints, values = get_type_hints(declared), dict(given)
    for field in dataclasses.fields(declared):  # type: ignore[arg-type]
        if field.name in given or not hasattr(section, field.name):
            continue
        value, hint = getattr(section, field.name), hints[field.name]
        if isinstance(value, tuple):
            value = tuple(dataclass_of(get_args(hint)[0], v) if isinstance(v, BaseModel) else v for v in value)
        values[field.name] = dataclass_of(hint, value) if isinstance(value, BaseModel) else value
    return declared(**values)


def field_docs(declared: type[Any]) -> dict[str, str]:
    """Field → the docstring below it."""
    body = ast.parse(textwrap.dedent(inspect.getsource(declared))).body[0]
    assert isinstance(body, ast.ClassDef)
    docs: dict[str, str] = {}
    for before, after in zip(body.body, body.body[1:], strict=False):
        if (
            isinstance(before, ast.AnnAssign)
            and isinstance(before.target, ast.Name)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
            and isinstance(after.value.value, str)
        ):
            docs[before.target.id] = inspect.cleandoc(after.value.value)
    return docs


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default
