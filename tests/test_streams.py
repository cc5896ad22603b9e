"""The streams of the tests name what is there, and whatever starts Ray or attacks the machine is in one of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.streams import _STREAMS, Stream, in_order, stream_of

ROOT = Path(__file__).parents[1]
STARTS = re.compile(r"cluster_utils|\bRacks\(|connection\.connect\(|executor=\"ray\"|hostile\.probe|\"doctor\", \"--")


@pytest.mark.parametrize("path", _STREAMS)
def test_every_path_is_there(path: str) -> None:
    assert (ROOT / path).is_dir() if path.endswith("/") else (ROOT / path).is_file()


def test_the_longest_path_decides() -> None:
    assert stream_of("tests/evaluators/test_hostile.py::test_x") is Stream.CLUSTER
    assert stream_of("tests/evaluators/test_server.py::test_x[tests/cluster/]") is Stream.MEASURED
    assert stream_of("tests/vibeserve/test_cli.py::test_x") is Stream.CALM


def test_the_long_streams_come_first_and_nothing_is_lost(request: pytest.FixtureRequest) -> None:
    items = request.session.items
    ordered = in_order(reversed(items))
    assert sorted(map(id, ordered)) == sorted(map(id, items))
    streams = [stream_of(item.nodeid) for item in ordered]
    assert streams == sorted(streams)


def test_whoever_starts_ray_or_attacks_this_machine_is_in_the_clusters_stream() -> None:
    files = [path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "tests").rglob("test_*.py"))]
    found = [name for name in files if STARTS.search((ROOT / name).read_text()) and name != "tests/test_streams.py"]
    assert len(found) > 5
    assert [name for name in found if stream_of(name) is not Stream.CLUSTER] == []
