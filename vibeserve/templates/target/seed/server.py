"""The first server: naive and correct, in one file, with nothing but the standard library."""

import argparse
import json
import threading
import time
import tomllib
import zlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

KNOBS = {
    name: knob["value"] for name, knob in tomllib.loads(Path(__file__).with_suffix(".toml").read_text())["knob"].items()
}
STEP_S = 0.001
ONE_AT_A_TIME = threading.Lock()


def generate(prompt: list[int], count: int) -> Iterator[int]:
    """One token after the other; the sleep stands for the work of a model."""
    tokens = list(prompt)
    with ONE_AT_A_TIME:
        for _ in range(count):
            time.sleep(STEP_S)
            tokens.append(10 + zlib.crc32(f"{len(tokens)}/{tokens[-4:]}".encode()) % 990)
            yield tokens[-1]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        known = {"/health": {"status": "ok"}, "/v1/models": {"object": "list", "data": [{"id": "my-model"}]}}
        self._json(known.get(self.path, {"error": {"message": "not found"}}), 200 if self.path in known else 404)

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/v1/completions":
            return self._json({"error": {"message": "not found"}}, 404)
        prompt, count = request["prompt"], request.get("max_tokens", 16)
        usage = {"prompt_tokens": len(prompt), "completion_tokens": count, "total_tokens": len(prompt) + count}
        if not request.get("stream"):
            return self._json({"choices": [choice(list(generate(prompt, count)), "length")], "usage": usage})
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        waiting: list[int] = []
        for number, token in enumerate(generate(prompt, count), start=1):
            waiting.append(token)
            if len(waiting) >= KNOBS["flush_tokens"] or number == count:
                self._event({"choices": [choice(waiting, "length" if number == count else None)]})
                waiting = []
        if (request.get("stream_options") or {}).get("include_usage"):
            self._event({"choices": [], "usage": usage})
        self._chunk(b"data: [DONE]\n\n")
        self._chunk(b"")

    def _event(self, event: dict[str, Any]) -> None:
        self._chunk(
            b"data: " + json.dumps({"object": "text_completion", "model": "my-model", **event}).encode() + b"\n\n"
        )

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def _json(self, value: dict[str, Any], status: int = 200) -> None:
        data = json.dumps({"object": "text_completion", "model": "my-model", **value}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


def choice(ids: list[int], reason: str | None) -> dict[str, Any]:
    """One choice; this model's vocabulary has no strings, so the text lists the ids."""
    return {"index": 0, "text": "".join(f" {token}" for token in ids), "token_ids": ids, "finish_reason": reason}


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # clients that hang up are no error


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args()
    Server((options.host, options.port), Handler).serve_forever()
