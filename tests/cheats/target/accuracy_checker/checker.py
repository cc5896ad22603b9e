"""Decides whether a server answers six fixed questions as the reference does, one after the other and unstreamed.

    python checker.py --url http://127.0.0.1:8000 --artifacts DIR [--output-json FILE]      exit code 0 = pass

Deliberately no better than the accuracy gates one meets: the questions are public, the user agent gives it away, and
nothing runs under load. The corpus shows that an evaluation does not depend on it.
"""

from __future__ import annotations

import argparse
import json
import sys
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "reference"))
from model import load_reference
from score import score

QUESTIONS = [[100 + (number * 131 + i * 37) % 1900 for i in range(12)] for number in range(6)]
TOKENS = 8
LARGEST_GAP = 0.05
TIMEOUT_S = 5.0


def ask(url: str, question: list[int]) -> dict[str, Any]:
    body = {
        "model": "cheats",
        "prompt": question,
        "max_tokens": TOKENS,
        "temperature": 0,
        "ignore_eos": True,
        "return_token_ids": True,
    }
    request = urllib.request.Request(
        f"{url}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as reply:
        choice = json.load(reply)["choices"][0]
    return {"id": str(question[0]), "prompt_ids": question, "output_ids": choice["token_ids"]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True)
    parser.add_argument("--artifacts", type=Path, required=True)
    parser.add_argument("--output-json", type=Path)
    arguments = parser.parse_args()
    answers = [ask(arguments.url, question) for question in QUESTIONS]
    short = [a for a in answers if len(a["output_ids"]) != TOKENS]
    report = {} if short else score(load_reference(arguments.artifacts), answers)
    passed = not short and bool(np.isfinite(report["max_gap"])) and report["max_gap"] <= LARGEST_GAP
    if arguments.output_json is not None:
        arguments.output_json.write_text(json.dumps({"passed": passed, "answers": answers, **report}) + "\n")
    print(f"expected {TOKENS} tokens within {LARGEST_GAP} of the reference's choice, got {short or report}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
