"""Decides what a scripted child is: edits from a file, so that a whole search runs without any model.

    [[child]]
    summary = "hold tokens back"
    [[child.write]]                     # a whole file
    path = "notes.txt"
    content = "…"
    [[child.edit]]                      # text that occurs exactly once
    path = "engine.toml"
    find = "value = 4.0"
    replace = "value = 2.0"

    [[child.repair]]                    # what it does when it is sent back, the first time
    [[child.repair.edit]]
    path = "engine.toml"
    find = "value = 2.0"
    replace = "value = 3.0"

Child number n takes the n-th entry; after the last one they begin again. A merge that conflicts takes its child's, too.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from population.candidate import Proposal
from population.errors import ConfigError
from population.evaluation import Rejected, Stage
from vibeserve.agents.tools.tool import ToolProblem
from vibeserve.agents.tools.workspace import Workspace
from vibeserve.executor import Returned
from vibeserve.mutators import Mutation


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Written(_Table):
    """A file as it shall be."""

    path: str
    content: str


class Edited(_Table):
    """A change of a file."""

    path: str
    find: Annotated[str, Field(min_length=1)]
    replace: str


class ScriptedStep(_Table):
    """What is done to a tree."""

    write: tuple[Written, ...] = ()
    edit: tuple[Edited, ...] = ()


class ScriptedChild(ScriptedStep):
    """What one child does to its parent, and to itself when it is sent back."""

    summary: Annotated[str, Field(min_length=1)]
    repair: tuple[ScriptedStep, ...] = ()


class _Script(_Table):
    child: Annotated[tuple[ScriptedChild, ...], Field(min_length=1)]


class ScriptedMutator:
    """Makes children of a script; see the module. Deterministic by the child's number."""

    def __init__(self, children: tuple[ScriptedChild, ...]) -> None:
        self._children = children

    @classmethod
    def load(cls, path: Path) -> ScriptedMutator:
        """
        Raises:
            ConfigError: the file cannot be read, or is no script.
        """
        try:
            return cls(_Script.model_validate(tomllib.loads(path.read_text(encoding="utf-8"))).child)
        except OSError as error:
            raise ConfigError(f"agents.script: {path}: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"agents.script: {path}: {error}") from error
        except ValidationError as error:
            raise ConfigError(
                [f"agents.script: {path}: {'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
            ) from error

    def mutate(self, tree: Path, proposal: Proposal, brief: str) -> Mutation | Rejected:
        """See `Mutator.mutate`."""
        child = self._child(proposal)
        return self._done(tree, child, child.summary)

    def repair(self, tree: Path, proposal: Proposal, brief: str, returned: Returned) -> Mutation | Rejected:
        """See `Repairing.repair`."""
        child = self._child(proposal)
        if returned.attempt > len(child.repair):
            return _rejected("the script does not say how to mend it")
        return self._done(tree, child.repair[returned.attempt - 1], f"{child.summary}, mended")

    def _child(self, proposal: Proposal) -> ScriptedChild:
        return self._children[(proposal.number - 1) % len(self._children)]

    def _done(self, tree: Path, step: ScriptedStep, summary: str) -> Mutation | Rejected:
        workspace = Workspace(tree)
        before = workspace.digests()
        try:
            for file in step.write:
                workspace.write(file.path, file.content)
            for edit in step.edit:
                text = workspace.text(edit.path)
                if (count := text.count(edit.find)) != 1:
                    return _rejected(f"expected '{edit.find}' once in {edit.path}, found it {count} times")
                workspace.write(edit.path, text.replace(edit.find, edit.replace))
        except ToolProblem as problem:
            return _rejected(str(problem))
        after = workspace.digests()
        changed = tuple(sorted(name for name in {*before, *after} if before.get(name) != after.get(name)))
        trace = "\n".join([summary, *(f"wrote {name}" for name in changed)])
        return Mutation(summary=f"script: {summary}", changed=changed, trace=trace)


def _rejected(reason: str) -> Rejected:
    return Rejected(stage=Stage.MUTATE, reason=reason)
