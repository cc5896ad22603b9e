"""The proving ground: one target, one sibling and one honest server elsewhere for all fixtures."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from evaluators.isolation import facts, why_not_a
from evaluators.sandbox import PlainSandbox
from tests.cheats.ground import Ground, elsewhere
from tests.cheats.witness import Sibling


@pytest.fixture(scope="session")
def isolated() -> bool:
    """Whether this machine gives tier A."""
    return why_not_a(facts()) is None


@pytest.fixture(scope="session")
def ground(tmp_path_factory: pytest.TempPathFactory, isolated: bool) -> Iterator[Ground]:
    """In tier A where there is one; in tier C, for what needs no containment, where there is none."""
    root: Path = tmp_path_factory.mktemp("ground")
    with contextlib.ExitStack() as stack:
        sibling = stack.enter_context(Sibling(root / "sibling"))
        port = stack.enter_context(elsewhere(root / "elsewhere"))
        yield Ground(
            root=root / "range",
            sandbox=None if isolated else PlainSandbox(),
            sibling=sibling,
            words={"PROXY_PORT": str(port)},
        )
