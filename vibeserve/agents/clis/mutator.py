"""Decides how a coding CLI makes a child: what it is told, and what becomes of the tree that it leaves behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from evaluators.egress import Upstream
from evaluators.process import printable
from population.candidate import Operator, Proposal
from population.errors import ProviderError, ProviderRefused
from population.evaluation import Rejected, Stage
from population.spending import Spending
from vibeserve.agents.clis.aside import set_aside
from vibeserve.agents.clis.cli import CodingCli, Order, Outcome, Report
from vibeserve.agents.clis.installed import Installed, required
from vibeserve.agents.clis.registry import CLIS
from vibeserve.agents.clis.session import Ended, Session, ended_well, run
from vibeserve.agents.conversation import Conversation, ToolResult
from vibeserve.agents.loop import Limits
from vibeserve.agents.opening import key_of, keyless
from vibeserve.agents.options import AgentOptions
from vibeserve.agents.provider import ContextOverflow
from vibeserve.agents.providers.failures import Complaint, Refused, judged
from vibeserve.agents.roles import IMPLEMENTER
from vibeserve.agents.secrets import Redactor
from vibeserve.agents.tools.skills import Shelf
from vibeserve.agents.tools.tool import bounded
from vibeserve.agents.tools.workspace import Workspace
from vibeserve.agents.transcript import FILE, Transcript, readable
from vibeserve.executor import Returned
from vibeserve.making import marked
from vibeserve.mutators import Mutation, Unmade, read_genome
from vibeserve.prompts.rendering import instructions

_PROMPT = "cli"
_LONGEST_SUMMARY = 100
_LONGEST_TRACE = 30_000
_LONGEST_RESULT = 4_000
_EVIDENCE = 4_000
_WORDS = 500


@dataclass(frozen=True, kw_only=True)
class CliMutator:
    """Makes children by a coding CLI. Travels without the key, and finds the CLI on the machine that it works on."""

    options: AgentOptions
    skills: Shelf = field(default_factory=dict)

    def mutate(self, tree: Path, proposal: Proposal, brief: str) -> Mutation | Unmade:
        """See `Mutator.mutate`."""
        return self._made(tree, proposal, brief)

    def repair(self, tree: Path, proposal: Proposal, brief: str, returned: Returned) -> Mutation | Unmade:
        """See `Repairing.repair`. A CLI keeps nothing of what was said: it begins again, on the child's own tree."""
        return self._made(tree, proposal, f"{brief}\n\n{returned.words}", returned)

    def _made(self, tree: Path, proposal: Proposal, task: str, returned: Returned | None = None) -> Mutation | Unmade:
        options, cli = self.options, CLIS[str(self.options.provider)]
        key = key_of(options)
        if not key and not keyless(options):
            place = options.key_file or options.key_env or cli.key_env
            raise ProviderRefused(f"{cli.name}: no key on this machine: expected it in {place} ([agents] key_env)")
        redact = Redactor([key])
        session = _session(options, cli, required(cli, options.command), key, self.skills)
        told = Conversation(instructions=instructions(_PROMPT), task=task)
        transcript = Transcript(redact, returned.transcript if returned else "")
        if returned and returned.transcript:
            transcript.note(returned.words)
        else:
            transcript.begin(IMPLEMENTER, session.order.model, told)
            transcript.note(f"[{cli.name} {session.installed.release}]")
        workspace = Workspace(tree)
        before = workspace.digests()
        with set_aside(workspace.root):
            ended = run(session, workspace.root, f"{told.instructions}\n\n{told.task}\n")
        child = _Child(session, ended, transcript, workspace)
        return child.outcome(before, Operator.MERGE if proposal.operator is Operator.MERGE else Operator.AGENT)


def _session(options: AgentOptions, cli: CodingCli, installed: Installed, key: str, skills: Shelf) -> Session:
    model = options.model or ""
    return Session(
        cli=cli,
        installed=installed,
        upstream=Upstream(
            url=options.base_url or cli.address,
            # Errors are to be read on their way (`traffic.py`).
            headers={**cli.headers(key), "Accept-Encoding": "identity"},
            paths=cli.paths,
            timeout_s=options.request_timeout_s,
        ),
        order=Order(
            model=model,
            effort=options.effort,
            max_output_tokens=options.max_output_tokens,
            retries=options.retries,
        ),
        limits=Limits(turns=options.turns, seconds=options.child_timeout_s, tokens=options.child_tokens),
        skills=skills,
        redact=Redactor([key]),
        priced=options.base_url is None,
    )


class _Child:
    """What a CLI has made of a tree."""

    def __init__(self, session: Session, ended: Ended, transcript: Transcript, workspace: Workspace) -> None:
        self._session, self._ended, self._workspace, self._transcript = session, ended, workspace, transcript
        self._spent = _spent(session, ended)
        self._redact = session.redact

    def outcome(self, before: dict[str, str], operator: Operator) -> Mutation | Unmade:
        """The child, or why there is none.

        Raises:
            ProviderError: the provider is to blame.
        """
        self._write_down(self._ended.report)
        if not ended_well(self._ended):
            return self._unmade(self._reason(), printable(self._redact(self._ended.output)))
        after = self._workspace.digests()
        changed = tuple(sorted(n for n in {*before, *after} if before.get(n) != after.get(n)))
        problem = self._problem(changed, operator)
        if problem is not None:
            return self._unmade(problem)
        self._transcript.end("submitted", f"after {self._ended.watch.answered} requests")
        words = " ".join(printable(self._redact(self._ended.report.last_words)).split()) or "no words"
        return Mutation(
            summary=f"{operator}: {words}"[:_LONGEST_SUMMARY],
            changed=changed,
            trace=readable(self._transcript.text)[-_LONGEST_TRACE:],
            spent=(self._spent,),
            files=((FILE, self._transcript.text),),
        )

    def _problem(self, changed: Sequence[str], operator: Operator) -> str | None:
        """What cannot become a candidate. What can be mended is left to be rejected, and comes back with evidence."""
        if not changed:
            return "nothing was changed"
        if (leak := self._workspace.find(self._redact.finds)) is not None:
            return f"expected files without the provider's key, found it in {leak}"
        if operator is Operator.MERGE and (problem := marked(self._workspace.root)) is not None:
            return problem
        genome = read_genome(self._workspace.root)
        return genome.reason if isinstance(genome, Rejected) else None

    def _reason(self) -> str:
        """Why there is no child, where the CLI or its model is to blame.

        Raises:
            ProviderError: neither is.
        """
        ended, report, cli = self._ended, self._ended.report, self._session.cli.name
        if ended.limit:
            return f"nothing was handed in within {ended.limit}"
        if ended.watch.fatal is not None:
            self._give_up(ended.watch.fatal)
        words, last = " ".join(report.words.split()), ended.watch.last
        if report.outcome is Outcome.REFUSED or isinstance(last, Refused):
            return f"the model refused: {words}"
        if report.outcome is Outcome.LENGTH or isinstance(last, ContextOverflow):
            return f"longer than the model can read or write: {words}"
        self._blame(report)
        return f"{cli} ended with exit code {ended.code}: {words or 'it does not say why'}"

    def _blame(self, report: Report) -> None:
        """
        Raises:
            ProviderError: the API failed the CLI, or the CLI did not get as far as to ask it.
        """
        ended, who = self._ended, f"{self._session.cli.name} {self._session.installed.release}"
        error = ended.watch.last
        if error is None and report.outcome is Outcome.BROKE:
            error = judged(Complaint(message=report.words), who, self._redact)
        if error is None and not ended.watch.asked:
            last = " ".join(printable(self._redact(ended.output)).split())[-_WORDS:] or "nothing"
            error = ProviderRefused(
                f"{who} ended with exit code {ended.code} before it asked its model anything; it said: {last}"
            )
        if isinstance(error, ProviderError):
            self._give_up(error)

    def _give_up(self, error: ProviderError) -> None:
        error.spent = (self._spent,)
        raise error

    def _write_down(self, report: Report) -> None:
        for step in report.steps:
            if isinstance(step, ToolResult):
                self._transcript.result(replace(step, text=bounded(self._redact(step.text), _LONGEST_RESULT)), 0.0)
            else:
                self._transcript.turn(step)
        if report.dollars is not None:
            self._transcript.note(f"[{self._session.cli.name} says that this cost ${report.dollars:.4f}]")

    def _unmade(self, reason: str, evidence: str = "") -> Unmade:
        reason = self._redact(reason)
        self._transcript.end("failed", reason)
        rejected = Rejected(stage=Stage.MUTATE, reason=reason[:1000], evidence=evidence[-_EVIDENCE:])
        return Unmade(rejected=rejected, spent=(self._spent,), files=((FILE, self._transcript.text),))


def _spent(session: Session, ended: Ended) -> Spending:
    """Requests as the proxy has counted them, tokens as the CLI has: where it does not say, they are unknown."""
    used, answered = ended.report.usage, ended.watch.answered
    bill = Spending(
        role=IMPLEMENTER, model=session.order.model, requests=answered, elapsed_s=ended.elapsed_s,
        dollars=ended.report.dollars if session.priced else None,
    )  # fmt: skip
    if used is None:
        return replace(bill, unmetered=answered)
    return replace(
        bill,
        input_tokens=used.input_tokens,
        cached_tokens=used.cached_tokens,
        cache_write_tokens=used.cache_write_tokens,
        output_tokens=used.output_tokens,
    )
