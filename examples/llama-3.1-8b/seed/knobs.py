"""Decides how a component reads its knobs: the `value` of every [knob.NAME] in the TOML file beside it."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any


def read_knobs(component_file: str) -> dict[str, Any]:
    """Knob name → value; call it as `read_knobs(__file__)`."""
    data = tomllib.loads(Path(component_file).with_suffix(".toml").read_text(encoding="utf-8"))
    return {name: knob["value"] for name, knob in data.get("knob", {}).items()}
