"""Decides how a model makes a child: what it is told, which tools it has, and what becomes of what it hands in."""

from __future__ import annotations

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
from population.candidate import Proposal
from population.errors import InfrastructureError
from population.evaluation import Rejected, Stage
from vibeserve.agents.loop import Dialogue, Ending, Limits, Outcome
from vibeserve.agents.opening import key_of, open_provider
from vibeserve.agents.options import AgentOptions
from vibeserve.agents.secrets import Redactor
from vibeserve.agents.tools.files import file_tools
from vibeserve.agents.tools.practice import Practice, practice_tools
from vibeserve.agents.tools.shell import Bash, Grep, Shell
from vibeserve.agents.tools.skills import LoadSkill, Shelf
from vibeserve.agents.tools.submit import Submit
from vibeserve.agents.tools.tool import AnyTool, Arguments
from vibeserve.agents.tools.workspace import Workspace
from vibeserve.agents.transcript import FILE, Transcript, readable
from vibeserve.mutators import Mutation, Unmade, Workplace, read_genome

ROLE = "implementer"
_PROMPT = Path(__file__).resolve().parent.parent / "prompts" / "implementer.md"
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
    menu: Mapping[str, str] = field(default_factory=dict)
    """Skill → its description."""
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
        if self.place is None:
            raise InfrastructureError("an agent has to settle on a machine before it can work")
        redact = Redactor([key_of(self.options)])
        transcript = Transcript(redact)
        work = _Work(self, self.place, Workspace(tree))
        with closing(open_provider(self.options, proposal.id, self.recordings)) as provider:
            dialogue = Dialogue(provider, work.tools(), work.submit, self._limits(), transcript)
            ending = dialogue.run(ROLE, _PROMPT.read_text(encoding="utf-8"), work.task(brief))
        return work.outcome(ending, transcript, redact)

    def _limits(self) -> Limits:
        return Limits(turns=self.options.turns, seconds=self.options.child_timeout_s, tokens=self.options.child_tokens)


class _Work:
    """One child in the making."""

    def __init__(self, agent: AgentMutator, place: Workplace, workspace: Workspace) -> None:
        self._agent, self._place, self._workspace = agent, place, workspace
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

    def task(self, brief: str) -> str:
        """What the model is told first: the objective, what to do, and which skills there are."""
        menu = "\n".join(f"- {name}: {about}" for name, about in self._agent.menu.items())
        parts = [
            f"# Objective\n\n{self._target.objective.strip()}",
            "# Your task\n\n" + (brief.strip() or "Improve the server by at least one objective, and harm no other."),
            f"# Skills (`load_skill`)\n\n{menu}" if menu else "",
            f"The workspace is {self._workspace.root}.",
        ]
        return "\n\n".join(filter(None, parts))

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
            summary=f"agent: {words}"[:_LONGEST_SUMMARY],
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
        genome = read_genome(self._workspace.root)
        verdict = genome if isinstance(genome, Rejected) else None
        verdict = verdict or static_check(self._workspace.root, self._target.inspection)
        return None if verdict is None else f"{verdict.reason}\n{verdict.evidence}".strip()


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
