"""Decides how a server is profiled by tools that it must be started with: once more, warmed up, under the same load.

The server that was measured never has anything of a profiler in it; this one is measured by nobody.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from evaluators.load.session import LoadSession
from evaluators.load.workload import Load
from evaluators.pod import Pod
from evaluators.profiling.evidence import Evidence
from evaluators.profiling.injection import Silent
from evaluators.server import ServerCommand, ServerUnderTest
from evaluators.site import Site


class Instrument(Protocol):
    """A tool that a server is started with."""

    @property
    def tool(self) -> str:
        """Its name, as rows and notes have it."""
        ...

    def around(self, command: ServerCommand) -> ServerCommand:
        """The server with the tool in it or around it, not yet recording."""
        ...

    def begin(self) -> None:
        """Return when it records.

        Raises:
            Silent: it does not.
        """
        ...

    def end(self) -> None:
        """Stop recording; return when what it saw is written.

        Raises:
            Silent: it is not.
        """
        ...

    def evidence(self) -> Evidence:
        """What it saw; the server is gone.

        Raises:
            InfrastructureError: what was written cannot be read.
        """
        ...


def rerun(site: Site, pod: Pod | None, instrument: Instrument, load: Load, ready_timeout_s: float) -> Evidence:
    """What the instrument saw while `load` ran once, after it had run once before.

    Raises:
        InfrastructureError: the machine failed.
    """
    shutil.rmtree(site.home, ignore_errors=True)
    plain = site.command()
    timeout_s = min(plain.table.ready_timeout_s, ready_timeout_s)
    bounded = replace(plain.table, ready_timeout_s=timeout_s)
    command = instrument.around(replace(plain, table=bounded, log=site.scratch / f"{instrument.tool}.log"))
    with ServerUnderTest(command, site.sandbox, pod=pod) as server:
        if (rejected := server.start()) is not None:
            return Evidence.without(instrument.tool, f"with the profiler the server does not start: {rejected.reason}")
        client = replace(site.client(pod), log=None)
        with LoadSession(site.endpoint(server.url), (load,), client) as session:
            try:
                _record(instrument, lambda draw: session.run(load, site.task.trace_seed, site.task.content_seed + draw))
            except Silent as error:
                return Evidence.without(instrument.tool, str(error))
    return instrument.evidence()


def _record(instrument: Instrument, run: Callable[[int], object]) -> None:
    """Prompts are drawn anew for each run: one that is repeated may be answered from a cache."""
    run(2)
    instrument.begin()
    run(3)
    instrument.end()
