"""The tools by which a model learns how far its tree is: the target's checker, and a short benchmark.

Both are the first stages of an evaluation, on this machine, with prompts and arrivals of their own: nothing here tells
of the run's traces, and neither the audit nor the held-out load is ever run. What they say proves nothing and is not
recorded.
"""

from __future__ import annotations

import secrets
import time
from contextlib import ExitStack

from evaluators.evaluator import EvaluationTask, Lease
from evaluators.target import load_target
from population.errors import InfrastructureError
from population.evaluation import Rejected, Scored, Stage
from population.objectives import objective_samples
from vibeserve.agents.tools.tool import AnyTool, Arguments, ToolProblem, bounded
from vibeserve.agents.tools.workspace import Workspace
from vibeserve.lease import lease
from vibeserve.mutators import Workplace

_LONGEST_WAIT_S = 60.0


class Practice:
    """Judges and measures the workspace as it is, a limited number of times."""

    def __init__(self, workspace: Workspace, place: Workplace) -> None:
        self._workspace, self._place = workspace, place
        self._target = load_target(place.target)

    @property
    def possible(self) -> bool:
        """A mutation holds no GPU, so only servers that need none can be tried."""
        return self._target.resources.num_gpus == 0

    def evaluate(self, until: Stage, deadline_s: float) -> Scored | Rejected:
        """The stages up to `until`.

        Raises:
            ToolProblem: the machine has no CPU to spare.
            InfrastructureError: the machine failed.
        """
        wait_s = min(_LONGEST_WAIT_S, deadline_s - time.monotonic())
        if wait_s <= 0:
            raise ToolProblem("there is no time left")
        with ExitStack() as stack:
            try:
                granted = stack.enter_context(lease(self._place.cpus, wait_s=wait_s))
            except InfrastructureError as error:
                raise ToolProblem(f"no CPU became free within {wait_s:.0f} s; go on without, or try later") from error
            return self._evaluate(until, granted)

    def _evaluate(self, until: Stage, granted: Lease) -> Scored | Rejected:
        workspace = granted.scratch / "workspace"
        output = granted.scratch / "output"
        output.mkdir()
        self._workspace.copy(workspace)
        task = EvaluationTask(
            candidate="practice",
            workspace=workspace,
            target=self._place.target,
            trace_seed=secrets.randbits(48),
            content_seed=secrets.randbits(48),
            repeats=1,
            until=until,
            output=output,
        )
        return self._place.evaluator.evaluate(task, granted, lambda _stage: None)

    def objectives(self, scored: Scored) -> str:
        """One line per objective."""
        lines = []
        for objective in self._target.objectives:
            values = objective_samples(objective, scored.samples)
            shown = ", ".join(f"{value:.4g}" for value in values) or "no value"
            lines.append(f"{objective.name}: {shown} {objective.unit or ''} ({objective.direction})".replace("  ", " "))
        return "\n".join(lines)


class _Trial:
    """What both tools share: a limited number of attempts."""

    arguments = Arguments

    def __init__(self, practice: Practice, attempts: int) -> None:
        self._practice, self._left = practice, attempts

    def _run(self, until: Stage, deadline_s: float) -> Scored | Rejected:
        if not self._left:
            raise ToolProblem("all attempts are used up; go on without")
        evaluation = self._practice.evaluate(until, deadline_s)
        self._left -= 1
        return evaluation

    def _verdict(self, evaluation: Scored | Rejected, passed: str) -> str:
        left = f"[attempts left: {self._left}]"
        if isinstance(evaluation, Scored):
            return f"{passed}\n{left}"
        told = f"rejected at stage {evaluation.stage}: {evaluation.reason}\n{evaluation.evidence}"
        return bounded(f"{told.rstrip()}\n{left}")


class RunChecker(_Trial):
    """Whether the tree is accepted by static checks, starts, and answers rightly."""

    name = "run_checker"
    description = (
        "Check the workspace as an evaluation would at first: inspection of the files, start of the server, one "
        "request, the target's accuracy checker. Says what is wrong, with the server's log."
    )

    def call(self, given: Arguments, deadline_s: float) -> str:
        return self._verdict(self._run(Stage.CHECKER, deadline_s), "passed: static checks, start, smoke, checker")


class RunQuickBenchmark(_Trial):
    """What a short load measures, after the checks."""

    name = "run_quick_benchmark"
    description = (
        "Check the workspace, then measure it once under the target's loads. One repeat is noisy: believe large "
        "differences only. Later evaluations use other prompts and audit every answer."
    )

    def call(self, given: Arguments, deadline_s: float) -> str:
        evaluation = self._run(Stage.BENCHMARK, deadline_s)
        passed = self._practice.objectives(evaluation) if isinstance(evaluation, Scored) else ""
        return self._verdict(evaluation, f"passed the checks; measured once:\n{passed}")


def practice_tools(practice: Practice, checks: int, benchmarks: int) -> tuple[AnyTool, ...]:
    """Those that can be had for this target."""
    if not practice.possible:
        return ()
    return (RunChecker(practice, checks), RunQuickBenchmark(practice, benchmarks))
