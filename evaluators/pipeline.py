"""Decides in which order a tree is judged and measured; every way in which that can end becomes one evaluation."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from evaluators import gpu_health
from evaluators.artifacts import default_cache
from evaluators.audit import audit, sample_responses
from evaluators.benchmark import NOISE_RETRIES, Measurement, measure
from evaluators.evaluator import EvaluationTask, Lease
from evaluators.isolation import choose
from evaluators.judge import accuracy_check, smoke_check, static_check
from evaluators.load.record import Response
from evaluators.load.session import LoadSession
from evaluators.own_benchmark import OwnBenchmark, measure_with
from evaluators.pod import Pod
from evaluators.preparation import Prepared, prepare
from evaluators.probes import Probing
from evaluators.process import tail
from evaluators.profiling.stage import Profiling
from evaluators.repeat import protocol_fault
from evaluators.sandbox import Sandbox
from evaluators.server import ServerUnderTest
from evaluators.site import Site
from population.errors import InfrastructureError
from population.evaluation import Evaluation, Rejected, Scored, Stage


class LocalEvaluator:
    """Judges and measures one tree at a time on this machine; implements `evaluators.evaluator.Evaluator`."""

    def __init__(
        self,
        sandbox: Sandbox | None = None,
        cache: Path | None = None,
        noise_retries: int = NOISE_RETRIES,
        allow_reduced: bool = False,
    ) -> None:
        """Nothing is looked at yet: an evaluator travels to the machine that evaluates.

        Args:
            sandbox: None: what `isolation.choose` finds on that machine for the tree at hand.
            cache: None: `default_cache()`.
            noise_retries: 0: flag noise, never repeat.
            allow_reduced: whether tier B will do.
        """
        self._sandbox = sandbox
        self._allow_reduced = allow_reduced
        self._cache = cache or default_cache()
        self._noise_retries = noise_retries
        self._targets: dict[Path, Prepared] = {}

    def evaluate(self, task: EvaluationTask, lease: Lease, progress: Callable[[Stage], None]) -> Evaluation:
        """See `Evaluator.evaluate`."""
        clock = _Clock(progress)
        try:
            sandbox = self._sandbox or choose(self._allow_reduced, task.first_party)
            if task.target not in self._targets:
                self._targets[task.target] = prepare(task.target, self._cache, lease.cpus, lease.gpus)
            ready = self._targets[task.target]
            site = Site(
                task=task, lease=lease, target=ready.target, artifacts=ready.artifacts, vocab=ready.vocab,
                roof=ready.roof, sandbox=sandbox,
                scratch=lease.scratch, noise_retries=self._noise_retries,
                output=task.output or lease.scratch / "output",
                compiled=self._cache / "compiled",
            )  # fmt: skip
            health = gpu_health.look(lease.gpus)
            evaluation = _Evaluation(site, clock).run()
        except OSError as error:
            raise InfrastructureError(f"evaluation of {task.candidate}: {error}; is the disk full?") from error
        if isinstance(evaluation, Rejected) and evaluation.stage is not Stage.STATIC:
            wrong = gpu_health.fault(health, gpu_health.look(lease.gpus))
            if wrong is not None:
                raise InfrastructureError(f"evaluation of {task.candidate}: {wrong}")
        return replace(evaluation, stage_s=clock.seconds(), tier=sandbox.tier, gaps=sandbox.gaps)


class _Evaluation:
    """The stages of one evaluation; each returns a rejection, or None to go on."""

    def __init__(self, site: Site, clock: _Clock) -> None:
        self._site = site
        self._clock = clock
        self._profiling = Profiling(site)
        self._pod: Pod | None = None

    def run(self) -> Evaluation:
        site, clock = self._site, self._clock
        clock.enter(Stage.STATIC)
        with site.sandbox.pod() as self._pod:  # it starts beside the static check
            if site.task.judged and (rejected := static_check(site.task.workspace, site.target.inspection)) is not None:
                return rejected
            measured = self._serve()
            if isinstance(measured, Rejected):
                return measured
            if self._profiling.wanted:
                self._profiling.rerun(self._pod, measured, clock.seconds().get(Stage.BOOT, 0.0))
            # The server is gone: the reference has the CPUs and the GPU's memory to itself.
            return self._audited(measured)

    def _serve(self) -> Measurement | Rejected:
        site = self._site
        with site.server(self._pod) as server:
            if (rejected := self._judge(server)) is not None:
                return rejected
            if site.task.until is Stage.CHECKER:
                return Measurement(samples={})
            if not (site.task.judged and site.restarts):
                return self._benchmark(server)
        # What the checker taught it goes with its memory and its home.
        shutil.rmtree(site.home, ignore_errors=True)
        with site.server(self._pod) as server:
            return server.start() or self._benchmark(server)

    def _judge(self, server: ServerUnderTest) -> Rejected | None:
        site, clock = self._site, self._clock
        clock.enter(Stage.BOOT)
        if (rejected := server.start()) is not None:
            return rejected
        if site.task.judged:
            clock.enter(Stage.SMOKE)
            if (rejected := smoke_check(server, site.target, site.task.content_seed)) is not None:
                return rejected
            clock.enter(Stage.CHECKER)
            if (rejected := self._check(server)) is not None:
                return rejected
        return None

    def _benchmark(self, server: ServerUnderTest) -> Measurement | Rejected:
        site, clock = self._site, self._clock
        clock.enter(Stage.BENCHMARK)
        with ExitStack() as stack:
            client = LoadSession(site.endpoint(server.url), site.loads(), site.client(self._pod))
            session = stack.enter_context(client)
            measured = self._measure(server, session)
            if not isinstance(measured, Rejected) and self._profiling.wanted:
                clock.enter(Stage.PROFILE)
                self._profiling.look(server, session)
        return measured

    def _check(self, server: ServerUnderTest) -> Rejected | None:
        accuracy = self._site.target.accuracy
        command = self._site.trusted("accuracy", accuracy.command, accuracy.timeout_s, self._pod)
        return accuracy_check(server, command, self._site.words(server.url, "accuracy.json"))

    def _measure(self, server: ServerUnderTest, session: LoadSession) -> Measurement | Rejected:
        site, table = self._site, self._site.target.benchmark
        if table.command is None:
            measured = measure(server, session, site.target.loads, site.plan())
        else:
            own = OwnBenchmark(
                command=site.trusted("benchmark", table.command, table.timeout_s, self._pod),
                words=self._site.words(server.url, "target_benchmark.json"),
                output=site.output / "target_benchmark.json",
            )
            measured = measure_with(server, own, site.plan())
            if not isinstance(measured, Rejected) and site.target.audit is not None and site.task.until is None:
                answers = self._answers(session)
                measured = answers if isinstance(answers, Rejected) else replace(measured, responses=answers)
        if not isinstance(measured, Rejected):
            _write_json(site.output / "benchmark.json", {"repeats": measured.report, "flags": sorted(measured.flags)})
        return measured

    def _answers(self, session: LoadSession) -> tuple[Response, ...] | Rejected:
        """Beside a benchmark of the target's own: answers to our load, and some of its prompts asked again."""
        load, task = self._site.loads()[0], self._site.task
        result = session.run(load, task.trace_seed, task.content_seed)
        if (fault := protocol_fault(result.responses, "the audit's load")) is not None:
            return fault
        probing = Probing(session=session, loads=(load,), seed=task.content_seed)
        return probing.ask_again(result.responses, result.metrics["duration"])

    def _audited(self, measured: Measurement) -> Evaluation:
        site = self._site
        figures: dict[str, float] = {}
        if site.target.audit is not None and site.task.until is None:
            self._clock.enter(Stage.AUDIT)
            verdict = self._audit(measured.responses)
            if isinstance(verdict, Rejected):
                return verdict
            figures = verdict
        found = self._profiling.evidence(measured.samples)
        return Scored(
            samples=dict(measured.samples),
            flags=tuple(sorted(measured.flags)),
            measured_by="client" if site.target.measured_by_client else "target",
            audit=figures,
            hints=found.hints,
            profile=found.rows,
        )

    def _audit(self, responses: tuple[Response, ...]) -> dict[str, float] | Rejected:
        site, table = self._site, self._site.target.audit
        assert table is not None
        sample = sample_responses(responses, table.responses, site.task.content_seed)
        command = site.trusted("audit", table.command, table.timeout_s, self._pod)
        verdict = audit(sample, table, command, self._site.words("", "audit.json"))
        if isinstance(verdict, Rejected) and not verdict.evidence:
            return replace(verdict, evidence=tail(site.output / "server.log"))
        return verdict


class _Clock:
    """Wall seconds per stage, and the caller's progress display."""

    def __init__(self, progress: Callable[[Stage], None]) -> None:
        self._progress = progress
        self._stage: Stage | None = None
        self._since_s = time.monotonic()
        self._seconds: dict[str, float] = {}

    def enter(self, stage: Stage) -> None:
        """The stage before ends, `stage` begins."""
        self._close()
        self._stage = stage
        self._progress(stage)

    def seconds(self) -> dict[str, float]:
        """Seconds per stage so far; the last stage ends now."""
        self._close()
        return dict(self._seconds)

    def _close(self) -> None:
        now_s = time.monotonic()
        if self._stage is not None:
            self._seconds[self._stage.value] = round(
                self._seconds.get(self._stage.value, 0.0) + now_s - self._since_s, 4
            )
        self._since_s = now_s


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1, default=str) + "\n", encoding="utf-8")
