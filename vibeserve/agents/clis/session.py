"""Decides how a coding CLI runs: in the sandbox, with an empty HOME and no key, until it ends or a limit is reached.

The CLI and whatever it starts see the workspace, the skills and one port of a loopback of their own. Behind that port,
outside, is the proxy (`evaluators/egress.py`), which adds the key and reaches one API. So there is nothing to find and
nowhere to send it, whatever a CLI, its model or a tree may try. HOME is memory that goes when the CLI does.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from evaluators.egress import Egress, Upstream, pod_listener
from evaluators.isolation import choose
from evaluators.process import Launch, NotExecutable, RunningProcess
from evaluators.sandbox import Sandbox, clean_environment
from population.errors import IsolationError, ProviderRefused
from vibeserve.agents.clis.cli import CodingCli, Order, Outcome, Report
from vibeserve.agents.clis.installed import Installed
from vibeserve.agents.clis.traffic import Watch
from vibeserve.agents.loop import Limits
from vibeserve.agents.secrets import Redactor
from vibeserve.agents.tools.skills import Shelf

_LOG_BYTES = 32 << 20
_POLL_S = 0.25
_METER_S = 5.0
"""Seconds between two looks at what a CLI says that it has used."""
_TASK = "task.md"
_START = (
    'cp -R "$1/." "$HOME/" && shift && "$@" <"$HOME/task.md" 2>"$HOME/.stderr"; code=$?; echo; tail -c 4000 '
    '"$HOME/.stderr"; exit $code'
)
"""Settings are copied, because every CLI writes beside its own; errors come last, where they break no line of JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """What every child of a CLI has in common."""

    cli: CodingCli
    installed: Installed
    upstream: Upstream
    order: Order
    """Without address and workspace, which are each child's own."""
    limits: Limits
    skills: Shelf
    redact: Redactor
    priced: bool = True
    """Whether the CLI's own prices are those of whom it asks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a CLI ended."""

    report: Report
    watch: Watch
    code: int | None
    """Exit code; None: it was ended."""
    limit: str = ""
    """Which limit it had reached."""
    output: str = ""
    """All that it has printed."""
    elapsed_s: float = 0.0


def run(session: Session, workspace: Path, task: str) -> Ended:
    """Let the CLI work in the workspace.

    Raises:
        ProviderRefused: this machine has no isolation that lets it.
        InfrastructureError: the sandbox cannot be set up.
    """
    sandbox = _sandbox(session)
    who = f"{session.cli.name} {session.order.model}"
    watch = Watch(who, session.redact, session.order.retries)
    with tempfile.TemporaryDirectory(prefix="vibeserve-cli-") as folder, sandbox.pod() as pod:
        if pod is None:
            raise ProviderRefused(_no_network(session))
        with closing(pod_listener(pod)) as listener:
            base_url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            launch = _launch(session, Path(folder), workspace, base_url, task, pod.holder_pid)
            with Egress(session.upstream, listener, watch.note):
                return _carried_out(session, sandbox, launch, watch)


def _sandbox(session: Session) -> Sandbox:
    try:
        return choose(False, first_party=False)
    except IsolationError as error:
        raise ProviderRefused(f"{_no_network(session)}\n{error}") from None


def _no_network(session: Session) -> str:
    return (
        f"{session.cli.name}: a coding CLI needs isolation tier A (bubblewrap), the one with a network of its own, in "
        "which it can reach its model and nothing else; this machine has none (`vibeserve doctor`)"
    )


def _launch(session: Session, folder: Path, workspace: Path, base_url: str, task: str, pod: int) -> Launch:
    home, settings = folder / "home", folder / "settings"
    home.mkdir()
    order = replace(session.order, base_url=base_url, workspace=str(workspace))
    invocation = session.cli.invocation(order)
    _write(settings, {**invocation.files, _TASK: task})
    skills = folder / "skills"
    _write(skills, {f"{skill}/{name}": text for skill, files in session.skills.items() for name, text in files.items()})
    command = (*session.installed.command, *invocation.arguments)
    return Launch(
        command=("/bin/sh", "-c", _START, "sh", str(settings), *command),
        workspace=workspace,
        env={**clean_environment(home), "VIBESERVE_SKILLS": str(skills), **invocation.env},
        log=folder / "log",
        log_limit_bytes=_LOG_BYTES,
        writable=(workspace,),
        readable=(settings, skills, *session.installed.readable),
        pod=pod,
    )


def _write(folder: Path, files: Mapping[str, str]) -> None:
    """For a user of the sandbox to read, whatever our umask."""
    folder.mkdir()
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _carried_out(session: Session, sandbox: Sandbox, launch: Launch, watch: Watch) -> Ended:
    began_s = time.monotonic()
    try:
        with sandbox.launch(launch) as process:
            limit = _awaited(session, process, launch.log, watch, began_s + session.limits.seconds)
            code = process.poll()
    except NotExecutable as error:
        raise ProviderRefused(f"{session.cli.name}: it cannot be run in the sandbox: {error}") from error
    output = _text(launch.log)
    report = session.cli.read(output)
    return Ended(
        report=report, watch=watch, code=code, limit=limit, output=output, elapsed_s=time.monotonic() - began_s
    )


def _awaited(session: Session, process: RunningProcess, log: Path, watch: Watch, deadline_s: float) -> str:
    """Until the CLI has ended, or must be: which limit it has reached, if it is one."""
    limits, metered_s = session.limits, time.monotonic()
    while process.wait(_POLL_S) is None:
        now_s = time.monotonic()
        if watch.fatal is not None:
            return ""
        if now_s >= deadline_s:
            return f"{limits.seconds:g} s"
        if watch.asked > limits.turns:
            return f"{limits.turns} requests"
        if limits.tokens is not None and now_s >= metered_s + _METER_S:
            metered_s = now_s
            usage = session.cli.read(_text(log)).usage
            if usage is not None and usage.input_tokens + usage.output_tokens >= limits.tokens:
                return f"{limits.tokens} tokens"
    return ""


def _text(log: Path) -> str:
    return log.read_bytes().decode(errors="replace") if log.exists() else ""


def ended_well(ended: Ended) -> bool:
    """Whether the CLI says that its work is done, and nothing speaks against it."""
    return ended.report.outcome is Outcome.DONE and ended.code == 0 and not ended.limit and ended.watch.fatal is None
