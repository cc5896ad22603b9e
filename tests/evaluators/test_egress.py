"""A command without a network reaches one API through the proxy, and never has the key."""

from __future__ import annotations

import http.client
import json
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from evaluators.bubblewrap import BubblewrapSandbox
from evaluators.egress import Answered, Egress, Upstream, pod_listener, unix_listener
from evaluators.process import Launch
from evaluators.sandbox import clean_environment

KEY = "sk-never-inside"
ASK = """
import http.client, os, pathlib, socket, sys

class ByPath(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(sys.argv[1])

via = ByPath("api") if sys.argv[1].startswith("/") else http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]))
via.request("POST", "/v1/messages", b"hello", {"x-api-key": "placeholder"})
print(via.getresponse().read().decode())
try:
    socket.create_connection(("127.0.0.1", int(sys.argv[2])), timeout=2).close()
    print("LEAK: the API can be reached directly")
except OSError:
    pass
for pid in filter(str.isdigit, os.listdir("/proc")):
    if b"sk-never-inside" in pathlib.Path("/proc", pid, "environ").read_bytes():
        print("LEAK: the key is in an environment")
"""


class Api(BaseHTTPRequestHandler):
    """Answers with what it was asked; `seen` is the requests as they arrived."""

    protocol_version = "HTTP/1.1"
    seen: list[dict[str, Any]]
    streaming: threading.Event

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        self.seen.append({"path": self.path, "headers": dict(self.headers), "body": body})
        if self.path == "/v1/stream":
            return self.stream()
        if self.path == "/v1/away":
            return self.answer(307, b"", {"Location": "http://192.0.2.1/elsewhere"})
        if self.path == "/v1/busy":
            return self.answer(429, b"come back", {"Retry-After": "30"})
        if self.path == "/v1/cut":
            self.send_response(200)
            self.send_header("Content-Length", "10")
            self.end_headers()
            self.wfile.write(b"half")
            self.close_connection = True
            return None
        return self.answer(200, b"answer to " + body.encode(), {"Set-Cookie": "who=us", "Request-Id": "r1"})

    do_GET = do_POST

    def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, text in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(body)

    def stream(self) -> None:
        """The first chunk; the rest only once somebody says that it arrived."""
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"5\r\nfirst\r\n")
        assert self.streaming.wait(20.0)
        self.wfile.write(b"4\r\nlast\r\n0\r\n\r\n")

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> type[Api]:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return type("FreshApi", (Api,), {"seen": [], "streaming": threading.Event()})


@pytest.fixture
def port(api: type[Api]) -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), api) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.fixture
def egress(port: int, tmp_path: Path) -> Iterator[Egress]:
    upstream = Upstream(url=f"http://127.0.0.1:{port}", headers={"x-api-key": KEY}, paths=("/v1/",))
    with Egress(upstream, unix_listener(tmp_path)) as egress:
        yield egress


class ByPath(http.client.HTTPConnection):
    """HTTP to a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("api", timeout=20.0)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


def ask(
    folder: Path, path: str, method: str = "POST", headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], str]:
    with closing(ByPath(folder / "egress.sock")) as connection:
        connection.request(method, path, b"hello", headers or {})
        with connection.getresponse() as answer:
            return answer.status, dict(answer.headers), answer.read().decode()


def test_the_key_is_added_and_what_the_command_claims_to_be_is_dropped(
    egress: Egress, api: type[Api], tmp_path: Path
) -> None:
    headers = {"Authorization": "Bearer mine", "X-Api-Key": "mine", "Cookie": "a=b", "Beta": "tools"}
    status, answered, text = ask(tmp_path, "/v1/messages?beta=true", headers=headers)
    assert (status, text) == (200, "answer to hello")
    assert answered["Request-Id"] == "r1" and "Set-Cookie" not in answered
    (seen,) = api.seen
    assert seen["path"] == "/v1/messages?beta=true"
    assert seen["headers"]["x-api-key"] == KEY and seen["headers"]["Beta"] == "tools"
    assert seen["headers"]["Accept-Encoding"] == "identity"
    assert not {"Authorization", "X-Api-Key", "Cookie", "User-Agent"} & set(seen["headers"])
    assert (egress.traffic.requests, egress.traffic.sent_bytes, egress.traffic.received_bytes) == (1, 5, 15)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v2/messages"),
        ("POST", "/v1/../admin"),
        ("POST", "/v1/%2e%2e/admin"),
        ("POST", "/v1/..%2fadmin"),
        ("POST", "http://192.0.2.1/v1/messages"),
        ("PUT", "/v1/messages"),
        ("CONNECT", "192.0.2.1:443"),
    ],
)
def test_nothing_else_can_be_asked_for(egress: Egress, api: type[Api], tmp_path: Path, method: str, path: str) -> None:
    status, _, text = ask(tmp_path, path, method=method)
    assert status == 403 and json.loads(text)["error"]["message"].startswith("expected ")
    assert api.seen == [] and egress.traffic.refused == 1


def test_a_redirect_does_not_take_the_key_elsewhere(egress: Egress, tmp_path: Path) -> None:
    status, answered, _ = ask(tmp_path, "/v1/away")
    assert (status, answered["Location"]) == (307, "http://192.0.2.1/elsewhere")


def test_an_answer_is_streamed(egress: Egress, api: type[Api], tmp_path: Path) -> None:
    connection = ByPath(tmp_path / "egress.sock")
    connection.request("GET", "/v1/stream")
    answer = connection.getresponse()
    assert answer.read(5) == b"first"
    api.streaming.set()
    assert answer.read() == b"last"
    connection.close()


def test_a_dead_api_is_said_to_be_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        upstream = Upstream(url=f"http://127.0.0.1:{taken.getsockname()[1]}", headers={"x-api-key": KEY})
        seen: list[Answered] = []
        with Egress(upstream, unix_listener(tmp_path), seen.append):
            status, _, text = ask(tmp_path, "/v1/messages")
    assert [(one.status, b"did not answer" in one.words) for one in seen] == [(502, True)]
    assert status == 502 and KEY not in text and KEY not in repr(upstream)


def test_whoever_pays_is_told_of_every_answer(api: type[Api], port: int, tmp_path: Path) -> None:
    """What it says is read here, so the API is asked not to compress it, whatever the command would have liked."""
    seen: list[Answered] = []
    upstream = Upstream(url=f"http://127.0.0.1:{port}", headers={"Accept-Encoding": "identity"}, paths=("/v1/",))
    with Egress(upstream, unix_listener(tmp_path), seen.append):
        ask(tmp_path, "/v1/messages?a=b", headers={"accept-encoding": "gzip"})
        ask(tmp_path, "/v1/busy")
        with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
            ask(tmp_path, "/v1/cut")
        ask(tmp_path, "/v2/refused-here")
    assert [(one.method, one.path, one.status, one.words, one.whole) for one in seen] == [
        ("POST", "/v1/messages?a=b", 200, b"", True),
        ("POST", "/v1/busy", 429, b"come back", True),
        ("POST", "/v1/cut", 200, b"", False),
    ]
    assert seen[1].headers["retry-after"] == "30"
    assert api.seen[0]["headers"]["Accept-Encoding"] == "identity" and "accept-encoding" not in api.seen[0]["headers"]


@pytest.mark.tier("A")
@pytest.mark.parametrize("by", ["path", "port"])
def test_a_confined_command_gets_its_answer_and_nothing_more(
    api: type[Api], port: int, tmp_path: Path, by: str
) -> None:
    sandbox = BubblewrapSandbox()
    (tmp_path / "workspace").mkdir()
    (tmp_path / "door").mkdir()
    upstream = Upstream(url=f"http://127.0.0.1:{port}", headers={"x-api-key": KEY}, paths=("/v1/",))
    with ExitStack() as stack:
        pod = stack.enter_context(sandbox.pod())
        assert pod is not None
        listener = unix_listener(tmp_path / "door") if by == "path" else pod_listener(pod)
        name = listener.getsockname() if by == "path" else str(listener.getsockname()[1])
        stack.enter_context(Egress(upstream, listener))
        launch = Launch(
            command=(sys.executable, "-I", "-c", ASK, name, str(port)),
            workspace=tmp_path / "workspace",
            env=clean_environment(tmp_path / "home"),
            log=tmp_path / "log",
            readable=(tmp_path / "door",) if by == "path" else (),
            pod=pod.holder_pid if by == "port" else None,
        )
        with sandbox.launch(launch) as process:
            assert process.wait(20.0) == 0, process.log_tail()
    assert (tmp_path / "log").read_text() == "answer to hello\n"
    assert [seen["headers"]["x-api-key"] for seen in api.seen] == [KEY]
