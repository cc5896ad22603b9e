"""Decides how a model makes a child: what it is told, which tools it has, and what becomes of what it hands in."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

from pydantic import Field

from evaluators.isolation import choose
from evaluators.judge import static_check
from evaluators.process import printable
from evaluators.target import load_target
from population.candidate import Operator, Proposal
from population.errors import InfrastructureError
from population.evaluation import Rejected, Stage
from vibeserve.agents.conversation import Conversation, Exchange, ToolResult
from vibeserve.agents.loop import Dialogue, Ending, Limits, Outcome
from vibeserve.agents.opening import key_of, open_provider
from vibeserve.agents.options import AgentOptions
from vibeserve.agents.roles import IMPLEMENTER
from vibeserve.agents.secrets import Redactor
from vibeserve.agents.tools.files import file_tools
from vibeserve.agents.tools.practice import Practice, practice_tools
from vibeserve.agents.tools.shell import Bash, Grep, Shell
from vibeserve.agents.tools.skills import LoadSkill, Shelf
from vibeserve.agents.tools.submit import Submit
from vibeserve.agents.tools.tool import AnyTool, Arguments
from vibeserve.agents.tools.workspace import Workspace
from vibeserve.agents.transcript import FILE, Transcript, read_past, readable
from vibeserve.executor import Returned
from vibeserve.making import marked
from vibeserve.mutators import Mutation, Unmade, Workplace, read_genome
from vibeserve.prompts.rendering import instructions

_LONGEST_SUMMARY = 100
_LONGEST_TRACE = 30_000


class SubmitArguments(Arguments):
    summary: Annotated[str, Field(min_length=1)]
    """What was changed and why, in one sentence: the subject of the commit."""


@dataclass(frozen=True, kw_only=True)
class AgentMutator:
    """Makes children by a conversation with a model. Travels without its `place`, and without the key."""

    options: AgentOptions
    skills: Shelf = field(default_factory=dict)
    allow_reduced: bool = False
    """Whether tier B will do for what the model runs."""
    recordings: Mapping[str, str] = field(default_factory=dict)
    """Child → transcript, for `replay`."""
    place: Workplace | None = None

    def settle(self, place: Workplace) -> AgentMutator:
        """See `Settling.settle`."""
        return replace(self, place=place)

    def mutate(self, tree: Path, proposal: Proposal, brief: str) -> Mutation | Unmade:
        """See `Mutator.mutate`."""
        return self._made(tree, proposal, Conversation(instructions=instructions(IMPLEMENTER), task=brief))

    def repair(self, tree: Path, proposal: Proposal, brief: str, returned: Returned) -> Mutation | Unmade:
        """See `Repairing.repair`: the conversation goes on; where it was not kept, it begins again."""
        past = read_past(returned.transcript, f"{proposal.id}: {FILE}") if returned.transcript else None
        if past is None or not past.exchanges:
            return self.mutate(tree, proposal, f"{brief}\n\n{returned.words}")
        said = [_whole(exchange) for exchange in past.exchanges]
        last = replace(said[-1], note=f"{said[-1].note}\n{returned.words}".strip())
        told = replace(past, exchanges=(*said[:-1], last))
        return self._made(tree, proposal, told, returned.transcript, returned.words)

    def _made(
        self, tree: Path, proposal: Proposal, told: Conversation, past: str = "", words: str = ""
    ) -> Mutation | Unmade:
        """`past`: the transcript of what was said; `words`: what is new since then."""
        if self.place is None:
            raise InfrastructureError("an agent has to settle on a machine before it can work")
        redact = Redactor([key_of(self.options)])
        transcript = Transcript(redact, past)
        if past:
            transcript.note(words)
        work = _Work(self, self.place, Workspace(tree), proposal)
        with closing(open_provider(self.options, proposal.id, self.recordings)) as provider:
            dialogue = Dialogue(provider, work.tools(), work.submit, self._limits(), transcript)
            ending = dialogue.run(IMPLEMENTER, told.instructions, told.task, told.exchanges)
        return work.outcome(ending, transcript, redact)

    def _limits(self) -> Limits:
        return Limits(turns=self.options.turns, seconds=self.options.child_timeout_s, tokens=self.options.child_tokens)


class _Work:
    """One child in the making."""

    def __init__(self, agent: AgentMutator, place: Workplace, workspace: Workspace, proposal: Proposal) -> None:
        self._agent, self._place, self._workspace = agent, place, workspace
        self._merging = proposal.operator is Operator.MERGE
        self._target = load_target(place.target)
        self._before = workspace.digests()
        self.submit = Submit("Hand in the workspace as it is; this ends your work.", SubmitArguments, self._problem)

    def tools(self) -> Sequence[AnyTool]:
        """What the model may do, but for handing in."""
        options, workspace = self._agent.options, self._workspace
        shell = Shell(workspace, choose(self._agent.allow_reduced, first_party=False))
        found: list[AnyTool] = [Bash(shell, options.bash_timeout_s), *file_tools(workspace), Grep(shell, workspace)]
        if self._agent.skills:
            found.append(LoadSkill(self._agent.skills))
        return [*found, *practice_tools(Practice(workspace, self._place), options.checks, options.benchmarks)]

    def outcome(self, ending: Ending, transcript: Transcript, redact: Redactor) -> Mutation | Unmade:
        """What the conversation has made."""
        files = ((FILE, transcript.text),)
        told = readable(transcript.text)[-_LONGEST_TRACE:]
        if ending.outcome is not Outcome.SUBMITTED:
            verb = "the model refused: " if ending.outcome is Outcome.REFUSED else ""
            return _unmade(ending, redact(f"{verb}{ending.reason}"), told, files)
        if (leak := self._workspace.find(redact.finds)) is not None:
            return _unmade(ending, f"expected files without the provider's key, found it in {leak}", "", files)
        words = " ".join(printable(redact(self.submit.taken.summary)).split())
        return Mutation(
            summary=f"{Operator.MERGE if self._merging else Operator.AGENT}: {words}"[:_LONGEST_SUMMARY],
            changed=self._changed(),
            trace=told,
            spent=(ending.spent,),
            files=files,
        )

    def _changed(self) -> tuple[str, ...]:
        after = self._workspace.digests()
        return tuple(sorted(n for n in {*self._before, *after} if self._before.get(n) != after.get(n)))

    def _problem(self, given: SubmitArguments) -> str | None:
        """What would surely be rejected, while it can be mended still."""
        if not self._changed():
            return "nothing was changed"
        if self._merging and (problem := marked(self._workspace.root)) is not None:
            return problem
        genome = read_genome(self._workspace.root)
        verdict = genome if isinstance(genome, Rejected) else None
        verdict = verdict or static_check(self._workspace.root, self._target.inspection)
        return None if verdict is None else f"{verdict.reason}\n{verdict.evidence}".strip()


def _whole(exchange: Exchange) -> Exchange:
    """As providers take it: arguments that are a JSON object, and a result for every call."""
    results = {result.call_id: result for result in exchange.results}
    calls = tuple(replace(call, arguments=_object(call.arguments)) for call in exchange.turn.calls)
    missing = "not done: it came after submit"
    return replace(
        exchange,
        turn=replace(exchange.turn, calls=calls),
        results=tuple(results.get(c.id) or ToolResult(call_id=c.id, text=missing, failed=True) for c in calls),
    )


def _object(arguments: str) -> str:
    try:
        return arguments if isinstance(json.loads(arguments), dict) else "{}"
    except ValueError:
        return "{}"


def _unmade(ending: Ending, reason: str, evidence: str, files: tuple[tuple[str, str], ...]) -> Unmade:
    rejected = Rejected(stage=Stage.MUTATE, reason=reason[:1000], evidence=evidence[-4000:])
    return Unmade(rejected=rejected, spent=(ending.spent,), files=files)


def shelf_of(folder: Path) -> dict[str, dict[str, str]]:
    """Skill → relative path → text, of every skill below the folder; what is no text is left out."""
    shelf: dict[str, dict[str, str]] = {}
    for main in sorted(folder.glob("*/SKILL.md")):
        texts = shelf[main.parent.name] = {}
        for path in sorted(p for p in main.parent.rglob("*") if p.is_file() and "__pycache__" not in p.parts):
            try:
                texts[str(path.relative_to(main.parent))] = path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue
    return shelf
