"""Decides how `vllm bench serve` runs many times in one process: importing vLLM takes longer than a run.

    python -P client.py        reads a JSON list of words per line, those after `vllm bench serve`; answers each with {}

What vLLM prints goes to stderr. An error ends the process, with its traceback there.
"""

from __future__ import annotations

import json
import os
import sys


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    from vllm.entrypoints.cli.main import main as vllm  # type: ignore[import-not-found]

    print("{}", file=answers, flush=True)
    for line in sys.stdin:
        sys.argv = ["vllm", "bench", "serve", *json.loads(line)]
        vllm()
        print("{}", file=answers, flush=True)


if __name__ == "__main__":
    main()
