"""Decides how a run looks to a program: frozen records of its candidates, a table of them, its front as a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from population.candidate import Candidate, Child
from population.errors import UsageError
from population.evaluation import Rejected, Scored
from population.genome import KnobValue
from population.objectives import Objective
from population.replay import State
from population.repository import Repository
from population.statistics import Estimate
from vibeserve.front_rows import SEED, weakest_tier
from vibeserve.runs import candidate_name, find_run, read_run

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateRecord:
    """One child of a run that has ended, scored or not."""

    id: str
    number: int
    operator: str
    recipe: str | None
    knobs: Mapping[str, KnobValue]
    """What the proposal changed."""
    parents: tuple[str, ...]
    commit: str | None
    """None: it never became a commit."""
    scored: bool
    on_front: bool
    stage: str | None
    """Where it was rejected; None if it was not."""
    reason: str | None
    flags: tuple[str, ...]
    """Caveats of its measurements."""
    tier: str
    """The weakest isolation tier of its evaluations."""
    cost_s: float
    """Wall seconds of mutation and evaluation."""
    objectives: Mapping[str, Estimate]
    """Objective → pooled estimate; empty if it was not scored."""
    metrics: Mapping[str, Estimate]
    """Every metric as `vllm bench serve` names it, with `@load`; empty if it was not scored."""


class Run:
    """A run as it was when this was made; make another one to see what has happened since.

        run = vibeserve.Run("runs/20261121-125916-quickstart")
        run.front[0].objectives["output_throughput"].value
        run.dataframe().query("on_front").sort_values("output_throughput")
        run.plot_front()

    Raises:
        UsageError: no such run, or several.
        LedgerError: the ledger is damaged before its tail.
    """

    def __init__(self, run: str | Path | None = None, runs_dir: str | Path | None = None) -> None:
        """A folder, a name, a unique part of a name, or nothing for the latest, as on the command line."""
        self.folder = find_run(None if run is None else str(run), None if runs_dir is None else Path(runs_dir))
        _, self._state = read_run(self.folder)

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r}): {len(self.candidates)} candidates, a front of {len(self.front)}"

    @property
    def name(self) -> str:
        """The run's name."""
        return self.folder.name

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """In the target's order, with unit and direction."""
        return tuple(self._state.archive.objectives)

    @cached_property
    def candidates(self) -> tuple[CandidateRecord, ...]:
        """Every child that has ended, by number; the seed first."""
        return records(self._state)

    @property
    def front(self) -> tuple[CandidateRecord, ...]:
        """The members of the front, best in the first objective first."""
        members = [record for record in self.candidates if record.on_front]
        if not members:
            return ()
        first = self.objectives[0]
        return tuple(sorted(members, key=lambda record: first.cost(record.objectives[first.name].value)))

    @property
    def seed(self) -> CandidateRecord | None:
        """The first server; None until it has been evaluated."""
        return next((record for record in self.candidates if record.number == 0), None)

    def candidate(self, name: str) -> CandidateRecord:
        """By `c000012`, `12` or `seed`.

        Raises:
            UsageError: the run has no such candidate.
        """
        wanted = candidate_name(name)
        found = next((record for record in self.candidates if record.id == wanted), None)
        if found is None:
            raise UsageError(f"{self.name} has no candidate {wanted} that has ended")
        return found

    def gain(self, name: str, over: str = "seed") -> dict[str, float]:
        """Objective → how many times better, above 1 is better whatever the direction; as measured, no claim."""
        ours, theirs = self.candidate(name).objectives, self.candidate(over).objectives
        if not ours or not theirs:
            raise UsageError(f"{name} and {over} must both be scored to be compared")
        return {o.name: o.gain(ours[o.name].value, theirs[o.name].value) for o in self.objectives}

    def diff(self, name: str, against: str | None = None) -> str:
        """What a candidate changed with respect to another one, its first parent if omitted."""
        found = self.candidate(name)
        other = self.candidate(against) if against else self.candidate((found.parents or (SEED,))[0])
        if found.commit is None or other.commit is None:
            raise UsageError(f"{(found if found.commit is None else other).id} never became a commit")
        return Repository.open(self.folder / "population.git").diff(other.commit, found.commit)

    def rows(self) -> list[dict[str, Any]]:
        """One flat row per candidate, as `vibeserve export` writes it."""
        return rows(self.candidates, self.objectives)

    def dataframe(self) -> pandas.DataFrame:
        """The rows, indexed by candidate. Needs pandas (`pip install 'vibeserve[export]'`).

        Raises:
            UsageError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise UsageError(
                "a DataFrame needs pandas: pip install 'vibeserve[export]'; rows() does without"
            ) from error
        return pandas.DataFrame(self.rows()).set_index("id")

    def plot_front(self, x: str | None = None, y: str | None = None) -> plotly.graph_objects.Figure:
        """Two objectives (the first two if omitted) of all candidates, the front with its 95 % intervals.

        Raises:
            UsageError: no such objective, or nothing was scored.
        """
        from vibeserve.front_plot import front_figure

        return front_figure(self, x, y)


def records(state: State) -> tuple[CandidateRecord, ...]:
    """Every child of a replayed state that has ended, by number."""
    front, scored = frozenset(state.archive.front), frozenset(state.archive.scored)
    return tuple(
        _record(state, child, child.proposal.id in scored, child.proposal.id in front)
        for _, child in sorted(state.archive.children.items())
    )


def _record(state: State, child: Child, scored: bool, on_front: bool) -> CandidateRecord:
    archive, proposal = state.archive, child.proposal
    known = archive.evaluations(proposal.id) if isinstance(child, Candidate) else (child.evaluation,)
    rejected = next((e for e in reversed(known) if isinstance(e, Rejected)), None)
    return CandidateRecord(
        id=proposal.id,
        number=proposal.number,
        operator=str(proposal.operator),
        recipe=proposal.recipe,
        knobs=dict(proposal.knobs),
        parents=proposal.parents,
        commit=child.commit if isinstance(child, Candidate) else None,
        scored=scored,
        on_front=on_front,
        stage=str(rejected.stage) if rejected else None,
        reason=rejected.reason if rejected else None,
        flags=tuple(sorted({flag for e in known if isinstance(e, Scored) for flag in e.flags})),
        tier=weakest_tier(known),
        cost_s=child.cost_s,
        objectives=dict(archive.estimates(proposal.id)) if scored else {},
        metrics={n: e for n, e in archive.metrics(proposal.id).items() if "@" in n or n not in archive.objectives.names}
        if scored
        else {},
    )


def rows(candidates: Sequence[CandidateRecord], objectives: Sequence[Objective]) -> list[dict[str, Any]]:
    """Flat rows with the same keys each: objectives as `name`, `name_low`, `name_high`, `name_n`; metrics by value."""
    names = sorted({name for record in candidates for name in record.metrics})
    return [_row(record, objectives, names) for record in candidates]


def _row(record: CandidateRecord, objectives: Sequence[Objective], names: Sequence[str]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "id": record.id,
        "number": record.number,
        "operator": record.operator,
        "recipe": record.recipe,
        "knobs": ", ".join(f"{name}={value}" for name, value in record.knobs.items()),
        "parents": " ".join(record.parents),
        "commit": record.commit,
        "scored": record.scored,
        "on_front": record.on_front,
        "stage": record.stage,
        "reason": record.reason,
        "flags": " ".join(record.flags),
        "tier": record.tier,
        "cost_s": record.cost_s,
    }
    for objective in objectives:
        found = record.objectives.get(objective.name)
        for part in ("value", "low", "high", "n"):
            key = objective.name if part == "value" else f"{objective.name}_{part}"
            row[key] = getattr(found, part) if found else None
    measured = record.metrics
    return row | {name: measured[name].value if name in measured else None for name in names if name not in row}
