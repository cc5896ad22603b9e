"""The server: HTTP/1.1 and server-sent events on asyncio, nothing else."""

import argparse
import asyncio
import itertools
import json
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from engine import Engine
from model import Model

KNOBS = tomllib.loads(Path(__file__).with_suffix(".toml").read_text())["knob"]


class Server:
    def __init__(self, engine: Engine, model: Model) -> None:
        self._engine = engine
        self._model = model
        self._numbers = itertools.count()

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                method, path, _ = head.split(b"\r\n")[0].decode().split(" ")
                headers = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
                body = await reader.readexactly(int(headers.get(b"content-length", b"0")))
                await self._answer(writer, method, path, body)
                if headers.get(b"connection") == b"close":
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, writer: asyncio.StreamWriter, method: str, path: str, body: bytes) -> None:
        if (method, path) == ("GET", "/health"):
            await self._json(writer, {"status": "ok"})
        elif (method, path) == ("GET", "/v1/models"):
            await self._json(writer, {"object": "list", "data": [{"id": "toy", "object": "model"}]})
        elif (method, path) == ("POST", "/v1/completions"):
            await self._completion(writer, json.loads(body))
        else:
            await self._json(writer, {"error": {"message": "not found"}}, "404 Not Found")

    async def _completion(self, writer: asyncio.StreamWriter, request: dict[str, Any]) -> None:
        prompt, max_tokens = request["prompt"], request.get("max_tokens", 16)
        head = {"id": f"cmpl-{next(self._numbers)}", "object": "text_completion", "model": "toy"}
        tokens = self._engine.generate(prompt, max_tokens)
        try:
            if not request.get("stream"):
                pieces = [piece async for piece in self._pieces(tokens, request)]
                ids, text = [i for ids, _, _ in pieces for i in ids], "".join(text for _, text, _ in pieces)
                choice = self._choice(ids, text, pieces[-1][2])
                await self._json(writer, {**head, "choices": [choice], "usage": self._usage(prompt, len(ids))})
                return
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
            sent = 0
            async for ids, text, reason in self._pieces(tokens, request):
                await self._event(writer, {**head, "choices": [self._choice(ids, text, reason)]})
                sent += len(ids)
            if (request.get("stream_options") or {}).get("include_usage"):
                await self._event(writer, {**head, "choices": [], "usage": self._usage(prompt, sent)})
            await self._chunk(writer, b"data: [DONE]\n\n")
            writer.write(b"0\r\n\r\n")
        finally:
            await tokens.aclose()

    async def _pieces(
        self, tokens: AsyncIterator[int], request: dict[str, Any]
    ) -> AsyncIterator[tuple[list[int], str, str | None]]:
        """Ids, text and finish reason, chunk by chunk; text that may become a stop string is held back."""
        stop, max_tokens = request.get("stop") or [], request.get("max_tokens", 16)
        stops = [stop] if isinstance(stop, str) else stop
        ids: list[int] = []
        text, sent, written = "", 0, 0
        async for token in tokens:
            ids.append(token)
            text += self._model.text(token)
            found = [at for at in map(text.find, stops) if at >= 0]
            reason = "stop" if found else "length" if len(ids) == max_tokens else None
            if len(ids) - sent >= KNOBS["flush_tokens"]["value"] or reason:
                held = max((n for s in stops for n in range(1, len(s)) if text.endswith(s[:n])), default=0)
                reach = min(found) if found else len(text) if reason else len(text) - held
                yield ids[sent:], text[written:reach], reason
                sent, written = len(ids), reach
            if found:
                return

    def _choice(self, ids: list[int], text: str, reason: str | None) -> dict[str, Any]:
        return {"index": 0, "text": text, "token_ids": ids, "finish_reason": reason}

    def _usage(self, prompt: list[int], count: int) -> dict[str, int]:
        return {"prompt_tokens": len(prompt), "completion_tokens": count, "total_tokens": len(prompt) + count}

    async def _event(self, writer: asyncio.StreamWriter, event: dict[str, Any]) -> None:
        await self._chunk(writer, b"data: " + json.dumps(event).encode() + b"\n\n")

    async def _chunk(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        await writer.drain()

    async def _json(self, writer: asyncio.StreamWriter, value: dict[str, Any], status: str = "200 OK") -> None:
        data = json.dumps(value).encode()
        writer.write(
            f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n".encode()
            + data
        )
        await writer.drain()


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--artifacts", required=True)
    arguments = parser.parse_args()
    model = Model(arguments.artifacts)
    server = Server(Engine(model), model)
    async with await asyncio.start_server(server.connection, arguments.host, arguments.port) as listener:
        await listener.serve_forever()


asyncio.run(main())
