"""Decides which tests run side by side: two streams, because most of a test's time is waiting.

Two tests may meet on two cores only if neither changes what the other sees. What measures a server is one stream, and
whatever runs beside it gives way. What starts Ray, or attacks this machine, is the other: two such tests at once would
find each other's clusters and leftovers. Everything else follows on whichever worker is free.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterable
from enum import IntEnum
from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling


class Stream(IntEnum):
    """In the order in which workers take them: the long ones first."""

    CLUSTER = 0
    """Starts Ray, or attacks this machine as `vibeserve doctor` does."""
    MEASURED = 1
    """Evaluates servers: under load, and with commands that a low priority does not reach."""
    CALM = 2
    """File by file, to whichever worker is free."""


WORKERS = 2
"""A third would take from the measured stream what it measures with: two cores are busy enough with these."""
_STREAMS = {
    "tests/agents/test_on_ray.py": Stream.CLUSTER,
    "tests/cluster/": Stream.CLUSTER,
    "tests/evaluators/test_hostile.py": Stream.CLUSTER,
    "tests/vibeserve/test_doctor.py": Stream.CLUSTER,
    "tests/vibeserve/test_end_to_end.py": Stream.CLUSTER,
    "tests/vibeserve/test_executors.py": Stream.CLUSTER,
    "tests/agents/test_tools.py": Stream.MEASURED,
    "tests/cheats/": Stream.MEASURED,
    "tests/evaluators/": Stream.MEASURED,
    "tests/target/": Stream.MEASURED,
    "tests/vibeserve/test_tiers.py": Stream.MEASURED,
}
_GIVES_WAY = 19
"""The niceness of whatever is not measured."""


def stream_of(nodeid: str) -> Stream:
    """The stream of a test, by the longest path that names it."""
    found = [path for path in _STREAMS if nodeid.startswith(path)]
    return _STREAMS[max(found, key=len)] if found else Stream.CALM


def in_order(items: Iterable[pytest.Item]) -> list[pytest.Item]:
    """By stream, and as they were within each."""
    return sorted(items, key=lambda item: stream_of(item.nodeid))


def give_way(nodeid: str) -> None:
    """Lower this worker's priority, unless the test measures. It stays low: nobody but root could raise it again.

    Where the kernel shares CPUs between sessions first (sched_autogroup), niceness counts within a session alone, and
    the session has one of its own.
    """
    if stream_of(nodeid) is not Stream.MEASURED and os.getpriority(os.PRIO_PROCESS, 0) < _GIVES_WAY:
        os.setpriority(os.PRIO_PROCESS, 0, _GIVES_WAY)
        with contextlib.suppress(OSError):
            Path("/proc/self/autogroup").write_text(str(_GIVES_WAY))


class StreamScheduling(LoadScopeScheduling):
    """Each stream to one worker, as a whole; of the calm one, each file."""

    def _split_scope(self, nodeid: str) -> str:
        stream = stream_of(nodeid)
        return nodeid.partition("::")[0] if stream is Stream.CALM else stream.name


def settle() -> Path:
    """Make this process a worker that the other one cannot touch; the folder for its temporary files.

    In a session of its own it is noise to the other's measurements, as any program is, and not taken for their own.
    Leases lock CPUs in the temporary folder, and Ray notes there which cluster is the current one.
    """
    os.setsid()
    folder = Path(tempfile.mkdtemp(prefix="vs-", dir="/tmp"))  # short: Ray makes sockets below it
    folder.chmod(0o755)  # candidates run as another user
    (folder / "ray").mkdir()  # Ray notes its cluster there, and makes the folder only for a cluster without its own
    os.environ["TMPDIR"] = str(folder)
    tempfile.tempdir = None
    return folder


def remove(folder: Path) -> None:
    """What `settle` made."""
    shutil.rmtree(folder, ignore_errors=True)


def workers(config: pytest.Config) -> int:
    """Two for folders; none for chosen tests, which one wants to see and to debug."""
    folders = all(Path(config.invocation_params.dir, argument).is_dir() for argument in config.args)
    return WORKERS if folders and not config.option.keyword else 0
