"""Listing many runs: an index saves replays and changes nothing of what is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.vibeserve.fabricated import small_run
from vibeserve.listing import brief, index_cache, open_index
from vibeserve.summary import summarise, to_json


@pytest.fixture
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return small_run(tmp_path)


def test_a_brief_is_the_summary_whether_or_not_there_is_an_index(run_dir: Path) -> None:
    wanted = to_json(summarise(run_dir))
    assert [brief(run_dir), brief(run_dir), brief(run_dir, rebuild=True)] == [wanted] * 3
    assert list(index_cache().iterdir()) == [open_index(run_dir).path]


def test_without_room_for_an_index_the_ledger_will_do(run_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the cache should be")
    assert brief(run_dir) == to_json(summarise(run_dir))
