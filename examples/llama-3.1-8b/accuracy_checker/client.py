"""Decides what the checks ask for and what every answer must be: ids, text, usage and finish reason that agree."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import aiohttp

Json = dict[str, Any]
MODEL = "llama-3.1-8b"


class CheckFailed(Exception):
    """The server broke a rule; the message says which and how."""


class Client:
    """The few calls that the checks make."""

    def __init__(self, session: aiohttp.ClientSession, url: str, artifacts: Path) -> None:
        self._session, self._url = session, url.rstrip("/")
        self.vocab: list[str] = json.loads((artifacts / "vocab.json").read_text(encoding="utf-8"))
        self.config: Json = json.loads((artifacts / "config.json").read_text(encoding="utf-8"))
        self.words = [token for token, text in enumerate(self.vocab) if len(text) > 1]
        self.concatenates = "weights_seed" in self.config
        """Whether the text of tokens is the concatenation of theirs; a real tokenizer's spreads bytes over tokens."""

    async def get(self, path: str) -> tuple[int, Json]:
        async with self._session.get(self._url + path) as response:
            return response.status, await response.json(content_type=None)

    async def post(self, path: str, body: Json | bytes) -> tuple[int, Json]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        async with self._session.post(self._url + path, data=data, headers=headers) as response:
            return response.status, await response.json(content_type=None)

    async def complete(self, prompt: list[int], tokens: int, **options: Any) -> list[int]:
        """Output ids of a whole reply, greedy unless the options say otherwise."""
        status, reply = await self.post("/v1/completions", greedy(prompt, tokens) | options)
        expect(status == 200, f"a plain completion gave status {status}: {reply}")
        choice, usage = reply["choices"][0], reply["usage"]
        return self._checked(choice["token_ids"], choice["text"], usage, (len(prompt), tokens))

    async def stream(self, prompt: list[int], tokens: int) -> list[int]:
        """Greedy output ids of a streamed reply."""
        body = greedy(prompt, tokens) | {"stream": True, "stream_options": {"include_usage": True}}
        ids: list[int] = []
        usage: Json = {}
        text, reason = "", None
        async with self._session.post(self._url + "/v1/completions", json=body) as response:
            kind = response.headers.get("Content-Type", "")
            expect(kind.startswith("text/event-stream"), f"a stream has Content-Type text/event-stream, got {kind!r}")
            lines = [line for line in (await response.text()).split("\n") if line.startswith("data:")]
        expect(bool(lines) and lines[-1][5:].strip() == "[DONE]", "a stream must end with 'data: [DONE]'")
        for event in (json.loads(line[5:]) for line in lines[:-1]):
            usage = event.get("usage") or usage
            for choice in event["choices"]:
                ids, text, reason = ids + choice["token_ids"], text + choice["text"], choice["finish_reason"] or reason
        expect(reason == "length", f"a stream cut by max_tokens has finish_reason 'length', got {reason!r}")
        return self._checked(ids, text, usage, (len(prompt), tokens))

    async def hang_up(self, prompt: list[int], tokens: int) -> None:
        """Ask for a stream, and leave when it begins."""
        body = greedy(prompt, tokens) | {"stream": True}
        async with self._session.post(self._url + "/v1/completions", json=body) as response:
            await response.content.readany()
            response.close()

    def _checked(self, ids: list[int], text: str, usage: Json, asked: tuple[int, int]) -> list[int]:
        expect(len(ids) == asked[1], f"asked for {asked[1]} tokens with ignore_eos, got {len(ids)}")
        expect(all(0 <= i < len(self.vocab) for i in ids), f"token ids outside the vocabulary: {ids}")
        whole = "".join(self.vocab[i] for i in ids)
        expect(not self.concatenates or text == whole, f"the text {text!r} is not the decoding of {ids}: {whole!r}")
        counts = (usage.get("prompt_tokens"), usage.get("completion_tokens"))
        expect(counts == asked, f"usage must count {asked}, got {counts}")
        return ids


def expect(condition: bool, message: str) -> None:
    if not condition:
        raise CheckFailed(message)


def greedy(prompt: list[int] | str, tokens: int) -> Json:
    return {
        "model": MODEL,
        "prompt": prompt,
        "max_tokens": tokens,
        "temperature": 0,
        "ignore_eos": True,
        "return_token_ids": True,
    }
