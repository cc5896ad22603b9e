"""Decides which tools look at a scored server, for how long, and that none of them can fail or change an evaluation.

py-spy looks at the server that was measured, when all of it is measured. What a server has to be started with looks at
a second start of it, where the front does not beat the candidate already.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

from evaluators.benchmark import Measurement, beaten
from evaluators.load.session import LoadSession
from evaluators.load.workload import Load
from evaluators.pod import Pod
from evaluators.process import NotExecutable
from evaluators.profiling import nsight, sampling, torch_trace
from evaluators.profiling.evidence import Evidence
from evaluators.profiling.headroom import headroom
from evaluators.profiling.rerun import Instrument, rerun
from evaluators.server import ServerUnderTest
from evaluators.site import Site
from population.errors import VibeServeError

WINDOW_S = 1.0
MOST_START_S = 90.0
"""A server that needs longer is not started again: the node is worth more than what could be learned."""
MOST_S = 300.0
"""For all further starts together; none begins when half of it is gone."""


class Profiling:
    """The profile of one evaluation; the headroom is computed, so it comes with every one."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._load = busiest(site.loads())
        self._imports_torch = False
        self._found = Evidence()

    @property
    def wanted(self) -> bool:
        """Whether the evaluation asks for a profile."""
        return self._site.task.profile and self._site.task.until is None

    def look(self, server: ServerUnderTest, session: LoadSession) -> None:
        """Sample the running server under the busiest load, whose figures count for nothing."""
        site, load = self._site, self._load
        if load is None:
            return
        self._imports_torch = torch_trace.imports_torch(server)
        run = partial(session.run, load, site.task.trace_seed, site.task.content_seed + 1)
        look = partial(sampling.sample, server, WINDOW_S, site.scratch, run, site.output)
        self._found += guarded(sampling.TOOL, look)

    def rerun(self, pod: Pod | None, measured: Measurement, start_s: float) -> None:
        """Start the server again for each tool that needs it, unless the front beats the candidate already.

        `start_s`: how long a start takes.
        """
        plan, began_s = self._site.plan(), time.monotonic()
        if beaten(plan.objectives, measured.samples, plan.bar):
            return
        for tool, make in self._instruments().items():
            left_s = MOST_S - (time.monotonic() - began_s)
            if start_s > MOST_START_S or left_s < MOST_S / 2:
                why = f"not started again for it: a start takes {start_s:.0f} s, {left_s:.0f} s are left for profiles"
                self._found += Evidence.without(tool, why)
            else:
                self._found += guarded(tool, partial(self._rerun, make, pod, min(left_s, 2 * MOST_START_S)))

    def evidence(self, samples: Mapping[str, tuple[float, ...]]) -> Evidence:
        """Everything that was found, with the headroom in front."""
        text = headroom(samples, self._site.target.objectives, self._site.roof)
        return Evidence(notes={"headroom": text} if text else {}) + self._found

    def _rerun(self, make: Callable[[], Instrument], pod: Pod | None, ready_s: float) -> Evidence:
        assert self._load is not None
        return rerun(self._site, pod, make(), self._load, ready_s)

    def _instruments(self) -> dict[str, Callable[[], Instrument]]:
        """Only for servers with PyTorch: what is known of others comes from py-spy. CUPTI serves one tool at a time."""
        site, program = self._site, nsight.nsys()
        if not self._imports_torch or self._load is None:
            return {}
        folder = site.scratch / "profiling"
        found: dict[str, Callable[[], Instrument]] = {
            torch_trace.TOOL: lambda: torch_trace.TorchTrace(folder / torch_trace.TOOL, WINDOW_S)
        }
        if program is not None and site.lease.gpus:
            found[nsight.TOOL] = lambda: nsight.NsightSystems(program, folder / nsight.TOOL, WINDOW_S, site.sandbox)
        return found


def busiest(loads: tuple[Load, ...]) -> Load | None:
    """The load that asks for most, for a second where it is not one burst; None if there is none."""
    if not loads:
        return None
    load = max(loads, key=lambda item: (item.kind == "closed", item.rate_per_s or 0.0))
    if load.window_s is None and load.rate_per_s == math.inf:
        return load
    kind = "open" if load.kind == "max-rate" else load.kind
    return replace(load, kind=kind, window_s=WINDOW_S, num_requests=None)


def guarded(tool: str, look: Callable[[], Evidence]) -> Evidence:
    """What `look` finds; its failures are words, because the evaluation stands whatever a profiler does."""
    try:
        return look()
    except (VibeServeError, NotExecutable, OSError) as error:
        return Evidence.without(tool, f"{tool} failed: {error}"[:400])
