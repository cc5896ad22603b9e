"""Decides how requests reach the engine and when tokens leave: one process speaks HTTP, another owns the GPU.

python server.py --host 127.0.0.1 --port 8000 --artifacts DIR

The processes exchange one message per step and direction, so that neither waits for the other's interpreter. A token
is a few bytes between two strings that are made once per request; it leaves in the turn of the event loop it came in.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import multiprocessing
import signal
from http import HTTPStatus
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from engine import Engine
from model import Model
from protocol import MODEL_NAME, Completion, Json, Replies, RequestError, StopText, parse_request
from sequence import Output, Sequence
from tokenizer import Tokenizer
from weights import read_config

STOP_GRACE_S = 1.0
MAX_HEAD_BYTES = 64 * 1024
MAX_BODY_BYTES = 16 * 2**20
TEXT, IDS = "\0", -1
"""Placeholders that stand in a request's template for text and ids; no request can contain them."""


class Reply:
    """What one request is answered: whole, or event by event."""

    def __init__(self, seq: Sequence, completion: Completion, http: Http, tokenizer: Tokenizer) -> None:
        self.seq, self._completion, self._http, self._tokenizer = seq, completion, http, tokenizer
        self._replies, self._stop = Replies(completion), StopText(completion.stop)
        self._texts, self._ids = list[str](), list[int]()
        if completion.stream:
            http.begin_events([_event(chunk) for chunk in self._replies.opening()])
            template = _event(self._replies.chunk(TEXT, [IDS], None))
            self._before, after = template.split(json.dumps(TEXT))
            self._between, _, self._after = after.partition(f"[{IDS}]")

    def push(self, token: int, reason: str | None) -> bool:
        """One more token; true when the reply is complete."""
        self._ids.append(token)
        text = self._stop.push(self._tokenizer.vocab[token], final=reason is not None)
        reason = "stop" if self._stop.hit else reason
        if not self._completion.stream:
            self._texts.append(text)
            if reason is not None:
                self._http.answer(200, self._replies.whole("".join(self._texts), self._ids, reason))
        elif reason is None:
            ids = f"[{token}]" if self._after else ""
            self._http.event(f"{self._before}{json.dumps(text)}{self._between}{ids}{self._after}")
        else:
            last = [self._replies.chunk(text, [token], reason), *self._replies.closing(len(self._ids))]
            self._http.end_events("".join(map(_event, last)) + "data: [DONE]\n\n")
        return reason is not None


def _event(chunk: Json) -> str:
    return f"data: {json.dumps(chunk, separators=(',', ':'))}\n\n"


class Http(asyncio.Protocol):
    """One connection: HTTP/1.1, one request after another, kept open."""

    def __init__(self, server: Server) -> None:
        self._server, self._buffer, self._busy, self._last = server, bytearray(), False, False
        self._transport: asyncio.Transport | None = None
        self.reply: Reply | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self.reply is not None:
            self._server.abandon(self.reply)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._next()

    def _next(self) -> None:
        """Take the next request out of the buffer, if the last one is answered and it is there in full."""
        end = self._buffer.find(b"\r\n\r\n")
        if self._busy or self._transport is None or (end < 0 and len(self._buffer) < MAX_HEAD_BYTES):
            return
        lines = self._buffer[: max(end, 0)].decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        length, words = headers.get("content-length", "0"), lines[0].split(" ")
        if len(words) != 3 or not length.isdigit() or int(length) > MAX_BODY_BYTES or "transfer-encoding" in headers:
            self.answer(400, RequestError("expected HTTP/1.1 with a Content-Length of at most 16 MiB").body())
            self._close()
            return
        if len(self._buffer) < end + 4 + int(length):
            if headers.pop("expect", None) == "100-continue" and len(self._buffer) == end + 4:
                self._write(b"HTTP/1.1 100 Continue\r\n\r\n")
            return
        body = bytes(self._buffer[end + 4 : end + 4 + int(length)])
        del self._buffer[: end + 4 + int(length)]
        self._busy, self._last = True, headers.get("connection", "").lower() == "close"
        self._server.handle(self, words[0], words[1].partition("?")[0], body)

    def answer(self, status: int, content: Json) -> None:
        """The whole answer to the request."""
        body = json.dumps(content, separators=(",", ":")).encode()
        head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: application/json\r\n"
        self._write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        self._done()

    def begin_events(self, events: list[str]) -> None:
        head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
        self._write(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        for event in events:
            self.event(event)

    def event(self, event: str) -> None:
        data = event.encode()
        self._write(b"%x\r\n%b\r\n" % (len(data), data))

    def end_events(self, events: str) -> None:
        data = events.encode()
        self._write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data))
        self._done()

    def _done(self) -> None:
        self.reply, self._busy = None, False
        if self._last:
            self._close()
        asyncio.get_running_loop().call_soon(self._next)

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def _close(self) -> None:
        if self._transport is not None:
            self._transport.close()


class Server:
    """Component `server`, interface 2: the process that speaks HTTP."""

    def __init__(self, artifacts: Path, engine: Connection) -> None:
        self._config = read_config(artifacts)
        self._tokenizer = Tokenizer.load(artifacts, self._config.vocab_size - 1)
        self._engine, self._replies, self._count = engine, dict[int, Reply](), 0
        self._ended, self.healthy = asyncio.Event(), True

    async def serve(self, host: str, port: int) -> bool:
        """Serve until SIGTERM or SIGINT; False when the engine ended by itself."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._ended.set)
        loop.add_reader(self._engine.fileno(), self._receive)
        listener = await loop.create_server(lambda: Http(self), host, port, backlog=1024)
        gc.freeze()
        await self._ended.wait()
        listener.close()
        return self.healthy

    def handle(self, http: Http, method: str, path: str, body: bytes) -> None:
        """Answer one request, now or as tokens come."""
        chat = path == "/v1/chat/completions"
        if method == "GET" and path == "/health":
            http.answer(200, {"status": "ok"})
        elif method == "GET" and path == "/v1/models":
            card = {"id": MODEL_NAME, "object": "model", "created": 0, "owned_by": "vibeserve"}
            http.answer(200, {"object": "list", "data": [card | {"max_model_len": self._config.max_len}]})
        elif method == "POST" and (chat or path == "/v1/completions"):
            try:
                completion = parse_request(body.decode(errors="replace"), chat, self._tokenizer, self._config)
            except RequestError as error:
                http.answer(error.status, error.body())
                return
            self._submit(http, completion)
        else:
            error = RequestError(f"{method} {path} is not served", status=404)
            http.answer(404, error.body())

    def _submit(self, http: Http, completion: Completion) -> None:
        self._count += 1
        prompt = completion.prompt_ids
        seq = Sequence(
            id=self._count,
            tokens=prompt,
            prompt_len=len(prompt),
            max_new_tokens=completion.max_tokens,
            sampling=completion.sampling,
        )
        http.reply = self._replies[seq.id] = Reply(seq, completion, http, self._tokenizer)
        self._tell(seq)

    def abandon(self, reply: Reply) -> None:
        """Its client has left."""
        if self._replies.pop(reply.seq.id, None) is not None:
            self._tell(reply.seq.id)

    def _tell(self, message: Sequence | int) -> None:
        """A request, or the number of one to abort; the end of an engine that is gone is `_receive`'s business."""
        with contextlib.suppress(OSError):
            self._engine.send(message)

    def _receive(self) -> None:
        """One step's tokens, or the engine's end."""
        try:
            step: list[tuple[int, list[int], str | None]] = self._engine.recv()
        except (EOFError, ConnectionResetError):
            self.healthy = False
            self._ended.set()
            return
        for number, tokens, reason in step:
            reply = self._replies.get(number)
            if reply is None:
                continue
            for token in tokens[:-1]:
                reply.push(token, None)
            if reply.push(tokens[-1], reason):
                del self._replies[number]
                if reason is None:
                    # Ended by a stop string, of which the engine knows nothing.
                    self._tell(number)


def own_gpu(artifacts: Path, http: Connection) -> None:
    """The process that owns the GPU: runs the engine until the other process is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    running: dict[int, Sequence] = {}

    def on_step(outputs: list[Output]) -> None:
        for output in outputs:
            if output.finish_reason is not None:
                running.pop(output.seq.id, None)
        http.send([(output.seq.id, output.token_ids, output.finish_reason) for output in outputs])

    engine = Engine(
        Model(artifacts, torch.device("cuda:0" if torch.cuda.is_available() else "cpu")), on_step, http.close
    )
    engine.start()
    http.send([])
    while True:
        try:
            message: Sequence | int = http.recv()
        except (EOFError, OSError):
            break
        if isinstance(message, Sequence):
            running[message.id] = message
            engine.submit(message)
        elif (seq := running.pop(message, None)) is not None:
            engine.abort(seq)
    engine.stop(STOP_GRACE_S)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--artifacts", type=Path, required=True, help="folder that reference/build.py wrote")
    arguments = parser.parse_args()
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=own_gpu, args=(arguments.artifacts, theirs), daemon=True
    )
    process.start()
    theirs.close()
    # The first message says that the engine is ready; requests are served from then on.
    healthy = _ready(ours) and asyncio.run(_serve(arguments, ours))
    process.terminate()
    process.join(STOP_GRACE_S)
    raise SystemExit(0 if healthy else 1)


def _ready(engine: Connection) -> bool:
    try:
        engine.recv()
    except EOFError:
        return False
    return True


async def _serve(arguments: argparse.Namespace, engine: Connection) -> bool:
    return await Server(arguments.artifacts, engine).serve(arguments.host, arguments.port)


if __name__ == "__main__":
    main()
