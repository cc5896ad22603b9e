"""Decides how vLLM becomes a candidate: this program's contract on the command line, vLLM's server behind it.

    python server.py --host 127.0.0.1 --port 8000 --artifacts DIR [--memory 0.5]

With artifacts that hold the weights as files (`build.py --files`) vLLM's answers can be audited like anybody's; without
them it gets dummy weights, which cost the same time. Prefix caching is off: every prompt of a measurement is new. It
does not log requests: ours does not, either. Everything else is as vLLM has it: on a GPU of this size up to 1024
sequences, 8192 tokens a step, chunked prefill, asynchronous scheduling.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

MODEL_NAME = "llama-3.1-8b"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", default="8000")
    parser.add_argument("--artifacts", type=Path, required=True)
    parser.add_argument("--memory", default="0.5", help="share of the GPU's memory that vLLM may take")
    arguments = parser.parse_args()
    files = any(arguments.artifacts.glob("*.safetensors"))
    command = [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", str(arguments.artifacts)]
    command += ["--host", arguments.host, "--port", arguments.port, "--served-model-name", MODEL_NAME]
    command += ["--dtype", "bfloat16", "--load-format", "auto" if files else "dummy", "--max-model-len", "8192"]
    command += [
        "--no-enable-prefix-caching",
        "--disable-uvicorn-access-log",
        "--gpu-memory-utilization",
        arguments.memory,
    ]
    os.environ.update(HF_HUB_OFFLINE="1", VLLM_NO_USAGE_STATS="1", DO_NOT_TRACK="1")
    os.execv(sys.executable, command)


if __name__ == "__main__":
    main()
