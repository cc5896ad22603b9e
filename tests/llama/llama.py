"""Runs the scripts of the llama-3.1-8b target and servers for it, as processes of their own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
TARGET = CHECKOUT / "examples" / "llama-3.1-8b"
BENCHMARKS = CHECKOUT / "benchmarks" / "llama-3.1-8b"
TOY = Path(__file__).resolve().parent / "toy"
READY_TIMEOUT_S = 60.0


def run_script(*arguments: str | Path, cwd: Path = TARGET) -> subprocess.CompletedProcess[str]:
    """One of the target's trusted scripts, isolated as VibeServe runs it."""
    command = [sys.executable, "-I", "-B", *map(str, arguments)]
    environment = {"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120)


@contextmanager
def running_server(tree: Path, artifacts: Path, fault: str = "") -> Iterator[str]:
    """URL of a server that is ready; killed afterwards."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = [sys.executable, "-B", "server.py", "--port", str(port), "--artifacts", str(artifacts)]
    environment = {"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1", "LLAMA_FAULT": fault}
    process = subprocess.Popen(command, cwd=tree, env=environment)
    url, deadline_s = f"http://127.0.0.1:{port}", time.monotonic() + READY_TIMEOUT_S
    try:
        while not _healthy(url):
            assert process.poll() is None, "the server ended before it was ready"
            assert time.monotonic() < deadline_s, "the server did not become ready"
            time.sleep(0.05)
        yield url
    finally:
        process.kill()
        process.wait()


def _healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=1) as response:
            return bool(response.status == 200)
    except (OSError, urllib.error.URLError):
        return False
