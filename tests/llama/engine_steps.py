"""Steps the engine of one tree without HTTP: python engine_steps.py TREE ARTIFACTS < jobs.json > outputs.json

A job is {"prompt": ids, "max_new": n, "arrives": turn, "aborts": turn or null}, perhaps with "temperature", "seed"; the
output is the generated ids. It runs in a process of its own, because every tree brings modules of the same names.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

tree, artifacts = sys.argv[1:]
sys.path.insert(0, tree)

import torch  # noqa: E402
from engine import Engine  # type: ignore[import-not-found]  # noqa: E402
from model import Model  # type: ignore[import-not-found]  # noqa: E402
from sequence import Sampling, Sequence  # type: ignore[import-not-found]  # noqa: E402

torch.set_num_threads(1)
jobs = json.load(sys.stdin)
device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
engine = Engine(Model(Path(artifacts), device), lambda outputs: None, lambda: None)
sequences = [
    Sequence(
        id=number,
        tokens=list(job["prompt"]),
        prompt_len=len(job["prompt"]),
        max_new_tokens=job["max_new"],
        sampling=Sampling(temperature=job.get("temperature", 0.0), seed=job.get("seed", 0)),
    )
    for number, job in enumerate(jobs)
]
running, last = None, max(job["arrives"] for job in jobs)
with torch.inference_mode():
    for turn in range(100_000):
        for job, sequence in zip(jobs, sequences, strict=True):
            if job["arrives"] == turn:
                engine.submit(sequence)
            if job.get("aborts") == turn:
                engine.abort(sequence)
        if engine._inbox or engine.scheduler.has_work() or running is not None:
            running = engine.turn(running)
        elif turn > last:
            break
json.dump([sequence.tokens[sequence.prompt_len :] for sequence in sequences], sys.stdout)
