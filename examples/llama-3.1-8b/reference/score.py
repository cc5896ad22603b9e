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
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))
from model import Reference, load_reference

Json = dict[str, Any]
BATCH_TOKENS = 8192
"""Padded tokens per forward pass: enough for full speed, and 0.5 GB of activations."""
LOGIT_ROWS = 512
"""Tokens whose logits are there at a time: 0.3 GB."""
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
    if not responses:
        raise ResponsesError(f"{path}: expected at least one response, found none")
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


def score_batch(reference: Reference, batch: list[Json]) -> list[torch.Tensor]:
    """The gap of every emitted token, one tensor per response."""
    rows = [torch.tensor(r["prompt_ids"] + r["output_ids"]) for r in batch]
    hidden = reference.hidden(torch.nn.utils.rnn.pad_sequence(rows, batch_first=True))
    # Position p predicts token p + 1: only positions from the end of the prompt on need logits.
    wanted = [hidden[i, len(r["prompt_ids"]) - 1 : len(rows[i]) - 1] for i, r in enumerate(batch)]
    emitted = torch.cat([torch.tensor(r["output_ids"]) for r in batch]).to(hidden.device)
    pieces = zip(torch.cat(wanted).split(LOGIT_ROWS), emitted.split(LOGIT_ROWS), strict=True)
    gaps = torch.cat([token_gaps(reference.logits(states), ids) for states, ids in pieces]).cpu()
    return list(gaps.split([len(w) for w in wanted]))


def token_gaps(logits_NV: torch.Tensor, emitted_N: torch.Tensor) -> torch.Tensor:
    """(max z - z[emitted]) / std(z) of every row; infinite where the reference's own logits are not finite."""
    emitted = logits_NV.gather(1, emitted_N[:, None])[:, 0]
    gaps = ((logits_NV.amax(1) - emitted) / logits_NV.std(1, correction=0)).double()
    return torch.where(gaps.isfinite(), gaps, math.inf)


def summary(responses: list[Json], gaps: list[torch.Tensor]) -> Json:
    """The figures that the audit's thresholds are compared with, in total and per response."""
    every = torch.cat(gaps).sort().values
    return {
        "tokens": len(every),
        "mean_gap": float(every.mean()),
        "p999_gap": float(every[math.ceil(0.999 * len(every)) - 1]),
        "max_gap": float(every[-1]),
        "flip_rate": float((every > 0).double().mean()),
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
    found = {
        id(r): gap for batch in batches(responses) for r, gap in zip(batch, score_batch(reference, batch), strict=True)
    }
    return summary(responses, [found[id(r)] for r in responses])


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
    arguments.output.write_text(json.dumps(score(reference, responses), allow_nan=False) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
