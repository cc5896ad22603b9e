"""Decides what is known, while it runs, of an evaluation on a worker: its stage and its node.

What is over within a tenth of a second is never spoken of: a call to an actor costs as much as a short evaluation.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from typing import Any

from population.evaluation import Stage

_SHOWN = 4096
_SOON_S = 0.1


class Board:
    """Actor: which stage each evaluation is in, and on which node; losing it costs a display, and some patience."""

    def __init__(self) -> None:
        self._stages: OrderedDict[str, tuple[Stage, float]] = OrderedDict()
        self._places: dict[str, tuple[str, str]] = {}
        self._warm: set[int] = set()

    def warmed(self, process: int) -> int:
        """How many workers are warm, that one included."""
        self._warm.add(process)
        return len(self._warm)

    def enter(self, key: str, stage: Stage, place: tuple[str, str]) -> None:
        """`place`: Ray's ids of the node and of the task, which is another one when the key is submitted again."""
        self._stages[key], self._places[key] = (stage, time.monotonic()), place
        self._stages.move_to_end(key)
        if len(self._stages) > _SHOWN:
            oldest, _ = self._stages.popitem(last=False)
            del self._places[oldest]

    def on(self, nodes: frozenset[str]) -> tuple[str, ...]:
        """Ids of the tasks that were last heard of on these nodes."""
        return tuple(task for node, task in self._places.values() if node in nodes)

    def begun(self, tasks: frozenset[str]) -> frozenset[str]:
        """Which of these tasks it has ever heard of."""
        return tasks.intersection(task for _, task in self._places.values())

    def stages(self) -> dict[str, tuple[Stage, float]]:
        now = time.monotonic()
        return {key: (stage, now - since) for key, (stage, since) in self._stages.items()}


class Reporter:
    """Tells the board what this worker is doing, from a thread of its own that sleeps while there is nothing to do."""

    def __init__(self, board: Any) -> None:
        self._board = board
        self._current: tuple[str, Stage, tuple[str, str]] | None = None
        self._busy = threading.Event()
        threading.Thread(target=self._tell, daemon=True).start()

    def enter(self, key: str, stage: Stage, place: tuple[str, str]) -> None:
        """The evaluation has come to this stage."""
        self._current = (key, stage, place)
        if not self._busy.is_set():
            self._busy.set()

    def leave(self) -> None:
        """It is over."""
        self._current = None

    def _tell(self) -> None:
        told = None
        while self._busy.wait():
            time.sleep(_SOON_S)
            current = self._current
            if current is None:
                self._busy.clear()
                if self._current is not None:  # it began in between
                    self._busy.set()
            elif current is not told:
                self._board.enter.remote(*current)
                told = current
