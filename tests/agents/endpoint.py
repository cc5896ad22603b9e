"""A model's endpoint on loopback that says what a test has written down, byte by byte as the real ones do."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "sk-ant-loopback-0123456789abcdef"
"""What the tests' clients send; it must turn up nowhere else."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One HTTP answer."""

    events: tuple[bytes, ...] = ()
    """Pieces of an event stream, each flushed by itself."""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    """JSON, instead of a stream."""
    cut: bool = False
    """The connection is reset after the last piece."""
    silent: bool = False
    """Nothing comes after the last piece, until the client has gone."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One HTTP request."""

    path: str
    headers: Mapping[str, str]
    """By lower-case name."""
    body: dict[str, Any]


@dataclass
class Endpoint:
    """Answers in order; the last one again and again if `repeat`. A function makes an answer of the request."""

    answers: list[Answer | Callable[[Asked], Answer]]
    repeat: bool = False
    asked: list[Asked] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def next(self, asked: Asked) -> Answer:
        self.asked.append(asked)
        place = len(self.asked) - 1
        if place >= len(self.answers):
            if not self.repeat:
                return Answer(status=400, body={"error": {"type": "test", "message": "asked more often than expected"}})
            place = len(self.answers) - 1
        answer = self.answers[place]
        return answer if isinstance(answer, Answer) else answer(asked)


@contextmanager
def serving(*answers: Answer | Callable[[Asked], Answer], repeat: bool = False) -> Iterator[Endpoint]:
    """An endpoint, while the block lasts."""
    endpoint = Endpoint(list(answers), repeat)
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers["Content-Length"]))
            asked = Asked(
                path=self.path, headers={k.lower(): v for k, v in self.headers.items()}, body=json.loads(data)
            )
            with lock:
                answer = endpoint.next(asked)
            self._send(answer)

        def _send(self, answer: Answer) -> None:
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            if answer.body is not None:
                data = json.dumps(answer.body).encode()
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)
                return
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for piece in answer.events:
                self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
                self.wfile.flush()
            if answer.silent:
                self.connection.recv(1)
            if answer.cut or answer.silent:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            self.wfile.write(b"0\r\n\r\n")

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    endpoint.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield endpoint
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
