"""Decides how a model reads a tree that it cannot change, and what comes of it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evaluators.isolation import choose
from population.spending import Spending
from vibeserve.agents.loop import Dialogue, Limits, Outcome
from vibeserve.agents.opening import key_of, open_provider
from vibeserve.agents.options import AgentOptions
from vibeserve.agents.secrets import Redactor
from vibeserve.agents.tools.files import Glob, Read
from vibeserve.agents.tools.shell import Grep, Shell
from vibeserve.agents.tools.submit import Submit
from vibeserve.agents.tools.tool import AnyTool
from vibeserve.agents.tools.workspace import Workspace
from vibeserve.agents.transcript import Transcript
from vibeserve.prompts.rendering import instructions


@dataclass(frozen=True, kw_only=True)
class Reader:
    """A model with eyes and no hands. Travels without the key."""

    role: str
    options: AgentOptions
    limits: Limits
    allow_reduced: bool = False
    """Whether tier B will do for `grep`."""
    recordings: Mapping[str, str] = field(default_factory=dict)
    """Name → transcript, for `replay`."""

    def read(self, name: str, tree: Path, task: str, submit: Submit) -> Reading | None:
        """One conversation about the tree; `name`: of its transcript. None: a replay that has no recording of it.

        Raises:
            ProviderError: as `Dialogue.run`.
        """
        if self.options.provider == "replay" and name not in self.recordings:
            return None
        redact = Redactor([key_of(self.options)])
        transcript, workspace = Transcript(redact), Workspace(tree)
        with closing(open_provider(self.options, name, self.recordings)) as provider:
            dialogue = Dialogue(provider, self.tools(workspace), submit, self.limits, transcript)
            ending = dialogue.run(self.role, instructions(self.role), task)
        handed_in = ending.outcome is Outcome.SUBMITTED
        return Reading(
            taken=submit.taken if handed_in else None,
            silence="" if handed_in else redact(f"{ending.outcome}: {ending.reason}"),
            spent=ending.spent,
            files=((f"{name.rpartition('/')[2]}.jsonl", transcript.text),),
            redact=redact,
        )

    def tools(self, workspace: Workspace) -> tuple[AnyTool, ...]:
        """None of them writes."""
        shell = Shell(workspace, choose(self.allow_reduced, first_party=False))
        return (Read(workspace), Glob(workspace), Grep(shell, workspace))


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What came of a conversation."""

    taken: Any
    """What was handed in; None: nothing."""
    silence: str
    """Why nothing was."""
    spent: Spending
    files: tuple[tuple[str, str], ...]
    redact: Redactor
