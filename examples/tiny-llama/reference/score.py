"""Decides how far served tokens are from what the reference model would have chosen: the teacher-forced audit.

    python score.py --artifacts DIR --responses FILE.jsonl --output FILE.json

Every line of the responses is {"id", "prompt_ids", "output_ids", …}. The reference reads prompt and output in one
pass; at each emitted token, gap = (max z - z[emitted]) / std(z) over the reference's logits z; a flip is a gap above 0.
`p999_gap` is the 99.9th percentile by nearest rank: the maximum for fewer than 1000 tokens.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

# One thread per batch, and as many batches at a time as there are CPUs: two threads in one product wait for each other.
os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"
import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parent))
from model import Array, Reference, load_reference

Json = dict[str, Any]
BATCH_TOKENS = 640
"""Padded tokens per forward pass: large enough for full speed, small enough that every CPU gets some."""
PADDING = 1.3
"""Longest response of a batch over its shortest."""


class ResponsesError(ValueError):
    """The responses file is malformed: says which line and what was expected."""


def read_responses(path: Path, vocab_size: int, max_len: int) -> list[Json]:
    """Read and check the responses.

    Raises:
        ResponsesError: naming file and line.
    """
    responses: list[Json] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            entry = json.loads(line)
        except ValueError as error:
            raise ResponsesError(f"{path}:{number}: not valid JSON: {error}") from error
        for key in ("prompt_ids", "output_ids"):
            ids = entry.get(key) if isinstance(entry, dict) else None
            if not isinstance(ids, list) or not ids or not all(type(i) is int and 0 <= i < vocab_size for i in ids):
                raise ResponsesError(f"{path}:{number}: '{key}' must be a non-empty list of ids below {vocab_size}")
        if len(entry["prompt_ids"]) + len(entry["output_ids"]) > max_len:
            raise ResponsesError(f"{path}:{number}: prompt and output are longer than {max_len} tokens")
        responses.append(entry)
    return responses


def batches(responses: list[Json]) -> Iterator[list[Json]]:
    """Responses of similar length together, at most BATCH_TOKENS padded tokens each, the longest first."""
    batch: list[Json] = []
    longest = 0
    for response in sorted(responses, key=_length, reverse=True):
        length = _length(response)
        longest = longest if batch else length
        if batch and ((len(batch) + 1) * longest > BATCH_TOKENS or longest > PADDING * length):
            yield batch
            longest = length
            batch = []
        batch.append(response)
    if batch:
        yield batch


def _length(response: Json) -> int:
    return len(response["prompt_ids"]) + len(response["output_ids"])


def score_batch(reference: Reference, batch: list[Json]) -> list[npt.NDArray[np.float64]]:
    """The gap of every emitted token, one array per response."""
    rows = [r["prompt_ids"] + r["output_ids"] for r in batch]
    ids = np.zeros((len(rows), max(map(len, rows))), dtype=np.int64)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
    hidden = reference.hidden(ids)
    # Position p predicts token p + 1: only positions from the end of the prompt on need logits.
    wanted = [hidden[i, len(r["prompt_ids"]) - 1 : len(rows[i]) - 1] for i, r in enumerate(batch)]
    logits = reference.logits(np.concatenate(wanted))
    gaps = token_gaps(logits, np.concatenate([np.asarray(r["output_ids"]) for r in batch]))
    return np.split(gaps, np.cumsum([len(w) for w in wanted])[:-1])


def token_gaps(logits_NV: Array, emitted_N: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """(max z - z[emitted]) / std(z) of every row; infinite where the reference's own logits are not finite."""
    emitted = logits_NV[np.arange(len(emitted_N)), emitted_N]
    gaps = ((logits_NV.max(axis=1) - emitted) / logits_NV.std(axis=1)).astype(np.float64)
    return np.where(np.isfinite(gaps), gaps, np.inf)


def summary(responses: list[Json], gaps: list[npt.NDArray[np.float64]]) -> Json:
    """The figures that the audit's thresholds are compared with, in total and per response."""
    every = np.sort(np.concatenate(gaps))
    return {
        "tokens": len(every),
        "mean_gap": float(every.mean()),
        "p999_gap": float(every[math.ceil(0.999 * len(every)) - 1]),
        "max_gap": float(every[-1]),
        "flip_rate": float((every > 0).mean()),
        "per_response": [
            {
                "id": response.get("id"),
                "tokens": len(gap),
                "mean_gap": float(gap.mean()),
                "max_gap": float(gap.max()),
                "flips": int((gap > 0).sum()),
                "worst_position": int(gap.argmax()),
                "gaps": gap.tolist(),
            }
            for response, gap in zip(responses, gaps, strict=True)
        ],
    }


def score(reference: Reference, responses: list[Json]) -> Json:
    """Score responses in their given order."""
    work = list(batches(responses))
    with ThreadPoolExecutor(_cpus()) as pool:
        scored = pool.map(lambda batch: score_batch(reference, batch), work)
        found = {
            id(r): gap for batch, gaps in zip(work, scored, strict=True) for r, gap in zip(batch, gaps, strict=True)
        }
    return summary(responses, [found[id(r)] for r in responses])


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--artifacts", type=Path, required=True)
    parser.add_argument("--responses", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    reference = load_reference(arguments.artifacts)
    try:
        responses = read_responses(arguments.responses, reference.config.vocab_size, reference.config.max_len)
    except ResponsesError as error:
        print(error, file=sys.stderr)
        return 1
    if not responses:
        print(f"{arguments.responses}: expected at least one response, found none", file=sys.stderr)
        return 1
    arguments.output.write_text(json.dumps(score(reference, responses), allow_nan=False) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
