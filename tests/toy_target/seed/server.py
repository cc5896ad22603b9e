"""The server: HTTP/1.1 and server-sent events on asyncio, nothing else."""

import argparse
import asyncio
import itertools
import json
import tomllib
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
        usage = {
            "prompt_tokens": len(prompt),
            "completion_tokens": max_tokens,
            "total_tokens": len(prompt) + max_tokens,
        }
        tokens = self._engine.generate(prompt, max_tokens)
        try:
            if not request.get("stream"):
                ids = [token async for token in tokens]
                await self._json(writer, {**head, "choices": [self._choice(ids, "length")], "usage": usage})
                return
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
            waiting: list[int] = []
            sent = 0
            async for token in tokens:
                waiting.append(token)
                last = sent + len(waiting) == max_tokens
                if len(waiting) >= KNOBS["flush_tokens"]["value"] or last:
                    await self._event(writer, {**head, "choices": [self._choice(waiting, "length" if last else None)]})
                    sent += len(waiting)
                    waiting = []
            if (request.get("stream_options") or {}).get("include_usage"):
                await self._event(writer, {**head, "choices": [], "usage": usage})
            await self._chunk(writer, b"data: [DONE]\n\n")
            writer.write(b"0\r\n\r\n")
        finally:
            await tokens.aclose()

    def _choice(self, ids: list[int], reason: str | None) -> dict[str, Any]:
        return {"index": 0, "text": "".join(map(self._model.text, ids)), "token_ids": ids, "finish_reason": reason}

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
