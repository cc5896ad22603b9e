"""A server that speaks the target's protocol and hashes in place of computing; LLAMA_FAULT says what is wrong."""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import random
from pathlib import Path
from typing import Any

from aiohttp import web

Json = dict[str, Any]
FAULT = os.environ.get("LLAMA_FAULT", "")
SLOTS = 16
TOKEN_S = 0.001


class Refused(Exception):
    """The request is malformed."""


class Toy:
    """The token after a sequence is a hash of its last three and its length."""

    def __init__(self, artifacts: Path) -> None:
        self.vocab: list[str] = json.loads((artifacts / "vocab.json").read_text(encoding="utf-8"))
        self.longest = json.loads((artifacts / "config.json").read_text(encoding="utf-8"))["max_model_len"]
        self.words = [token for token, text in enumerate(self.vocab) if len(text) > 1]
        self.ids = {text: token for token, text in enumerate(self.vocab) if text}
        self.running = 0
        self.slots = asyncio.Semaphore(SLOTS)

    def encode(self, text: str) -> list[int]:
        ids, at = [], 0
        while at < len(text):
            sizes = [1] if FAULT == "text_prompt" else range(12, 0, -1)
            size = next((n for n in sizes if text[at : at + n] in self.ids), 1)
            ids.append(self.ids.get(text[at : at + size], len(self.vocab) - 1))
            at += size
        return ids

    def next(self, tokens: list[int], seed: int) -> int:
        key = f"{tokens[-3:]} {len(tokens)} {seed}".encode()
        return self.words[int.from_bytes(hashlib.sha256(key).digest()[:4], "big") % len(self.words)]

    def parse(self, body: Json) -> tuple[list[int], int, int]:
        prompt = body.get("prompt", " ")
        ids = self.encode(prompt) if isinstance(prompt, str) else prompt
        tokens, temperature = body.get("max_tokens", 16), body.get("temperature", 1.0)
        good = ids and all(0 <= i < len(self.vocab) for i in ids) and temperature >= 0 and tokens >= 1
        if FAULT != "bad_requests" and not (good and len(ids) + tokens <= self.longest):
            raise Refused("expected a prompt of known ids, max_tokens that fit, and a temperature of 0 or more")
        seed = body.get("seed", random.getrandbits(31)) if temperature else 0
        return ids, tokens, random.getrandbits(31) if FAULT == "seed" and temperature else seed

    async def tokens(self, ids: list[int], count: int, seed: int) -> Any:
        """One token at a time; clients that leave cancel it."""
        await self.slots.acquire()
        self.running += 1
        try:
            known = list(ids)
            for _ in range(count):
                await asyncio.sleep(TOKEN_S)
                confused = FAULT == "crowd" and self.running > 2
                known.append(self.next(known, seed) if not confused else random.choice(self.words))
                yield known[-1]
        finally:
            self.running -= 1
            if FAULT != "hang_ups" or len(known) == len(ids) + count:
                self.slots.release()

    async def completions(self, request: web.Request) -> web.StreamResponse:
        try:
            body = await request.json()
            ids, count, seed = self.parse(body)
        except (ValueError, Refused) as error:
            return web.json_response({"error": {"message": str(error)}}, status=400)
        usage = {"prompt_tokens": len(ids), "completion_tokens": count, "total_tokens": len(ids) + count}
        if body.get("stream"):
            return await self.stream(request, (ids, count, seed), usage)
        made = [token async for token in self.tokens(ids, count, seed)]
        text, reason = "".join(self.vocab[i] for i in made), "length"
        for stop in body.get("stop", []) if FAULT != "stop" else []:
            if stop in text:
                text, reason = text.partition(stop)[0], "stop"
        choice = {"index": 0, "text": text, "token_ids": made, "prompt_token_ids": ids, "finish_reason": reason}
        return web.json_response({"choices": [choice], "usage": usage})

    async def stream(self, request: web.Request, asked: tuple[list[int], int, int], usage: Json) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        made = self.tokens(*asked)
        try:
            left = asked[1]
            async for token in made:
                left -= 1
                reason = None if left else "length"
                choice = {"index": 0, "text": self.vocab[token], "token_ids": [token], "finish_reason": reason}
                await response.write(f"data: {json.dumps({'choices': [choice]})}\n\n".encode())
            await response.write(f"data: {json.dumps({'choices': [], 'usage': usage})}\n\ndata: [DONE]\n\n".encode())
        except ConnectionResetError:
            return response
        finally:
            await made.aclose()
        return response

    async def chat(self, request: web.Request) -> web.Response:
        if FAULT == "chat":
            raise web.HTTPNotFound
        return web.json_response({"choices": [{"index": 0, "message": {"role": "assistant", "content": " hi"}}]})


async def health(request: web.Request) -> web.Response:
    return web.json_response({})


async def models(request: web.Request) -> web.Response:
    return web.json_response({"data": [] if FAULT == "endpoints" else [{"id": "llama-3.1-8b"}]})


async def make_app(artifacts: Path) -> web.Application:
    toy, app = Toy(artifacts), web.Application(client_max_size=1 << 24)
    app.router.add_get("/health", health)
    app.router.add_get("/v1/models", models)
    app.router.add_post("/v1/completions", toy.completions)
    app.router.add_post("/v1/chat/completions", toy.chat)
    return app


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--artifacts", type=Path, required=True)
    arguments = parser.parse_args()
    web.run_app(
        make_app(arguments.artifacts), host=arguments.host, port=arguments.port, print=None, access_log=None,
        handler_cancellation=True,
    )  # fmt: skip


if __name__ == "__main__":
    main()
