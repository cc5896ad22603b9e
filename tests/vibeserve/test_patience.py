"""A mutation that fails through no fault of its child is tried again while patience lasts, and never charged."""

from __future__ import annotations

from pathlib import Path

import pytest

from population.errors import InfrastructureError
from population.events import Faulted
from population.ledger import read_events
from population.replay import State
from tests.chaos.world import population
from tests.cluster.faults.ground import GROUND_VARIABLE, Ground, ProvidedRecipes, ProvidedTuning
from tests.cluster.faults.reference import Reference
from tests.vibeserve.recorded import RecordedEvaluator, toy_config
from vibeserve import wiring
from vibeserve.display import SilentDisplay
from vibeserve.retries import ATTEMPTS
from vibeserve.wiring import Parts

PARTS = Parts(evaluator=RecordedEvaluator())
OPTIONS = ("budget.children=4", "evaluation.remeasure=false")


@pytest.fixture
def ground(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ground:
    monkeypatch.setenv(GROUND_VARIABLE, str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(wiring, "RecipeMutator", ProvidedRecipes)
    monkeypatch.setattr(wiring, "TuneMutator", ProvidedTuning)
    return Ground(tmp_path)


def faults(run_dir: Path) -> list[Faulted]:
    return [event for event in read_events(run_dir / "ledger") if isinstance(event, Faulted)]


class Mending(SilentDisplay):
    """Ends the outage once a child has been refused more often than an evaluation would have been tried."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground

    def event(self, line: str) -> None:
        refused = [note.key for note in self._ground.notes() if note.what == "refuse"]
        if self._ground.now("outage") and any(refused.count(key) > ATTEMPTS for key in refused):
            self._ground.clear("outage")


def test_an_outage_is_waited_for(ground: Ground, tmp_path: Path) -> None:
    ground.set("outage")
    config = toy_config(tmp_path / "runs", *OPTIONS)
    run_dir = wiring.run(config, Mending(ground), PARTS).run_dir
    found = faults(run_dir)
    assert max(fault.attempt for fault in found) == ATTEMPTS + 1
    assert all("the provider does not answer: 503" in fault.reason for fault in found)
    state = State.replay(read_events(run_dir / "ledger"))
    assert len(state.archive.children) == 5
    assert population(state) == Reference(run_dir, tmp_path / "again").population()


def test_when_patience_ends_the_run_stops_and_can_be_resumed(ground: Ground, tmp_path: Path) -> None:
    ground.set("outage")
    config = toy_config(tmp_path / "runs", *OPTIONS, "cluster.patience_s=0")
    with pytest.raises(InfrastructureError, match=r"503 \(attempt 1\)\. Nothing is lost: .*`vibeserve resume`"):
        wiring.run(config, SilentDisplay(), PARTS)
    (run_dir,) = (tmp_path / "runs").glob("*")
    assert [fault.attempt for fault in faults(run_dir)] == [1]
    ground.clear("outage")
    wiring.resume(run_dir, (), SilentDisplay(), PARTS)
    state = State.replay(read_events(run_dir / "ledger"))
    assert len(state.archive.children) == 5
    assert population(state) == Reference(run_dir, tmp_path / "again").population()
