"""One driver of a run on a cluster that is being broken, as a process that can be killed.

`python -m tests.cluster.faults.driver FOLDER ADDRESS DELAY_S TARGET safe|lossy OPTION…` begins the run of that folder
with these options (`seed=3`), or resumes it. An evaluation takes `DELAY_S` seconds.
"""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from typing import Any

from population.errors import VibeServeError
from tests.cluster.faults.ground import GroundEvaluator, NotingDisk, ProvidedRecipes, ProvidedTuning, here
from tests.vibeserve.recorded import toy_config
from vibeserve import wiring
from vibeserve.display import SilentDisplay
from vibeserve.wiring import Parts

_POLL_S = 0.05


def main(folder: str, address: str, delay_s: str, target: str, lossy: str, *options: str) -> None:
    """One driver; errors look as on the command line."""
    wiring.RecipeMutator, wiring.TuneMutator = ProvidedRecipes, ProvidedTuning  # type: ignore[misc]
    if lossy == "lossy":
        _lose_objects_when_told()
    parts, runs = Parts(evaluator=GroundEvaluator(float(delay_s)), disk=NotingDisk()), Path(folder) / "runs"
    begun = [run for run in runs.glob("*") if any((run / "ledger").glob("*.jsonl"))]
    try:
        if begun:
            result = wiring.resume(begun[0], (f"cluster.address={address}",), SilentDisplay(), parts)
        else:
            config = toy_config(runs, *options, f"cluster.address={address}", executor="ray")
            result = wiring.run(config.replace("target", Path(target), "test"), SilentDisplay(), parts)
        print(result.stopped_because)
    except VibeServeError as error:
        sys.exit(f"error: {error}")


def _lose_objects_when_told() -> None:
    """What this driver puts into the object store belongs to another process, which ends when the ground says so.

    With an object's owner every copy of the object is lost: that is how Ray loses what nobody can make again.
    """
    import ray

    put, owners = ray.put, list[Any]()

    def owned(value: object) -> object:
        if not owners:
            owners.append(ray.remote(num_cpus=0)(_Owner).remote())
            threading.Thread(target=end, daemon=True).start()
        return put(value) if owners[-1] is None else ray.get(owners[-1].own.remote(value))[0]

    def end() -> None:
        while not here().now("lose-objects"):
            time.sleep(_POLL_S)
        lost = owners[-1]
        owners.append(None)
        ray.kill(lost)
        here().clear("lose-objects")

    ray.put = owned  # type: ignore[assignment]


class _Owner:
    """An actor that owns objects and does nothing else."""

    def own(self, value: object) -> list[object]:
        """Puts the value, and gives the reference away: in a list, because Ray would resolve a bare one."""
        import ray

        return [ray.put(value)]


if __name__ == "__main__":
    main(*sys.argv[1:])
