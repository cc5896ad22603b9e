"""The first server: naive and correct, in one file, with nothing but the standard library."""

import argparse
import json
import threading
import time
import tomllib
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

KNOBS = {
    name: knob["value"] for name, knob in tomllib.loads(Path(__file__).with_suffix(".toml").read_text())["knob"].items()
}
STEP_S = 0.001
ONE_AT_A_TIME = threading.Lock()

try:
    from nvtx import annotate
except ImportError:  # names for profilers; without the package they are not given
    annotate = None


def phase(name: str) -> AbstractContextManager[object]:
    """What a profiler calls this stretch of a thread's work."""
    return nullcontext() if annotate is None else annotate(name)


def generate(prompt: list[int], count: int) -> Iterator[int]:
    """One token after the other; the sleep stands for the work of a model."""
    tokens = list(prompt)
    with phase("schedule"):
        ONE_AT_A_TIME.acquire()
    try:
        for number in range(count):
            with phase("decode" if number else "prefill"):
                time.sleep(STEP_S)
            with phase("sample"):
                tokens.append(10 + zlib.crc32(f"{len(tokens)}/{tokens[-4:]}".encode()) % 990)
            yield tokens[-1]
    finally:
        ONE_AT_A_TIME.release()


def pieces(request: dict[str, Any]) -> Iterator[tuple[list[int], str, str | None]]:
    """Ids, text and finish reason, chunk by chunk; text that may become a stop string is held back."""
    stop, count = request.get("stop") or [], request.get("max_tokens", 16)
    stops = [stop] if isinstance(stop, str) else stop
    ids: list[int] = []
    text, sent, written = "", 0, 0
    for token in generate(request["prompt"], count):
        ids.append(token)
        text += f" {token}"  # this model's vocabulary has no strings, so the text lists the ids
        found = [at for at in map(text.find, stops) if at >= 0]
        reason = "stop" if found else "length" if len(ids) == count else None
        if len(ids) - sent >= KNOBS["flush_tokens"] or reason:
            held = max((n for s in stops for n in range(1, len(s)) if text.endswith(s[:n])), default=0)
            reach = min(found) if found else len(text) if reason else len(text) - held
            yield ids[sent:], text[written:reach], reason
            sent, written = len(ids), reach
        if found:
            return


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        known = {"/health": {"status": "ok"}, "/v1/models": {"object": "list", "data": [{"id": "my-model"}]}}
        self._json(known.get(self.path, {"error": {"message": "not found"}}), 200 if self.path in known else 404)

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/v1/completions":
            return self._json({"error": {"message": "not found"}}, 404)
        prompt = len(request["prompt"])
        if not request.get("stream"):
            parts = list(pieces(request))
            ids, text = [i for ids, _, _ in parts for i in ids], "".join(text for _, text, _ in parts)
            return self._json({"choices": [choice(ids, text, parts[-1][2])], "usage": usage(prompt, len(ids))})
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        sent = 0
        for ids, text, reason in pieces(request):
            self._event({"choices": [choice(ids, text, reason)]})
            sent += len(ids)
        if (request.get("stream_options") or {}).get("include_usage"):
            self._event({"choices": [], "usage": usage(prompt, sent)})
        self._chunk(b"data: [DONE]\n\n")
        self._chunk(b"")

    def _event(self, event: dict[str, Any]) -> None:
        with phase("emit"):
            text = json.dumps({"object": "text_completion", "model": "my-model", **event})
            self._chunk(b"data: " + text.encode() + b"\n\n")

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


def choice(ids: list[int], text: str, reason: str | None) -> dict[str, Any]:
    return {"index": 0, "text": text, "token_ids": ids, "finish_reason": reason}


def usage(prompt: int, completion: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


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
