"""Decides how requests reach the engine and when tokens leave: aiohttp, OpenAI routes, server-sent events.

python server.py --host 127.0.0.1 --port 8000 --artifacts DIR
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import signal
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import torch
from aiohttp import web
from engine import Engine
from knobs import read_knobs
from model import Model
from protocol import MODEL_NAME, Completion, Json, Replies, RequestError, StopText, parse_request
from sequence import Output, Sequence
from tokenizer import Tokenizer

STOP_GRACE_S = 0.3


class Server:
    """Component `server`, interface 2."""

    def __init__(self, artifacts: Path) -> None:
        knobs = read_knobs(__file__)
        self._flush_tokens: int = knobs["flush_tokens"]
        model = Model(artifacts, torch.device("cuda:0" if torch.cuda.is_available() else "cpu"))
        self._config = model.config
        self._tokenizer = Tokenizer.load(artifacts, model.config.vocab_size - 1)
        self._engine = Engine(model, self._on_step, self._on_exit)
        self._queues: dict[int, asyncio.Queue[Output]] = {}
        self._ids = itertools.count()
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/health", self._health)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/completions", self._completions)
        app.router.add_post("/v1/chat/completions", self._completions)
        return app

    async def serve(self, host: str, port: int) -> bool:
        """Serve until SIGTERM or SIGINT; False when the engine ended by itself."""
        # Handlers of clients that have gone are cancelled, which aborts their sequences.
        runner = web.AppRunner(self.app(), handler_cancellation=True, access_log=None, shutdown_timeout=STOP_GRACE_S)
        await runner.setup()
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._ended.set)
        self._engine.start()
        await web.TCPSite(runner, host, port, backlog=1024).start()
        await self._ended.wait()
        healthy = self._engine.is_alive()
        self._engine.stop(STOP_GRACE_S)
        await runner.cleanup()
        return healthy

    def _on_step(self, outputs: list[Output]) -> None:
        # Engine thread: one wake-up of the event loop per step, however many sequences it served.
        if outputs:
            self._loop.call_soon_threadsafe(self._deliver, outputs)

    def _on_exit(self) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)

    def _deliver(self, outputs: list[Output]) -> None:
        for output in outputs:
            queue = self._queues.get(output.seq.id)
            if queue is not None:
                queue.put_nowait(output)

    async def _health(self, request: web.Request) -> web.Response:
        alive = self._engine.is_alive()
        return web.json_response({"status": "ok" if alive else "engine ended"}, status=200 if alive else 503)

    async def _models(self, request: web.Request) -> web.Response:
        card = {"id": MODEL_NAME, "object": "model", "created": 0, "owned_by": "vibeserve"}
        return web.json_response({"object": "list", "data": [card | {"max_model_len": self._config.max_len}]})

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        try:
            text = (await request.read()).decode(errors="replace")
            chat = request.path == "/v1/chat/completions"
            completion = parse_request(text, chat, self._tokenizer, self._config)
        except RequestError as error:
            return web.json_response(error.body(), status=error.status)
        if completion.stream:
            return await self._stream(request, completion)
        text, last = "", "length"
        ids: list[int] = []
        async with aclosing(self._generate(completion)) as pieces:
            async for piece, new, reason in pieces:
                text, ids, last = text + piece, ids + new, reason or last
        return web.json_response(Replies(completion).whole(text, ids, last))

    async def _stream(self, request: web.Request, completion: Completion) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
        try:
            await response.prepare(request)
            await self._send(response, completion)
        except ConnectionResetError:
            # The client has left: `_generate` has aborted the sequence, and nobody is there to be told.
            pass
        return response

    async def _send(self, response: web.StreamResponse, completion: Completion) -> None:
        replies, num_generated, first = Replies(completion), 0, True
        async with aclosing(self._generate(completion)) as pieces:
            async for piece, new, reason in pieces:
                num_generated += len(new)
                chunks = replies.opening() if first else []
                first = False
                await response.write(_events([*chunks, replies.chunk(piece, new, reason)]))
        await response.write(_events(replies.closing(num_generated)) + b"data: [DONE]\n\n")
        await response.write_eof()

    async def _generate(self, completion: Completion) -> AsyncGenerator[tuple[str, list[int], str | None], None]:
        """Text, token ids and finish reason, piece by piece: the flush policy.

        The first and the last token leave at once, others when `flush_tokens` of them are there.
        """
        seq = Sequence(
            id=next(self._ids),
            tokens=list(completion.prompt_ids),
            prompt_len=len(completion.prompt_ids),
            max_new_tokens=completion.max_tokens,
            sampling=completion.sampling,
        )
        queue: asyncio.Queue[Output] = asyncio.Queue()
        self._queues[seq.id] = queue
        stop_text, reason, first = StopText(completion.stop), None, True
        ids: list[int] = []
        self._engine.submit(seq)
        try:
            while reason is None:
                output = await queue.get()
                ids.extend(output.token_ids)
                reason = output.finish_reason
                if reason is None and not first and len(ids) < self._flush_tokens:
                    continue
                text = stop_text.push(self._tokenizer.decode(ids), final=reason is not None)
                reason = "stop" if stop_text.hit else reason
                yield text, ids, reason
                ids, first = [], False
        finally:
            del self._queues[seq.id]
            self._engine.abort(seq)


def _events(chunks: list[Json]) -> bytes:
    return "".join(f"data: {json.dumps(chunk, separators=(',', ':'))}\n\n" for chunk in chunks).encode()


async def run(arguments: argparse.Namespace) -> bool:
    return await Server(arguments.artifacts).serve(arguments.host, arguments.port)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--artifacts", type=Path, required=True, help="folder that reference/build.py wrote")
    raise SystemExit(0 if asyncio.run(run(parser.parse_args())) else 1)


if __name__ == "__main__":
    main()
