"""Decides in which order a tree is judged and measured; every way in which that can end becomes one evaluation."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from evaluators.artifacts import default_cache
from evaluators.audit import audit, sample_responses
from evaluators.benchmark import NOISE_RETRIES, Measurement, Plan, measure
from evaluators.command import TrustedCommand
from evaluators.evaluator import EvaluationTask, Lease
from evaluators.isolation import choose
from evaluators.judge import accuracy_check, smoke_check, static_check
from evaluators.load.endpoint import Endpoint
from evaluators.load.record import Response
from evaluators.load.session import ClientOptions, LoadSession
from evaluators.load.workload import Load
from evaluators.own_benchmark import OwnBenchmark, measure_with
from evaluators.pod import Pod
from evaluators.preparation import Prepared, prepare
from evaluators.probes import Probing
from evaluators.process import tail
from evaluators.profiler import profile
from evaluators.repeat import protocol_fault
from evaluators.sandbox import Sandbox, clean_environment
from evaluators.server import ServerCommand, ServerUnderTest
from evaluators.target import Target
from population.errors import InfrastructureError
from population.evaluation import Evaluation, Rejected, Scored, Stage

_PROFILE_S = 1.0
_AUDIT_CONCURRENCY = 4


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
                self._targets[task.target] = prepare(task.target, self._cache, lease.cpus)
            ready = self._targets[task.target]
            site = _Site(
                task=task, lease=lease, target=ready.target, artifacts=ready.artifacts, vocab=ready.vocab,
                best=ready.best, sandbox=sandbox,
                scratch=lease.scratch, noise_retries=self._noise_retries,
                output=task.output or lease.scratch / "output",
            )  # fmt: skip
            evaluation = _Evaluation(site, clock).run()
        except OSError as error:
            raise InfrastructureError(f"evaluation of {task.candidate}: {error}; is the disk full?") from error
        return replace(evaluation, stage_s=clock.seconds(), tier=sandbox.tier, gaps=sandbox.gaps)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Site:
    """Everything that one evaluation needs to know."""

    task: EvaluationTask
    lease: Lease
    target: Target
    artifacts: Path
    vocab: tuple[str, ...]
    best: Mapping[str, float]
    sandbox: Sandbox
    scratch: Path
    noise_retries: int
    output: Path
    home: Path = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "home", self.scratch / "home")
        self.output.mkdir(parents=True, exist_ok=True)
        (self.output / "requests.jsonl").unlink(missing_ok=True)  # the client appends

    @property
    def client_cpus(self) -> tuple[int, ...]:
        return self.lease.cpus[-1:]

    def server(self, pod: Pod | None) -> ServerUnderTest:
        """The candidate's server, pinned to all CPUs but the client's, where there are two or more."""
        table = self.target.server
        command = ServerCommand(
            table=table,
            workspace=self.task.workspace,
            log=self.output / "server.log",
            env=clean_environment(self.home, self.lease.gpus, table.env),
            placeholders={"python": sys.executable, "artifacts": str(self.artifacts)},
            cpus=self.lease.cpus[:-1] or self.lease.cpus,
            gpus=self.lease.gpus,
            readable=(self.artifacts,),
        )
        return ServerUnderTest(command, self.sandbox, pod=pod)

    def trusted(self, table: str, command: tuple[str, ...], timeout_s: float, pod: Pod | None) -> TrustedCommand:
        """A command of the target, for one of its tables; where there is a pod, the tree is not there for it."""
        return TrustedCommand(
            table=table,
            command=command,
            folder=self.target.folder,
            timeout_s=timeout_s,
            log=self.output / f"{table}.log",
            home=self.scratch / "trusted",
            cpus=self.lease.cpus,
            gpus=self.lease.gpus,
            pod=pod,
            hidden=() if pod is None else (self.task.workspace,),
        )

    def endpoint(self, url: str) -> Endpoint:
        """How our client addresses the server."""
        model, most = self.target.model.name, self.target.server.max_tokens_per_chunk
        return Endpoint(
            url=url, model=model, prompt_ids=self.target.prompt_ids, vocab=self.vocab, max_tokens_per_chunk=most
        )

    def plan(self) -> Plan:
        """What to measure."""
        return Plan(
            objectives=self.target.objectives,
            repeats=self.task.repeats or self.target.benchmark.repeats,
            warmup_requests=self.target.benchmark.warmup_requests,
            warmup_tokens=self.target.benchmark.warmup_tokens,
            trace_seed=self.task.trace_seed,
            content_seed=self.task.content_seed,
            bar=self.task.bar,
            cpus=self.lease.cpus,
            gpus=self.lease.gpus,
            noise_retries=self.noise_retries,
            best=self.best,
        )


class _Evaluation:
    """The stages of one evaluation; each returns a rejection, or None to go on."""

    def __init__(self, site: _Site, clock: _Clock) -> None:
        self._site = site
        self._clock = clock
        self._hints: dict[str, float | str] = {}
        self._pod: Pod | None = None

    def run(self) -> Evaluation:
        site, clock = self._site, self._clock
        clock.enter(Stage.STATIC)
        with site.sandbox.pod() as self._pod:  # it starts beside the static check
            if site.task.judged and (rejected := static_check(site.task.workspace, site.target.inspection)) is not None:
                return rejected
            measured = self._serve()
            # The server is gone: the reference has the CPUs and the GPU's memory to itself.
            return measured if isinstance(measured, Rejected) else self._audited(measured)

    def _serve(self) -> Measurement | Rejected:
        site = self._site
        with site.server(self._pod) as server:
            if (rejected := self._judge(server)) is not None:
                return rejected
            if not (site.task.judged and site.target.server.restart_after_checker):
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
            loads = self._loads()
            options = ClientOptions(
                cpus=site.client_cpus, log=site.output / "requests.jsonl", pod=self._pod,
                warmup_timeout_s=_warmup_timeout_s(loads),
            )  # fmt: skip
            session = stack.enter_context(LoadSession(site.endpoint(server.url), loads, options))
            measured = self._measure(server, session)
            if not isinstance(measured, Rejected) and site.task.profile:
                clock.enter(Stage.PROFILE)
                self._profile(server, session)
        return measured

    def _check(self, server: ServerUnderTest) -> Rejected | None:
        accuracy = self._site.target.accuracy
        command = self._site.trusted("accuracy", accuracy.command, accuracy.timeout_s, self._pod)
        return accuracy_check(server, command, self._words(server.url, "accuracy.json"))

    def _loads(self) -> tuple[Load, ...]:
        """The target's loads; beside a benchmark of the target's own, one that collects answers for the audit."""
        target = self._site.target
        if target.loads or target.audit is None:
            return target.loads
        audit_load = Load(
            name="audit", kind="closed", concurrency=_AUDIT_CONCURRENCY, num_requests=target.audit.responses
        )
        return (replace(audit_load, input_tokens=(16, 48), output_tokens=(32, 32)),)

    def _measure(self, server: ServerUnderTest, session: LoadSession) -> Measurement | Rejected:
        site, table = self._site, self._site.target.benchmark
        if table.command is None:
            measured = measure(server, session, site.target.loads, site.plan())
        else:
            own = OwnBenchmark(
                command=site.trusted("benchmark", table.command, table.timeout_s, self._pod),
                words=self._words(server.url, "target_benchmark.json"),
                output=site.output / "target_benchmark.json",
            )
            measured = measure_with(server, own, site.plan())
            if not isinstance(measured, Rejected) and site.target.audit is not None:
                answers = self._answers(session)
                measured = answers if isinstance(answers, Rejected) else replace(measured, responses=answers)
        if not isinstance(measured, Rejected):
            _write_json(site.output / "benchmark.json", {"repeats": measured.report, "flags": sorted(measured.flags)})
        return measured

    def _answers(self, session: LoadSession) -> tuple[Response, ...] | Rejected:
        """Beside a benchmark of the target's own: answers to our load, and some of its prompts asked again."""
        load, task = self._loads()[0], self._site.task
        result = session.run(load, task.trace_seed, task.content_seed)
        if (fault := protocol_fault(result.responses, "the audit's load")) is not None:
            return fault
        probing = Probing(session=session, loads=(load,), seed=task.content_seed)
        return probing.ask_again(result.responses, result.metrics["duration"])

    def _profile(self, server: ServerUnderTest, session: LoadSession) -> None:
        """The busiest load once more, under the profiler; its numbers count for nothing."""
        loads = self._loads()
        if not loads:
            return
        load = max(loads, key=lambda item: (item.kind == "closed", item.rate_per_s or 0.0))
        if load.window_s is not None:
            load = replace(load, kind="open" if load.kind == "max-rate" else load.kind, window_s=_PROFILE_S)
        seed = self._site.task.content_seed + 1
        self._hints = profile(
            server, _PROFILE_S, self._site.scratch, lambda: session.run(load, self._site.task.trace_seed, seed)
        )

    def _audited(self, measured: Measurement) -> Evaluation:
        site = self._site
        figures: dict[str, float] = {}
        if site.target.audit is not None:
            self._clock.enter(Stage.AUDIT)
            verdict = self._audit(measured.responses)
            if isinstance(verdict, Rejected):
                return verdict
            figures = verdict
        return Scored(
            samples=dict(measured.samples),
            flags=tuple(sorted(measured.flags)),
            measured_by="client" if site.target.measured_by_client else "target",
            audit=figures,
            hints=self._hints,
        )

    def _audit(self, responses: tuple[Response, ...]) -> dict[str, float] | Rejected:
        site, table = self._site, self._site.target.audit
        assert table is not None
        sample = sample_responses(responses, table.responses, site.task.content_seed)
        command = site.trusted("audit", table.command, table.timeout_s, self._pod)
        verdict = audit(sample, table, command, self._words("", "audit.json"))
        if isinstance(verdict, Rejected) and not verdict.evidence:
            return replace(verdict, evidence=tail(site.output / "server.log"))
        return verdict

    def _words(self, url: str, output: str) -> dict[str, str]:
        """Placeholders of the target's own commands."""
        site = self._site
        return {
            "url": url,
            "artifacts": str(site.artifacts),
            "responses": str(site.output / "responses.jsonl"),
            "output": str(site.output / output),
        }


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


def _warmup_timeout_s(loads: Sequence[Load]) -> float:
    """In proportion to the windows: a server that needs longer for one answer has nothing to show in them either."""
    longest_s = max((load.window_s or 2.5 for load in loads), default=2.5)
    return min(10.0, max(2.0, 4 * longest_s))


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1, default=str) + "\n", encoding="utf-8")
