"""Decides how a working tree is changed without an LLM: by applying a recipe, or by writing new knob values.

Merging is git's work (`population/repository.py`); a merged tree passes through no mutator.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from evaluators.evaluator import Evaluator
from population.candidate import Proposal
from population.errors import ConfigError
from population.evaluation import Rejected, Stage
from population.genome import Genome, KnobValue, parse_genome
from population.recipe import Edit, Recipe
from population.spending import Spending
from vibeserve.executor import Returned


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutation:
    """A tree was changed in place; what was done, for the commit message and for children/<id>/."""

    summary: str
    """One line, the subject of the commit."""
    changed: tuple[str, ...]
    """Paths written, relative to the tree, sorted."""
    trace: str
    """Readable account of how the change came about (an LLM mutator's transcript)."""
    spent: tuple[Spending, ...] = ()
    """What models were asked for it."""
    files: tuple[tuple[str, str], ...] = ()
    """More for children/<id>/: name and text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unmade:
    """A mutation that failed, and what it had cost until then."""

    rejected: Rejected
    spent: tuple[Spending, ...] = ()
    files: tuple[tuple[str, str], ...] = ()
    """As of `Mutation`."""


class Mutator(Protocol):
    """Working tree + brief → changed tree + trace."""

    def mutate(self, tree: Path, proposal: Proposal, brief: str) -> Mutation | Unmade | Rejected:
        """Change the files below `tree`, which belongs to the caller and holds no git folder.

        Deterministic for RECIPE and TUNE. On `Rejected` (stage MUTATE) or `Unmade`, which has one and a bill, the tree
        is as it was, or is thrown away by the caller; nothing outside it has been touched.

        Args:
            tree: working tree of the first parent.
            proposal: what to do.
            brief: all that a model is told (`vibeserve.briefing`); only LLM mutators read it.

        Raises:
            ProviderError: the provider of a language model failed; never the child's fault.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Workplace:
    """What a mutator may use of the machine that it works on."""

    target: Path
    """The run's snapshot of the target, on this machine."""
    evaluator: Evaluator
    cpus: int
    """Logical CPUs per evaluation."""


@runtime_checkable
class Repairing(Protocol):
    """A mutator that can go on with what it has made."""

    def repair(self, tree: Path, proposal: Proposal, brief: str, returned: Returned) -> Mutation | Unmade | Rejected:
        """As `Mutator.mutate`, from the child's own tree, which was rejected; `brief` is what it was told at first."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What a child's maker has done to the first parent's tree."""

    tree: Path
    """The child's, afterwards; not to be changed."""
    proposal: Proposal
    summary: str
    diff: str
    changed: tuple[str, ...]
    attempt: int
    """0 until it was sent back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """What a judge says of a change. There is no word for a pass: what comes next decides as if nobody had looked."""

    objection: Rejected | None
    spent: tuple[Spending, ...] = ()
    files: tuple[tuple[str, str], ...] = ()
    """As of `Mutation`."""


class Reviewer(Protocol):
    """Reads what a model has written, before it is run."""

    def review(self, change: Change) -> Review:
        """
        Raises:
            ProviderError: as `Mutator.mutate`.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """Hints about a candidate; none where its profile told nothing."""

    text: str
    spent: tuple[Spending, ...] = ()
    files: tuple[tuple[str, str], ...] = ()
    """As of `Mutation`."""


class Advisor(Protocol):
    """Reads a candidate's profile for those who will change it."""

    def advise(self, tree: Path, proposal: Proposal, profile: str) -> Advice:
        """
        Args:
            tree: the candidate's; not to be changed.
            proposal: whose maker will be told.
            profile: what was measured, as a task.

        Raises:
            ProviderError: as `Mutator.mutate`.
        """
        ...


@runtime_checkable
class Settling(Protocol):
    """A maker that has to know the machine before it can work: it travels without, and settles where it arrives."""

    def settle(self, place: Workplace) -> object:
        """The same maker, at work there."""
        ...


class RecipeMutator:
    """Applies the recipe that a proposal names, then the proposal's knob values."""

    def __init__(self, recipes: Mapping[str, Recipe]) -> None:
        self._recipes = recipes

    def mutate(self, tree: Path, proposal: Proposal, brief: str) -> Mutation | Rejected:
        recipe = self._recipes.get(proposal.recipe or "")
        if recipe is None:
            known = ", ".join(sorted(self._recipes)) or "none"
            return _rejected(f"expected the name of a known recipe ({known}), got {proposal.recipe!r}")
        genome = read_genome(tree)
        if isinstance(genome, Rejected):
            return genome
        if not recipe.applies(genome):
            return _rejected(f"recipe '{recipe.name}' does not apply: {_why_not(recipe, genome)}")
        texts = _recipe_texts(tree, recipe)
        if isinstance(texts, Rejected):
            return texts
        knobs = _knob_texts(tree, proposal.knobs, texts)
        if isinstance(knobs, Rejected):
            return knobs
        return _written(tree, texts | knobs, f"recipe {recipe.name}: {recipe.summary}", proposal.knobs)


class TuneMutator:
    """Writes the proposal's knob values; every other character of the TOML files stays as it was."""

    def mutate(self, tree: Path, proposal: Proposal, brief: str) -> Mutation | Rejected:
        if not proposal.knobs:
            return _rejected("expected at least one knob to tune, got none")
        texts = _knob_texts(tree, proposal.knobs, {})
        if isinstance(texts, Rejected):
            return texts
        subject = "tune " + ", ".join(f"{knob} = {value}" for knob, value in sorted(proposal.knobs.items()))
        return _written(tree, texts, subject, proposal.knobs)


def read_genome(tree: Path) -> Genome | Rejected:
    """The genome of a working tree, from its component TOML files."""
    try:
        return parse_genome(_component_files(tree))
    except ConfigError as error:
        return _rejected(f"the tree's component files are malformed: {error.problems[0]}", str(error))


def _rejected(reason: str, evidence: str = "") -> Rejected:
    return Rejected(stage=Stage.MUTATE, reason=reason, evidence=evidence[:4000])


def _component_files(tree: Path) -> dict[str, str]:
    """TOML files at the top of the tree; a link could point outside it and is no component."""
    return {
        p.name: p.read_text(encoding="utf-8", errors="replace")
        for p in sorted(tree.glob("*.toml"))
        if not p.is_symlink()
    }


def _why_not(recipe: Recipe, genome: Genome) -> str:
    has = genome.capabilities
    versions = {name: component.interface for name, component in genome.components.items()}
    reasons = [
        f"it is written for {name} interface {version}, the tree has {versions.get(name)}"
        for name, version in recipe.components.items()
        if versions.get(name) != version
    ]
    reasons += [f"it needs '{c}', which no component provides" for c in recipe.needs if c not in has]
    reasons += [f"it conflicts with '{c}'" for c in recipe.conflicts if c in has]
    return "; ".join(reasons) or "the tree already provides " + ", ".join(recipe.provides)


def _recipe_texts(tree: Path, recipe: Recipe) -> dict[str, str] | Rejected:
    texts = dict(recipe.files)
    for edit in recipe.edits:
        path = tree / edit.path
        if edit.path not in texts:
            if not path.is_file() or not path.resolve().is_relative_to(tree.resolve()):
                return _rejected(f"recipe '{recipe.name}' edits {edit.path}, which the tree does not have")
            texts[edit.path] = path.read_text(encoding="utf-8", errors="replace")
        edited = _edited(texts[edit.path], edit, recipe.name)
        if isinstance(edited, Rejected):
            return edited
        texts[edit.path] = edited
    return texts


def _edited(text: str, edit: Edit, recipe: str) -> str | Rejected:
    count = text.count(edit.find)
    if count != 1:
        return _rejected(
            f"recipe '{recipe}' expected its text exactly once in {edit.path}, found it {count} times",
            f"find:\n{edit.find}\n\n{edit.path}:\n{text}",
        )
    return text.replace(edit.find, edit.replace)


def _knob_texts(tree: Path, knobs: Mapping[str, KnobValue], pending: Mapping[str, str]) -> dict[str, str] | Rejected:
    """New texts of the TOML files that hold `knobs`; `pending` are texts not yet written that take precedence."""
    files = _component_files(tree) | {p: t for p, t in pending.items() if "/" not in p and p.endswith(".toml")}
    try:
        before = parse_genome(files)
        path_of = {name: path for path, text in files.items() for name in parse_genome({path: text}).components}
    except ConfigError as error:
        return _rejected(f"the tree's component files are malformed: {error.problems[0]}", str(error))
    texts: dict[str, str] = {}
    for address, value in sorted(knobs.items()):
        knob = before.knobs.get(address)
        if knob is None:
            return _rejected(
                f"expected a knob of the tree ({', '.join(sorted(before.knobs)) or 'none'}), got '{address}'"
            )
        if not knob.admits(value):
            span = knob.choices or (knob.low, knob.high)
            return _rejected(f"knob '{address}' expects {knob.type} in {list(span)}, got {value!r}")
        component, _, name = address.partition(".")
        path = path_of[component]
        text = _with_value(texts.get(path, files[path]), name, value)
        if parse_genome({path: text}).components[component].knobs[name].value != value:
            return _rejected(f"{path}: [knob.{name}] needs its 'value' on a line of its own to be tuned")
        texts[path] = text
    return texts


_HEADER = re.compile(r"^\s*\[\[?\s*(?P<name>[^\[\]]+?)\s*\]\]?\s*(#.*)?$")
_VALUE = re.compile(r"""^(?P<head>\s*value\s*=\s*)("(?:[^"\\]|\\.)*"|'[^']*'|[^#\s]+)(?P<tail>\s*(?:#.*)?)$""")


def _with_value(text: str, knob: str, value: KnobValue) -> str:
    """`text` with the `value` line below `[knob.<knob>]` rewritten, line endings kept; unchanged if there is none."""
    literal = json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
    lines, inside = text.splitlines(keepends=True), False
    for i, line in enumerate(lines):
        bare = line.rstrip("\r\n")
        if header := _HEADER.match(bare):
            inside = re.sub(r"[\s\"']", "", header["name"]) == f"knob.{knob}"
        elif inside and (match := _VALUE.match(bare)):
            lines[i] = f"{match['head']}{literal}{match['tail']}{line[len(bare) :]}"
            break
    return "".join(lines)


def _written(tree: Path, texts: Mapping[str, str], summary: str, knobs: Mapping[str, KnobValue]) -> Mutation | Rejected:
    changed = []
    for name, text in sorted(texts.items()):
        path = tree / name
        if path.is_symlink() or not path.parent.resolve().is_relative_to(tree.resolve()):
            return _rejected(f"expected {name} to be a plain file inside the tree, found a link")
        if path.is_file() and path.read_bytes() == text.encode():
            continue
        path.write_bytes(text.encode())
        changed.append(name)
    trace = "\n".join([summary, *(f"{k} = {v}" for k, v in sorted(knobs.items())), *(f"wrote {c}" for c in changed)])
    return Mutation(summary=summary, changed=tuple(changed), trace=trace)
