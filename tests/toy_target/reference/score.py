"""Re-score answers: the gap is 0 for the model's token and 3 for any other."""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from model import load_salt, next_id

parser = argparse.ArgumentParser()
parser.add_argument("--artifacts", required=True)
parser.add_argument("--responses", type=Path, required=True)
parser.add_argument("--output", type=Path, required=True)
arguments = parser.parse_args()
salt = load_salt(arguments.artifacts)

rows, gaps = [], []
for line in arguments.responses.read_text().splitlines():
    response = json.loads(line)
    tokens, mine = list(response["prompt_ids"]), []
    for token in response["output_ids"]:
        mine.append(0.0 if token == next_id(tokens, salt) else 3.0)
        tokens.append(token)
    rows.append(
        {
            "id": response["id"],
            "tokens": len(mine),
            "flips": sum(g > 0 for g in mine),
            "max_gap": max(mine),
            "mean_gap": sum(mine) / len(mine),
            "worst_position": mine.index(max(mine)),
            "gaps": mine,
        }
    )
    gaps += mine
gaps.sort()
report = {
    "tokens": len(gaps),
    "mean_gap": sum(gaps) / len(gaps),
    "p999_gap": gaps[min(len(gaps) - 1, int(0.999 * len(gaps)))],
    "max_gap": gaps[-1],
    "flip_rate": sum(g > 0 for g in gaps) / len(gaps),
    "per_response": rows,
}
arguments.output.write_text(json.dumps(report))
