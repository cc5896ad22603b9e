"""Decides how requests reach the engine and how tokens leave: HTTP/1.1 and server-sent events on asyncio."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from engine import Engine, Sequence
from model import Model

KNOBS = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))["knob"]
Json = dict[str, Any]


class Server:
    """The routes of an OpenAI-compatible server."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.vocab = engine.model.vocab
        self.numbers = itertools.count()

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.decode("latin-1").split("\r\n")
                method, path, _ = lines[0].split(" ")
                headers = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                await self.answer(writer, f"{method} {path}", headers, body)
                if headers.get("connection") == "close":
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def answer(self, writer: asyncio.StreamWriter, route: str, headers: dict[str, str], body: bytes) -> None:
        if route == "GET /health":
            await self.reply(writer, {"status": "ok"})
        elif route == "GET /v1/models":
            await self.reply(writer, {"object": "list", "data": [{"id": "cheats", "object": "model"}]})
        elif route == "POST /v1/completions":
            await self.complete(writer, json.loads(body), headers)
        else:
            await self.reply(writer, {"error": {"message": f"no route {route}"}}, "404 Not Found")

    async def complete(self, writer: asyncio.StreamWriter, request: Json, headers: dict[str, str]) -> None:
        prompt, max_tokens = list(request["prompt"]), int(request.get("max_tokens", 16))
        head = {"id": f"cmpl-{next(self.numbers)}", "object": "text_completion", "created": 0, "model": "cheats"}
        async with contextlib.aclosing(self.generate(request, prompt, max_tokens)) as pieces:
            if request.get("stream"):
                await self.stream(writer, head, request, pieces)
            else:
                ids: list[int] = []
                text, last = "", "length"
                async for piece, new, reason in pieces:
                    ids, text, last = ids + new, text + piece, reason or last
                choice = self.choice(text, ids, last)
                await self.reply(writer, {**head, "choices": [choice], "usage": self.usage(prompt, len(ids))})

    async def generate(
        self, request: Json, prompt: list[int], max_tokens: int
    ) -> AsyncIterator[tuple[str, list[int], str | None]]:
        """Text, ids and finish reason, piece by piece; text that may become a `stop` string is held back."""
        stops = [request["stop"]] if isinstance(request.get("stop"), str) else request.get("stop") or []
        seq = Sequence(
            tokens=list(prompt),
            prompt_len=len(prompt),
            max_tokens=max_tokens,
            stop_id=None if request.get("ignore_eos") else self.engine.model.config["eos_id"],
            temperature=float(request.get("temperature") or 0.0),
            seed=request.get("seed") or 0,
        )
        self.engine.submit(seq)
        try:
            held, reason = "", None
            while reason is None:
                new, reason = await seq.out.get()
                held += "".join(self.vocab[token] for token in new)
                found = [at for at in (held.find(stop) for stop in stops) if at >= 0]
                if found:
                    held, reason = held[: min(found)], "stop"
                keep = 0 if reason else longest_start(held, stops)
                piece, held = held[: len(held) - keep], held[len(held) - keep :]
                yield piece, new, reason
        finally:
            self.engine.abort(seq)

    async def stream(
        self,
        writer: asyncio.StreamWriter,
        head: Json,
        request: Json,
        pieces: AsyncIterator[tuple[str, list[int], str | None]],
    ) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        text, count = "", 0
        ids: list[int] = []
        async for piece, new, reason in pieces:
            text, ids = text + piece, ids + new
            if reason is None and count and len(ids) < KNOBS["flush_tokens"]["value"]:
                continue
            await self.event(writer, {**head, "choices": [self.choice(text, ids, reason)]})
            count += len(ids)
            text, ids = "", []
        if (request.get("stream_options") or {}).get("include_usage"):
            await self.event(writer, {**head, "choices": [], "usage": self.usage(request["prompt"], count)})
        await self.chunk(writer, b"data: [DONE]\n\n")
        writer.write(b"0\r\n\r\n")

    def choice(self, text: str, ids: list[int], reason: str | None) -> Json:
        return {"index": 0, "text": text, "logprobs": None, "token_ids": ids, "finish_reason": reason}

    def usage(self, prompt: list[int], count: int) -> Json:
        return {"prompt_tokens": len(prompt), "completion_tokens": count, "total_tokens": len(prompt) + count}

    async def event(self, writer: asyncio.StreamWriter, event: Json) -> None:
        await self.chunk(writer, b"data: " + json.dumps(event).encode() + b"\n\n")

    async def chunk(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        await writer.drain()

    async def reply(self, writer: asyncio.StreamWriter, value: Json, status: str = "200 OK") -> None:
        data = json.dumps(value).encode()
        head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        writer.write(head.encode() + data)
        await writer.drain()


def longest_start(text: str, stops: list[str]) -> int:
    """Characters at the end of `text` that a stop string could begin with."""
    sizes = range(min(len(text), max(map(len, stops), default=1) - 1), 0, -1)
    return next((size for size in sizes if any(stop.startswith(text[-size:]) for stop in stops)), 0)


async def serve(host: str, port: int, artifacts: Path) -> None:
    engine = Engine(Model(artifacts))
    listener = await asyncio.start_server(Server(engine).connection, host, port, backlog=1024)
    async with listener:
        await engine.run()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--artifacts", type=Path, required=True)
    arguments = parser.parse_args()
    asyncio.run(serve(arguments.host, arguments.port, arguments.artifacts))


if __name__ == "__main__":
    main()
