"""Decides whether a server is correct enough to be measured: protocol basics, then tokens under concurrent load.

    python checker.py --url http://127.0.0.1:8000 [--output-json FILE]        exit code 0 = pass

The tokens that matter are judged against the reference by `reference/score.py` on the benchmark's own responses. This
checker needs no weights: it compares the server with itself. Greedy output must be the same alone and in a crowd, whole
and streamed, in one piece and continued from its own prefix; a difference is a fault of batching, caching or streaming.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp

Json = dict[str, Any]
TARGET = Path(__file__).resolve().parents[1]
REQUEST_TIMEOUT_S = 15.0
CROWD = 6
"""Concurrent requests."""
PROMPT_TOKENS, OUTPUT_TOKENS = 12, 6


class CheckFailed(Exception):
    """The server broke a rule; the message says which and how."""


class Client:
    """The few calls that the checks make."""

    def __init__(self, session: aiohttp.ClientSession, url: str, vocab: list[str]) -> None:
        self._session, self._url, self.vocab = session, url.rstrip("/"), vocab

    async def get(self, path: str) -> tuple[int, Json]:
        async with self._session.get(self._url + path) as response:
            return response.status, await response.json(content_type=None)

    async def post(self, path: str, body: Json | bytes) -> tuple[int, Json]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with self._session.post(
            self._url + path, data=data, headers={"Content-Type": "application/json"}
        ) as response:
            return response.status, await response.json(content_type=None)

    async def complete(self, prompt: list[int], tokens: int) -> list[int]:
        """Greedy output ids of a whole reply."""
        status, reply = await self.post("/v1/completions", greedy(prompt, tokens))
        expect(status == 200, f"a plain completion gave status {status}: {reply}")
        choice, usage = reply["choices"][0], reply["usage"]
        return self._checked(choice["token_ids"], choice["text"], usage, (prompt, tokens))

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
        return self._checked(ids, text, usage, (prompt, tokens))

    def _checked(self, ids: list[int], text: str, usage: Json, asked: tuple[list[int], int]) -> list[int]:
        prompt, tokens = asked
        expect(len(ids) == tokens, f"asked for {tokens} tokens with ignore_eos, got {len(ids)}")
        expect(all(0 <= i < len(self.vocab) for i in ids), f"token ids outside the vocabulary: {ids}")
        expect(text == "".join(self.vocab[i] for i in ids), f"the text {text!r} is not the decoding of {ids}")
        counts = (usage.get("prompt_tokens"), usage.get("completion_tokens"))
        expect(counts == (len(prompt), tokens), f"usage must count {(len(prompt), tokens)}, got {counts}")
        return ids


def expect(condition: bool, message: str) -> None:
    if not condition:
        raise CheckFailed(message)


def greedy(prompt: list[int], tokens: int) -> Json:
    return {
        "model": "tiny-llama",
        "prompt": prompt,
        "max_tokens": tokens,
        "temperature": 0,
        "ignore_eos": True,
        "return_token_ids": True,
    }


def draw_prompt(rng: random.Random, client: Client, tokens: int) -> list[int]:
    return [rng.randrange(99, len(client.vocab)) for _ in range(tokens)]


async def check_endpoints(client: Client, rng: random.Random) -> None:
    """/health and /v1/models answer."""
    status, _ = await client.get("/health")
    expect(status == 200, f"/health must give 200, got {status}")
    status, models = await client.get("/v1/models")
    expect(status == 200 and bool(models.get("data")), f"/v1/models must list a model, got {status}: {models}")


async def check_bad_requests(client: Client, rng: random.Random) -> None:
    """Malformed requests get 400 with an OpenAI error body."""
    bad: list[Json | bytes] = [
        b"{not json",
        greedy([], 1),
        greedy([10**9], 1),
        greedy([100], 1) | {"temperature": -1},
        greedy([100], 1) | {"max_tokens": 0},
    ]
    for body in bad:
        status, reply = await client.post("/v1/completions", body)
        shape = isinstance(reply.get("error"), dict) and isinstance(reply["error"].get("message"), str)
        expect(status == 400 and shape, f"{body!r} must give 400 with an error body, got {status}: {reply}")


async def check_chat(client: Client, rng: random.Random) -> None:
    """A chat completion answers."""
    body = {
        "model": "tiny-llama",
        "messages": [{"role": "user", "content": "hello"}],
        "max_tokens": 2,
        "temperature": 0,
    }
    status, reply = await client.post("/v1/chat/completions", body)
    expect(status == 200, f"a chat completion gave status {status}: {reply}")
    expect(isinstance(reply["choices"][0]["message"]["content"], str), f"a chat reply must have text: {reply}")


async def check_stop(client: Client, rng: random.Random) -> None:
    """A stop string ends the text before it."""
    prompt = draw_prompt(rng, client, PROMPT_TOKENS)
    ids = await client.complete(prompt, 3)
    body = greedy(prompt, 3) | {"stop": [client.vocab[ids[1]]]}
    _, reply = await client.post("/v1/completions", body)
    choice, stop = reply["choices"][0], client.vocab[ids[1]]
    whole = "".join(client.vocab[i] for i in ids)
    want = whole[: whole.find(stop)]
    got = (choice["text"], choice["finish_reason"])
    expect(got == (want, "stop"), f"stop={stop!r} must give {(want, 'stop')!r}, got {got!r}")


async def check_crowd(client: Client, rng: random.Random) -> None:
    """Greedy tokens are the same in a crowd of mixed lengths and alone, whole and streamed, and when continued."""
    shared = draw_prompt(rng, client, PROMPT_TOKENS)
    lengths = [PROMPT_TOKENS // 2 + i for i in range(CROWD - 2)]
    prompts = [draw_prompt(rng, client, n) for n in lengths] + [
        shared + draw_prompt(rng, client, i + 1) for i in range(2)
    ]
    calls = [client.stream, client.complete]
    crowd = await asyncio.gather(*(calls[i % 2](p, OUTPUT_TOKENS) for i, p in enumerate(prompts)))
    # Continuations: the model's own first half as part of the prompt must give the second half, again all at once.
    half = OUTPUT_TOKENS // 2
    again = await asyncio.gather(
        *(client.complete(p + ids[:half], half) for p, ids in zip(prompts, crowd, strict=True))
    )
    for prompt, ids, rest in zip(prompts, crowd, again, strict=True):
        expect(ids[half:] == rest, f"prompt {prompt}: {ids} under load, but its continuation from {half} is {rest}")
    for prompt, ids in [(prompts[0], crowd[0]), (prompts[-1], crowd[-1])]:
        alone = await client.complete(prompt, OUTPUT_TOKENS)
        expect(ids == alone, f"prompt {prompt}: {ids} under load, but {alone} alone")


CHECKS: tuple[Callable[[Client, random.Random], Awaitable[None]], ...] = (
    check_endpoints,
    check_bad_requests,
    check_chat,
    check_stop,
    check_crowd,
)


async def run_checks(url: str, seed: int | None) -> list[Json]:
    """Run every check; a check that breaks on a malformed reply has failed."""
    vocab = json.loads((TARGET / "reference" / "vocab.json").read_text(encoding="utf-8"))
    rng = random.Random(seed)
    results: list[Json] = []
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S)) as session:
        client = Client(session, url, vocab)
        for check in CHECKS:
            start, problem = time.monotonic(), None
            try:
                await check(client, rng)
            except CheckFailed as error:
                problem = str(error)
            except (
                aiohttp.ClientError,
                TimeoutError,
                ValueError,
                KeyError,
                IndexError,
                TypeError,
                AttributeError,
            ) as error:
                problem = f"malformed or missing reply: {type(error).__name__}: {error}"
            name = check.__name__.removeprefix("check_")
            results.append(
                {"check": name, "passed": problem is None, "problem": problem, "s": time.monotonic() - start}
            )
    return results


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True)
    parser.add_argument("--output-json", type=Path)
    parser.add_argument("--seed", type=int, help="draws the prompts; default: fresh ones each time")
    arguments = parser.parse_args()
    results = asyncio.run(run_checks(arguments.url, arguments.seed))
    passed = all(result["passed"] for result in results)
    if arguments.output_json is not None:
        arguments.output_json.write_text(json.dumps({"passed": passed, "checks": results}) + "\n", encoding="utf-8")
    for result in results:
        print(
            f"{'pass' if result['passed'] else 'FAIL'}  {result['check']}"
            + (f": {result['problem']}" if result["problem"] else "")
        )
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
