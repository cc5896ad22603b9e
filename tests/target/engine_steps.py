"""Steps the engine of one tree without HTTP: python engine_steps.py TREE ARTIFACTS < jobs.json > outputs.json

A job is {"prompt": ids, "max_new": n, "arrives": step, "aborts": step or null}; the output is the generated ids.
It runs in a process of its own, because every tree brings modules of the same names.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

tree, artifacts = sys.argv[1:]
sys.path.insert(0, tree)

from engine import Engine  # type: ignore[import-not-found]  # noqa: E402
from model import Model  # type: ignore[import-not-found]  # noqa: E402
from sequence import Sequence  # type: ignore[import-not-found]  # noqa: E402

jobs = json.load(sys.stdin)
engine = Engine(Model(Path(artifacts)), lambda outputs: None, lambda: None)
sequences = [
    Sequence(id=i, tokens=list(job["prompt"]), prompt_len=len(job["prompt"]), max_new_tokens=job["max_new"])
    for i, job in enumerate(jobs)
]
for step in range(100_000):
    for job, sequence in zip(jobs, sequences, strict=True):
        if job["arrives"] == step:
            engine.submit(sequence)
        if job.get("aborts") == step:
            engine.abort(sequence)
    engine._drain_inbox()
    if engine.scheduler.has_work():
        engine._step()
    elif step > max(job["arrives"] for job in jobs):
        break
json.dump([s.tokens[s.prompt_len :] for s in sequences], sys.stdout)
