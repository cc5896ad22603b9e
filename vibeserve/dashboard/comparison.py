"""Decides what the page of several runs is told: what `vibeserve compare --force` says, kept for their revisions."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from population.errors import RunError, UsageError
from vibeserve.comparing.contenders import Contender, Selection
from vibeserve.comparing.run_front import contender_of
from vibeserve.follower import Followed

_MOST_KEPT = 20


class Comparisons:
    """Answers for chosen runs, computed once for their present revisions."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[object, tuple[object, dict[str, Any]]] = {}

    def answer(self, runs: Sequence[Followed], held_out: bool = False) -> dict[str, Any]:
        """The comparison in words, tables and numbers. What keeps it from being fair is in it, not in its way.

        Raises:
            UsageError: fewer than two of the runs have a front that measures the first one's objectives.
        """
        key, now = (held_out, *(run.run_dir for run in runs)), tuple((run.revision, run.life) for run in runs)
        with self._lock:
            found = self._kept.get(key)
            if found is None or found[0] != now:
                if len(self._kept) >= _MOST_KEPT:
                    self._kept.clear()
                found = self._kept[key] = (now, _comparison(runs, held_out))
            return found[1]


def _comparison(runs: Sequence[Followed], held_out: bool) -> dict[str, Any]:
    from vibeserve.comparing.comparison import compare
    from vibeserve.comparing.output import to_json
    from vibeserve.comparing.sheets import sheets
    from vibeserve.comparing.text import next_steps, scale_lines

    contenders: list[Contender] = []
    left_out: list[str] = []
    names: tuple[str, ...] = ()
    for run in runs:
        with run.lock:
            if not contenders:
                names = tuple(run.state.archive.objectives.names)
            try:
                contenders.append(_contender(run, Selection(objectives=names, held_out=held_out)))
            except (RunError, UsageError) as error:  # no front, or other objectives
                left_out.append(f"left out: {error}")
    if len(contenders) < 2:
        raise UsageError(
            f"expected at least two runs with a front, got {len(contenders)} of {len(runs)}"
            + "".join(f"; {text}" for text in left_out)
        )
    first = next(run for run in runs if run.run_dir == contenders[0].place)
    objectives = tuple(first.state.archive.objectives)
    found = compare(contenders, objectives, force=True, held_out=held_out, notes=left_out)
    return {
        **to_json(found),
        "scale": scale_lines(found),
        "tables": [asdict(sheet) for sheet in sheets(found)],
        "steps": next_steps(found),
    }


def _contender(run: Followed, selection: Selection) -> Contender:
    return run.kept(("contender", selection), lambda: contender_of(run.run_dir, run.state, run.life, selection))
