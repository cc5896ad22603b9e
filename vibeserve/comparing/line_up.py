"""Decides who takes part in a comparison: runs, the runs of sweeps, and baselines, all on the same objectives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from population.errors import RunError, UsageError
from population.objectives import Objective
from vibeserve.comparing.baselines import read_baselines
from vibeserve.comparing.comparison import Comparison, compare
from vibeserve.comparing.contenders import Contender, Selection
from vibeserve.comparing.run_front import objectives_of, read_contender
from vibeserve.runs import find_run
from vibeserve.sweep import unfinished
from vibeserve.sweep_folder import find_sweep, read_sweep, run_dirs_of


def line_up(
    texts: Sequence[str], baselines: Sequence[str], selection: Selection, runs_dir: Path | None, force: bool
) -> Comparison:
    """Compare what the texts name.

    Raises:
        UsageError: no such run, sweep or baseline, or fewer than two fronts.
        RunError: they were not measured alike, or a run has no front.
    """
    run_dirs, notes = _run_dirs(texts, runs_dir)
    contenders: list[Contender] = []
    objectives: tuple[Objective, ...] = ()
    for run_dir in run_dirs:
        try:
            contenders.append(read_contender(run_dir, selection))
        except RunError as error:
            if len(run_dirs) <= len(texts):
                raise  # it was named
            notes.append(f"left out: {error}")
            continue
        if not objectives:
            objectives = objectives_of(run_dir, selection)
            if force:  # the others may have declared others: all are compared on those of the first
                selection = replace(selection, objectives=tuple(o.name for o in objectives))
    if len(objectives) == 1:
        raise UsageError(
            f"expected at least two objectives, got only {objectives[0].name}: with one there is a best and no front; "
            "`vibeserve front` shows it"
        )
    places = {run_dir.resolve() for run_dir in run_dirs}
    for baseline in read_baselines(baselines, objectives, selection, runs_dir) if contenders else ():
        if baseline.place.resolve() in places:
            notes.append(f"{baseline.name} is one of the runs and takes part once")
        else:
            contenders.append(baseline)
    if len(contenders) < 2:
        raise UsageError(
            f"expected at least two fronts to compare, got {len(contenders)}: name two runs, a sweep, or a --baseline"
            + "".join(f"\n  {note}" for note in notes)
        )
    return compare(contenders, objectives, force=force, held_out=selection.held_out, notes=notes)


def _run_dirs(texts: Sequence[str], runs_dir: Path | None) -> tuple[list[Path], list[str]]:
    """Every run once, in the order named; and what to know about sweeps that are not complete."""
    found: dict[Path, Path] = {}
    notes: list[str] = []
    for text in texts:
        folder = find_sweep(text, runs_dir)
        if folder is None:
            run_dir = find_run(text, runs_dir)
            found.setdefault(run_dir.resolve(), run_dir)
            continue
        sweep = read_sweep(folder)
        for run_dir in run_dirs_of(folder, sweep):
            found.setdefault(run_dir.resolve(), run_dir)
        notes += [f"{folder.name}: {text}" for text in unfinished(sweep)]
    if len(found) < len(texts):
        notes.append("a run that was named twice takes part once")
    return list(found.values()), notes
