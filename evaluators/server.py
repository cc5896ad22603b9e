"""Decides whether a candidate's server came up, is still there, and is the process that answers."""

from __future__ import annotations

import http.client
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from evaluators.machine import Machine
from evaluators.pod import Pod, PodConnection
from evaluators.process import Launch, NotExecutable, RunningProcess
from evaluators.sandbox import Sandbox
from evaluators.target_schema import ServerTable
from population.errors import InfrastructureError
from population.evaluation import Rejected, Stage

HOST = "127.0.0.1"
_POLL_FIRST_S, _POLL_LAST_S = 0.01, 0.1
_ATTEMPTS = 3
_EVIDENCE_CHARACTERS = 4000


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerCommand:
    """Everything that `ServerUnderTest` starts, but for the port."""

    table: ServerTable
    workspace: Path
    log: Path
    env: dict[str, str]
    """The whole environment, `[server] env` included."""
    placeholders: dict[str, str]
    """`{name}` → text for the command, without host, port and url."""
    cpus: tuple[int, ...] = ()
    gpus: tuple[str, ...] = ()
    readable: tuple[Path, ...] = ()
    writable: tuple[Path, ...] = ()
    """Further folders that it may write; none of a server that is measured."""


class ServerUnderTest:
    """A candidate's server; a context manager that ends its whole process tree on exit, whatever happened."""

    def __init__(
        self, command: ServerCommand, sandbox: Sandbox, port: int | None = None, pod: Pod | None = None
    ) -> None:
        """`port` None: any free one, and another if somebody else takes it first. `pod`: the network it is in."""
        self.pod = pod
        self._command = command
        self._sandbox = sandbox
        self._fixed_port = port
        self._port = 0
        self._process: RunningProcess | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            if kind is None:
                self._process.stop(self._command.table.stop_grace_s)
            else:
                self._process.kill()

    @property
    def url(self) -> str:
        """`http://127.0.0.1:PORT`; valid after `start`."""
        return f"http://{HOST}:{self._port}"

    @property
    def process(self) -> RunningProcess:
        """The running server; valid after `start`."""
        assert self._process is not None, "start() comes first"
        return self._process

    def start(self) -> Rejected | None:
        """Start the server and wait until it is ready; None when it is.

        Raises:
            InfrastructureError: somebody else keeps taking the port, or nothing can be started on this machine.
        """
        for _ in range(_ATTEMPTS if self._fixed_port is None else 1):
            self._port = self._fixed_port or free_port()
            try:
                self._launch()
                rejected = self._await_ready()
            except NotExecutable as error:
                reason = f"the server command could not be executed: {error}"
                return Rejected(stage=Stage.BOOT, reason=reason, tier=self._sandbox.tier)
            if rejected is None:
                return None
            if not self._foreign_listener():
                return rejected
            self.process.kill()
        raise InfrastructureError(
            f"port {self._port} on {HOST} is taken by another process than the server that was started there; "
            "stop that process, or let the machine settle and try again"
        )

    def stop(self) -> int:
        """SIGTERM, SIGKILL after the target's grace; the main process's exit code."""
        return self.process.stop(self._command.table.stop_grace_s)

    def crash(self) -> Rejected | None:
        """A rejection if the server has ended although nobody stopped it."""
        code = self.process.poll()
        if code is None:
            return None
        return self._rejected(Stage.BENCHMARK, f"the server died under load ({describe_exit(code)})")

    def _launch(self) -> None:
        command, table = self._command, self._command.table
        words = {**command.placeholders, "host": HOST, "port": str(self._port), "url": self.url}
        launch = Launch(
            command=fill(table.command, words),
            workspace=command.workspace,
            env=command.env,
            log=command.log,
            cpus=command.cpus,
            gpus=command.gpus,
            readable=command.readable,
            writable=command.writable,
            ports=(self._port,),
            pod=None if self.pod is None else self.pod.holder_pid,
        )
        self._process = self._sandbox.launch(launch)

    def _await_ready(self) -> Rejected | None:
        table, started = self._command.table, time.monotonic()
        deadline, pause_s, answer = started + table.ready_timeout_s, _POLL_FIRST_S, "no answer"
        while True:
            code = self.process.wait(pause_s)
            if code is not None:
                seconds = time.monotonic() - started
                return self._rejected(
                    Stage.BOOT, f"the server ended during start-up ({describe_exit(code)} after {seconds:.1f} s)"
                )
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return self._rejected(
                    Stage.BOOT,
                    f"the server was not ready within {table.ready_timeout_s:g} s: "
                    f"expected 2xx from GET {table.ready_path} "
                    f"on port {self._port}, got {answer}",
                )
            answer = probe_http(self._port, table.ready_path, min(max(left_s, 0.05), 2.0), self.pod)
            if answer == "ready":
                return None if not self._foreign_listener() else self._rejected(Stage.BOOT, "another process answers")
            pause_s = min(pause_s * 1.5, _POLL_LAST_S, max(left_s, 0.001))

    def _foreign_listener(self) -> bool:
        """Whether a process outside the server's tree listens on the port; False where the system cannot tell."""
        machine = Machine()
        listeners = machine.listeners(self._port, None if self.pod is None else self.pod.holder_pid)
        if not listeners or self._process is None:
            return False
        ours = machine.tree(self._process.supervisor_pid)
        return listeners.isdisjoint(machine.sockets(ours))

    def _rejected(self, stage: Stage, reason: str) -> Rejected:
        evidence = self.process.log_tail(20)[-_EVIDENCE_CHARACTERS:] or "(the server printed nothing)"
        return Rejected(stage=stage, reason=reason, evidence=evidence, tier=self._sandbox.tier)


def free_port() -> int:
    """A TCP port on loopback that was free a moment ago.

    Raises:
        InfrastructureError: there is none.
    """
    try:
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            return int(probe.getsockname()[1])
    except OSError as error:
        raise InfrastructureError(f"no free port on {HOST}: {error.strerror}") from error


def probe_http(port: int, path: str, timeout_s: float, pod: Pod | None = None) -> str:
    """`ready` for a 2xx answer to GET, else what came instead, in words."""
    connection = PodConnection(HOST, port, timeout_s, pod)
    try:
        connection.request("GET", path, headers={"Connection": "close"})
        status = connection.getresponse().status
        return "ready" if 200 <= status < 300 else f"status {status}"
    except ConnectionRefusedError:
        return "connection refused"
    except TimeoutError:
        return f"a connection but no answer within {timeout_s:.2g} s"
    except (http.client.HTTPException, ValueError) as error:
        return f"something that is not HTTP ({str(error)[:80]!r})"
    except OSError as error:
        return f"{error.strerror or error}"
    finally:
        connection.close()


def fill(command: tuple[str, ...], words: dict[str, str]) -> tuple[str, ...]:
    """`command` with every `{name}` of `words` replaced; other braces are left alone."""
    filled = []
    for part in command:
        for name, text in words.items():
            part = part.replace(f"{{{name}}}", text)
        filled.append(part)
    return tuple(filled)


def describe_exit(code: int) -> str:
    """`exit code 3`, or `signal 9`."""
    return f"exit code {code}" if code >= 0 else f"signal {-code}"
