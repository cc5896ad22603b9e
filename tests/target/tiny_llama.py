"""Starts copies of the tiny-llama server for tests, changed or not, and asks them for tokens."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TARGET = Path(__file__).resolve().parents[2] / "examples" / "tiny-llama"
READY_TIMEOUT_S = 20.0
Json = dict[str, Any]


def copy_seed(folder: Path, edits: dict[str, tuple[str, str]]) -> Path:
    """The seed in `folder` with one find/replace per named file; a text that is not found is an error."""
    shutil.copytree(TARGET / "seed", folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name, (find, replace) in edits.items():
        text = (folder / name).read_text(encoding="utf-8")
        assert text.count(find) == 1, f"{name} must contain {find!r} once"
        (folder / name).write_text(text.replace(find, replace), encoding="utf-8")
    return folder


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running_server(folder: Path, artifacts: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """URL and process of a server that is ready; killed afterwards if it is still there."""
    port = free_port()
    command = [sys.executable, "-B", "server.py", "--port", str(port), "--artifacts", str(artifacts)]
    environment = {"PATH": os.environ["PATH"], "OPENBLAS_NUM_THREADS": "1"}
    process = subprocess.Popen(command, cwd=folder, env=environment)
    url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + READY_TIMEOUT_S
    try:
        while not _healthy(url):
            assert process.poll() is None, "the server ended before it was ready"
            assert time.monotonic() < deadline, "the server did not become ready"
            time.sleep(0.02)
        yield url, process
    finally:
        process.kill()
        process.wait()


def _healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=1) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def post(url: str, body: Json | bytes, path: str = "/v1/completions") -> tuple[int, Json]:
    """Status and JSON of one request."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url + path, data=data), timeout=30) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def run_script(*arguments: str) -> subprocess.CompletedProcess[str]:
    """One of the target's trusted scripts, isolated as VibeServe runs it."""
    environment = {"PATH": os.environ["PATH"], "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-I", "-B", *arguments]
    return subprocess.run(command, cwd=TARGET, env=environment, capture_output=True, text=True, timeout=60)
