"""The servers of the seed and of `gpu-http-process`: the target's checker, connections, and how they end."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from llama import TARGET, run_script, running_server
from trees import FASTEST, make_tree

BODY = json.dumps({"model": "llama-3.1-8b", "prompt": [100, 200, 300], "max_tokens": 4, "temperature": 0}).encode()


@pytest.fixture(scope="module")
def fast_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tree(tmp_path_factory.mktemp("fast") / "tree", *FASTEST)


@pytest.fixture(scope="module")
def fast_url(fast_tree: Path, artifacts: Path) -> Iterator[str]:
    with running_server(fast_tree, artifacts) as url:
        yield url


def check(url: str, artifacts: Path) -> None:
    done = run_script("accuracy_checker/checker.py", "--url", url, "--artifacts", artifacts)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_seed_passes_the_checker(artifacts: Path) -> None:
    with running_server(TARGET / "seed", artifacts) as url:
        check(url, artifacts)


def test_two_processes_pass_the_checker(fast_url: str, artifacts: Path) -> None:
    check(fast_url, artifacts)


def test_requests_follow_each_other_on_one_connection(fast_url: str) -> None:
    address = urlsplit(fast_url)
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=20)
    texts = []
    for body in (BODY, b"{", BODY):
        connection.request("POST", "/v1/completions", body)
        response = connection.getresponse()
        texts.append((response.status, json.load(response)))
    connection.close()
    assert [status for status, _ in texts] == [200, 400, 200]
    assert texts[0][1]["choices"] == texts[2][1]["choices"]


@pytest.mark.parametrize("size", [1, 7, 40])
def test_a_request_may_come_in_pieces(fast_url: str, size: int) -> None:
    address = urlsplit(fast_url)
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(BODY)}\r\n\r\n"
    message = head.encode() + BODY
    with socket.create_connection((str(address.hostname), int(address.port or 0)), timeout=20) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, len(message), size):
            connection.sendall(message[at : at + size])
        answer = b""
        while data := connection.recv(4096):
            answer += data
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["usage"]["completion_tokens"] == 4


@pytest.mark.parametrize(
    "message",
    [
        b"nonsense\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nContent-Length: many\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET /" + b"x" * 70_000,
    ],
    ids=["no-http", "no-length", "chunked", "endless-head"],
)
def test_what_is_no_request_is_refused_and_hung_up_on(fast_url: str, message: bytes) -> None:
    address = urlsplit(fast_url)
    with socket.create_connection((str(address.hostname), int(address.port or 0)), timeout=20) as connection:
        connection.sendall(message)
        answer = b""
        while data := connection.recv(4096):
            answer += data
    assert answer.startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("end", ["sigterm", "engine"])
def test_the_server_ends_with_its_engine_and_when_told_to(fast_tree: Path, artifacts: Path, end: str) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = [sys.executable, "-B", "server.py", "--port", str(port), "--artifacts", str(artifacts)]
    environment = {"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, cwd=fast_tree, env=environment, stderr=subprocess.PIPE)
    try:
        wait_until_ready(port)
        engine = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        if end == "sigterm":
            process.terminate()
        else:
            os.kill(int(engine[-1]), signal.SIGKILL)
        assert process.wait(timeout=10) == (0 if end == "sigterm" else 1)
        deadline_s = time.monotonic() + 10
        while any(Path(f"/proc/{pid}").exists() for pid in engine):
            assert time.monotonic() < deadline_s, "the engine outlived its server"
            time.sleep(0.02)
    finally:
        process.kill()
        process.communicate()


def wait_until_ready(port: int) -> None:
    deadline_s = time.monotonic() + 60
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                return
        except OSError:
            assert time.monotonic() < deadline_s, "the server did not become ready"
            time.sleep(0.05)
