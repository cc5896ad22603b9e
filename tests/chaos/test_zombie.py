"""A driver that was suspended and replaced finds out, acknowledges nothing any more, and says why it ends."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from population.events import Ended
from population.ledger import read_events
from tests.chaos.world import World
from tests.vibeserve.recorded import TOY

_DEADLINE_S = 90.0
_CHECKOUT = TOY.parent.parent


def drive(world: World, *flags: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.chaos.world", str(world.folder), str(world.seed), *flags]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(_CHECKOUT)}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=_CHECKOUT, env=environment, text=True
    )


def until(what: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + _DEADLINE_S
    while not what():
        assert time.monotonic() < deadline, "the condition was never met"
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.002)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_suspended_driver_is_replaced_and_does_not_count_any_more(tmp_path: Path, seed: int) -> None:
    world, calm = World(folder=tmp_path / "run", seed=seed), World(folder=tmp_path / "calm", seed=seed)
    wanted, undisturbed = random.Random(seed).randint(1, 6), drive(calm)
    zombie = drive(world)

    def enough() -> bool:
        run = world.run_dir
        return run is not None and sum(isinstance(e, Ended) for e in read_events(run / "ledger")) >= wanted

    try:
        until(enough, zombie)
        zombie.send_signal(signal.SIGSTOP)
        refused = drive(world)
        assert refused.communicate(timeout=_DEADLINE_S)[1].count(f"only driver, but pid {zombie.pid} on ") == 1
        assert refused.returncode == 1
        successor = drive(world, "--take-over")
        assert "budget: children" in successor.communicate(timeout=_DEADLINE_S)[0]
        assert world.run_dir is not None
        before = list(read_events(world.run_dir / "ledger"))
        zombie.send_signal(signal.SIGCONT)
        out, err = zombie.communicate(timeout=_DEADLINE_S)
    finally:
        zombie.kill()
    assert zombie.returncode == 1 and out == ""
    assert "another driver has taken this run over. This driver stops; nothing that was acknowledged is lost" in err
    assert "Traceback" not in err
    assert list(read_events(world.run_dir / "ledger")) == before
    undisturbed.communicate(timeout=_DEADLINE_S)
    assert undisturbed.returncode == 0
    assert world.population() == calm.population()
