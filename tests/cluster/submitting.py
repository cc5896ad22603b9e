"""A Ray head node as an operator starts it, with a real token, and the job commands as a user types them."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from vibeserve.layers import CHECKOUT

DEADLINE_S = 240.0
NODE_KEY = "sk-of-the-node-3f9a1c"
"""Value of EXAMPLE_API_KEY in the environment of the head node."""
RAY = Path(sys.executable).with_name("ray")


def until(what: Callable[[], Any], why: str) -> Any:
    """The first true value of `what`."""
    deadline = time.monotonic() + DEADLINE_S
    while not (value := what()):
        assert time.monotonic() < deadline, f"never happened: {why}"
        time.sleep(0.1)
    return value


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A head node with a dashboard on loopback; everything of it lies below `root`."""

    root: Path
    address: str
    environment: dict[str, str]
    """Of those who submit: with the token, without what only the node has."""

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    def ray(self, *words: str, code: int = 0, **extra: str) -> str:
        """The output of `ray WORDS`."""
        done = subprocess.run(
            [str(RAY), *words],
            cwd=CHECKOUT,
            env=self.environment | {"RAY_ADDRESS": self.address} | extra,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
        assert done.returncode == code, done.stdout[-3000:]
        return done.stdout

    def submit(self, job: str, *command: str, runtime_env: dict[str, Any] | None = None) -> None:
        options = ["--runtime-env-json", json.dumps(runtime_env)] if runtime_env else []
        self.ray(
            "job", "submit", "--no-wait", "--submission-id", job, "--working-dir", ".", *options, "--", "python", "-m",
            "vibeserve", *command,
        )  # fmt: skip

    def details(self, job: str) -> dict[str, Any]:
        """What the cluster tells of a job to whoever has the token."""
        return dict(json.loads(self._read(f"/api/jobs/{job}")))

    def everything_told(self) -> str:
        """Of all jobs."""
        return self._read("/api/jobs/")

    def logs(self, job: str) -> str:
        return str(json.loads(self._read(f"/api/jobs/{job}/logs"))["logs"])

    def ended(self, job: str) -> dict[str, Any]:
        """The job's details once it is over."""

        def over() -> dict[str, Any] | None:
            details = self.details(job)
            return details if details["status"] in ("SUCCEEDED", "FAILED", "STOPPED") else None

        return dict(until(over, f"the end of job {job}"))

    def _read(self, path: str) -> str:
        token = Path(self.environment["RAY_AUTH_TOKEN_PATH"]).read_text()
        request = urllib.request.Request(self.address + path, headers={"Authorization": f"Bearer {token}"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return str(answer.read().decode())

    @property
    def packages(self) -> list[Path]:
        """What came with the jobs, unpacked."""
        folder = self.root / "ray" / "session_latest" / "runtime_resources" / "working_dir_files"
        return [path for path in folder.iterdir() if path.is_dir()]

    def of_jobs(self) -> list[str]:
        """Command lines of processes that a job's evaluations have started."""
        found = []
        for process in psutil.process_iter(["cmdline"]):
            line = " ".join(process.info["cmdline"] or [])
            if "_ray_pkg_" in line and str(self.root) in line:
                found.append(line)
        return found


@contextmanager
def head_node() -> Iterator[Head]:
    """A head node with two CPUs that asks for its token; it ends with the block, and so does every process of it."""
    root = Path(tempfile.mkdtemp(prefix="vs-job-", dir="/tmp"))  # short: Ray makes sockets below it
    (root / "token").write_text(secrets.token_hex(32))
    (root / "token").chmod(0o600)
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "VIBESERVE_", "PYTHON", "COV_"))}
    environment = inherited | {
        "PATH": f"{RAY.parent}:{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(root / "token"),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        "XDG_CACHE_HOME": str(root / "cache"),
    }
    of_the_node = {
        "EXAMPLE_API_KEY": NODE_KEY,
        "RAY_JOB_STOP_WAIT_TIME_S": "600",
        "VIBESERVE_RUNS_DIR": str(root / "runs"),
    }
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    with (root / "head.log").open("w") as log:
        process = subprocess.Popen(
            [
                str(RAY), "start", "--head", "--block", f"--temp-dir={root / 'ray'}", "--num-cpus=2", "--port=0",
                "--dashboard-host=127.0.0.1", f"--dashboard-port={port}", "--object-store-memory=100000000",
                f"--dashboard-agent-listen-port={free_port()}", f"--ray-client-server-port={free_port()}",
                "--min-worker-port=0", "--max-worker-port=0",
            ],
            cwd=root, env=environment | of_the_node, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        until(lambda: process.poll() is not None or _answers(address), "a head node that answers")
        assert process.poll() is None, (root / "head.log").read_text()
        yield Head(root=root, address=address, environment=environment)
    finally:
        _end(process)
        shutil.rmtree(root, ignore_errors=True)


def _answers(address: str) -> bool:
    try:
        urllib.request.urlopen(f"{address}/api/version", timeout=5).close()
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code == 401  # it listens, and asks for the token
    except OSError:
        return False
    return True


def _end(process: subprocess.Popen[bytes]) -> None:
    """`ray start --block` ends its processes when it is told to; what is left of them is killed, by id."""
    family = []
    with suppress(psutil.NoSuchProcess):
        family = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    process.wait(60)
    _, left = psutil.wait_procs(family, timeout=30)
    for member in left:
        with suppress(psutil.NoSuchProcess):
            member.kill()
    psutil.wait_procs(left, timeout=30)
