"""Decides how the lessons of a run are shown: ideas with their gains, the way to every member, and the diffs."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

from population.archive import Archive
from population.errors import VibeServeError
from population.repository import Repository
from population.statistics import Estimate
from vibeserve.front_rows import SEED
from vibeserve.narrative.blocks import Block, Code, Table, Text
from vibeserve.narrative.lessons import Idea, ancestors, gains_over, idea_of, ideas, path_to
from vibeserve.narrative.material import Material
from vibeserve.wording import gain

_DIFF_LINES = 400


def learned(material: Material) -> list[Block]:
    """Which ideas gained how much on which objective, how every member came to be, and what changed on the way."""
    archive = material.state.archive
    front = [row.id for row in material.summary.front]
    found = ideas(archive)
    if not found:
        return [Text(text="No child has ended yet.")]
    names = archive.objectives.names
    head = ("idea", "tried", "scored", *names, "in the front", "rejected at")
    return [
        Text(text="A gain is a child's over the parent that it edited: × above 1 is better, whatever the direction; "
                  "the mean over all scored tries, with its 95 % interval. What is worth nothing alone can unlock "
                  "something else."),
        Table(caption="Ideas, the most valuable first", head=head, rows=[_idea_row(i, archive) for i in found],
              numeric=frozenset(range(1, 3 + len(names)))),
        *_ways(archive, front),
        *_diffs(material.run_dir, archive, front),
    ]  # fmt: skip


def _idea_row(idea: Idea, archive: Archive) -> tuple[str, ...]:
    stages = ", ".join(f"{stage} {count}" for stage, count in sorted(idea.rejected.items()))
    gains = [_gain(idea.gains[name]) if name in idea.gains else "–" for name in archive.objectives.names]
    members = len([member for member in archive.front if member != SEED])
    where = f"all {members}" if members > 1 and len(idea.members) == members else ", ".join(idea.members) or "–"
    return (idea.name, str(idea.tried), str(idea.scored), *gains, where, stages or "–")


def _gain(found: Estimate) -> str:
    return f"{gain(found.value)}\n{gain(found.low)} – {gain(found.high)}"


def _ways(archive: Archive, front: Sequence[str]) -> list[Block]:
    """One table per member of the front: from the seed along the parents that were edited, every step told once."""
    tables: list[Block] = []
    told: dict[str, str] = {}
    for member in front:
        path = path_to(archive, member)
        if len(path) > 1 and all(step in archive.scored for step in path):
            tables.append(_way(archive, path, told))
            told = dict.fromkeys(path[1:], member) | told
    return tables


def _way(archive: Archive, path: Sequence[str], told: Mapping[str, str]) -> Table:
    """`told`: steps that stand in an earlier table → the member that it is about."""

    def row(candidate: str, what: str, over: str, name: str = "") -> tuple[str, ...]:
        return (name or candidate, what, *(_gain(found) for found in gains_over(archive, candidate, over).values()))

    begin = next((i for i in range(len(path) - 1, 0, -1) if path[i] in told), 0)
    rows = []
    if begin:
        candidate = path[begin]
        rows.append(row(candidate, f"from the seed on, as above for {told[candidate]}", path[0]))
    for parent, candidate in itertools.pairwise(path[begin:]):
        parents = archive.candidates[candidate].proposal.parents
        other = f" with {parents[1]}" if len(parents) > 1 else ""
        rows.append(row(candidate, _step_text(archive, candidate) + other, parent))
    if len(rows) > 1:
        rows.append(row(path[-1], f"over {path[0]}", path[0], "together"))
    names = archive.objectives.names
    return Table(caption=f"How {path[-1]} came to be", head=("step", "what", *names), rows=rows,
                 numeric=frozenset(range(2, 2 + len(names))))  # fmt: skip


def _step_text(archive: Archive, child: str) -> str:
    proposal = archive.candidates[child].proposal
    knobs = ", ".join(f"{name}={value}" for name, value in proposal.knobs.items())
    return knobs if knobs and not proposal.recipe else f"{idea_of(proposal)}{f' ({knobs})' if knobs else ''}"


def _diffs(run_dir: Path, archive: Archive, front: Sequence[str]) -> list[Block]:
    """What every step changed that a member of the front is made of, each once."""
    wanted = {name: None for member in front for name in reversed(ancestors(archive, member)) if name != SEED}
    try:
        repository = Repository.open(run_dir / "population.git")
        texts = {child: _diff(repository, archive, child) for child in wanted}
    except VibeServeError as error:
        return [Text(text=f"The diffs cannot be shown: {error}")]
    titles = {child: f"{child}: {_step_text(archive, child)}, against {_parent(archive, child)}" for child in texts}
    shown = [Code(text=text, language="diff", summary=titles[child]) for child, text in texts.items() if text]
    return [Text(text="What these steps changed:"), *shown] if shown else []


def _parent(archive: Archive, child: str) -> str:
    return (archive.candidates[child].proposal.parents or (SEED,))[0]


def _diff(repository: Repository, archive: Archive, child: str) -> str:
    candidates: Mapping[str, object] = archive.candidates
    parent = _parent(archive, child)
    if parent not in candidates:
        return ""
    lines = repository.diff(archive.candidates[parent].commit, archive.candidates[child].commit).splitlines()
    if len(lines) > _DIFF_LINES:
        more = f"… {len(lines) - _DIFF_LINES} more lines: vibeserve diff {child}"
        lines = [*lines[:_DIFF_LINES], more]
    return "\n".join(lines)
