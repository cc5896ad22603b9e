"""Decides what surrounds one evaluation: server, client, the target's commands, and where all of it is written."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

from evaluators.benchmark import Plan
from evaluators.command import TrustedCommand
from evaluators.evaluator import EvaluationTask, Lease
from evaluators.load.endpoint import Endpoint
from evaluators.load.session import ClientOptions
from evaluators.load.workload import Load
from evaluators.pod import Pod
from evaluators.roofline import Roof
from evaluators.sandbox import Sandbox, clean_environment
from evaluators.server import ServerCommand, ServerUnderTest
from evaluators.target import Target

_AUDIT_CONCURRENCY = 4
_DEFAULT_WINDOW_S = 2.5
_WARMUP_WINDOWS, _LEAST_WARMUP_S, _LONGEST_WARMUP_S = 4, 2.0, 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Everything that one evaluation needs to know."""

    task: EvaluationTask
    lease: Lease
    target: Target
    artifacts: Path
    vocab: tuple[str, ...]
    roof: Roof
    sandbox: Sandbox
    scratch: Path
    noise_retries: int
    output: Path
    compiled: Path
    """Where compilers keep what they made for trees that are `trusting`."""
    home: Path = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "home", self.scratch / "home")
        self.output.mkdir(parents=True, exist_ok=True)
        (self.output / "requests.jsonl").unlink(missing_ok=True)  # the client appends

    @property
    def trusting(self) -> bool:
        """Whether this tree is made of the checkout's own files and runs as they are: unconfined.

        Then nothing is gained by hiding from a server that it is now measured, not checked, and that it was started
        before: kernels are compiled once per machine instead of twice per evaluation, and the process that answered the
        checker goes on. Any other tree begins each boot with an empty home: what survives a restart tells it which one
        counts, and can carry what the checker asked.
        """
        return self.task.first_party and self.sandbox.tier == "C"

    @property
    def restarts(self) -> bool:
        """Whether another process is measured than the one that answered the checker."""
        return self.target.server.restart_after_checker and not self.trusting

    @property
    def _client_cpus(self) -> int:
        """How many of the lease's CPUs the client has; on a smaller machine than the target wants, the server keeps
        one."""
        return max(1, min(self.target.resources.client_cpus, len(self.lease.cpus) - 1))

    @property
    def _server_cpus(self) -> tuple[int, ...]:
        return self.lease.cpus[: -self._client_cpus] or self.lease.cpus

    def server(self, pod: Pod | None) -> ServerUnderTest:
        """The candidate's server."""
        return ServerUnderTest(self.command(), self.sandbox, pod=pod)

    def command(self) -> ServerCommand:
        """How it starts: pinned to all CPUs but the client's, where there are more than the client's."""
        table = self.target.server
        return ServerCommand(
            table=table,
            workspace=self.task.workspace,
            log=self.output / "server.log",
            env=clean_environment(self.home, self.lease.gpus, table.env, self.compiled if self.trusting else None),
            placeholders={"python": sys.executable, "artifacts": str(self.artifacts)},
            cpus=self._server_cpus,
            gpus=self.lease.gpus,
            readable=(self.artifacts,),
        )

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
            repeats=1 if self.task.until is not None else self.task.repeats or self.target.benchmark.repeats,
            warmup_requests=self.target.benchmark.warmup_requests,
            warmup_tokens=self.target.benchmark.warmup_tokens,
            trace_seed=self.task.trace_seed,
            content_seed=self.task.content_seed,
            bar=self.task.bar,
            cpus=self.lease.cpus,
            gpus=self.lease.gpus,
            noise_retries=0 if self.task.until is not None else self.noise_retries,
            best=self.roof.best,
        )

    def loads(self) -> tuple[Load, ...]:
        """The target's loads; beside a benchmark of the target's own, one that collects answers for the audit."""
        target = self.target
        if target.loads or target.audit is None:
            return target.loads
        audit_load = Load(
            name="audit", kind="closed", concurrency=_AUDIT_CONCURRENCY, num_requests=target.audit.responses
        )
        return (replace(audit_load, input_tokens=(16, 48), output_tokens=(32, 32)),)

    def client(self, pod: Pod | None) -> ClientOptions:
        """Where our client runs; it waits for warm-up in proportion to the windows.

        A server that needs longer for one answer has nothing to show in them either.
        """
        longest_s = max((load.window_s or _DEFAULT_WINDOW_S for load in self.loads()), default=_DEFAULT_WINDOW_S)
        return ClientOptions(
            cpus=self.lease.cpus[-self._client_cpus :],
            log=self.output / "requests.jsonl",
            pod=pod,
            warmup_timeout_s=min(_LONGEST_WARMUP_S, max(_LEAST_WARMUP_S, _WARMUP_WINDOWS * longest_s)),
        )

    def words(self, url: str, output: str) -> dict[str, str]:
        """Placeholders of the target's own commands."""
        return {
            "url": url,
            "artifacts": str(self.artifacts),
            "responses": str(self.output / "responses.jsonl"),
            "output": str(self.output / output),
        }
