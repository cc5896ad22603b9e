"""Decides which coding CLIs there are, and what keeps one from making children on this machine."""

from __future__ import annotations

from collections.abc import Mapping

from evaluators.isolation import facts, why_not_a
from vibeserve.agents.clis.claude import Claude
from vibeserve.agents.clis.cli import CodingCli
from vibeserve.agents.clis.codex import Codex
from vibeserve.agents.clis.gemini import Gemini
from vibeserve.agents.clis.installed import NotUsable, find
from vibeserve.agents.clis.opencode import OpenCode

_ALL: tuple[CodingCli, ...] = (Codex(), Claude(), Gemini(), OpenCode())
CLIS: Mapping[str, CodingCli] = {cli.name: cli for cli in _ALL}
"""By the name of their provider in `[agents]`."""


def obstacles(cli: CodingCli, command: str | None) -> list[str]:
    """Why this machine cannot run it."""
    found = []
    try:
        find(cli, command)
    except NotUsable as problem:
        found.append(f"agents.provider '{cli.name}': {problem}")
    if (no_a := why_not_a(facts())) is not None:
        found.append(
            f"agents.provider '{cli.name}': a coding CLI needs isolation tier A, the one with a network of its own: "
            f"{no_a.cause}; {no_a.cure}"
        )
    return found
