"""Proves that the `gpu` extra resolves to the vLLM it was written for; resolvers have silently gone back years."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

WANTED = re.compile(r"^vllm==0\.24\.\d+", re.M)
ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    command = [
        "uv",
        "pip",
        "compile",
        "pyproject.toml",
        "--extra",
        "gpu",
        "--python-version",
        "3.12",
        "--no-python-downloads",
    ]
    command += ["--python-platform", "x86_64-manylinux_2_28", "--no-header", "--no-annotate"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)
    if result.returncode:
        print(f"error: the gpu extra does not resolve:\n{result.stderr}", file=sys.stderr)
        return 1
    found = re.findall(r"^(?:vllm|torch|flashinfer-python)==\S+", result.stdout, re.M)
    if not WANTED.search(result.stdout):
        print(f"error: expected the gpu extra to resolve to vllm 0.24.x, got {found}", file=sys.stderr)
        return 1
    print("gpu extra resolves to " + ", ".join(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
