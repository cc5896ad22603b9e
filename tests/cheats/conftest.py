"""The proving ground: one target, one sibling and one honest server elsewhere for all fixtures."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from evaluators.isolation import facts, why_not_a
from tests.cheats.ground import Ground, proving_ground


@pytest.fixture(scope="session")
def isolated() -> bool:
    """Whether this machine gives tier A."""
    return why_not_a(facts()) is None


@pytest.fixture(scope="session")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with proving_ground(tmp_path_factory.mktemp("ground")) as ground:
        yield ground
