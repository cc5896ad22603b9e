"""A completions server that does nothing but write prepared chunks at known times: what is left is the client's.

python fast_server.py PACE_MS [BASE_MS PER_TOKEN_MS]     prints its port. The first token comes BASE_MS + PER_TOKEN_MS
per prompt token after the request, every further one PACE_MS later (0: as fast as it can)
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import dataclass

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def framed(event: object) -> bytes:
    """One event as one chunk of the body."""
    data = b"data: " + (event if isinstance(event, bytes) else json.dumps(event).encode()) + b"\n\n"
    return b"%x\r\n%s\r\n" % (len(data), data)


def token(number: int, reason: str | None) -> bytes:
    """A chunk as vLLM sends it."""
    choice = {"index": 0, "text": " tok", "logprobs": None, "finish_reason": reason, "token_ids": [number]}
    head = {"id": "cmpl-0123456789abcdef", "object": "text_completion", "created": 1, "model": "fast"}
    return framed(head | {"choices": [choice]})


TOKENS = [token(number, None) for number in range(4096)]
LAST = token(7, "length")


@dataclass(frozen=True, slots=True)
class Times:
    """When tokens come, in seconds."""

    pace_s: float
    base_s: float = 0.0
    per_token_s: float = 0.0


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, times: Times) -> None:
    """Answer the requests of one connection."""
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            if not head.startswith(b"POST"):
                writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
                continue
            size = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
            body = json.loads(await reader.readexactly(size))
            await answer(writer, body, times)
    except (asyncio.IncompleteReadError, ConnectionError):
        return
    finally:
        writer.close()


async def answer(writer: asyncio.StreamWriter, body: dict, times: Times) -> None:
    """Stream `max_tokens` chunks on an absolute schedule."""
    asked, loop = body["max_tokens"], asyncio.get_running_loop()
    first_s = loop.time() + times.base_s + times.per_token_s * len(body["prompt"])
    writer.write(HEAD)
    for number in range(asked):
        if times.pace_s or (number == 0 and times.base_s):
            await asyncio.sleep(first_s + number * times.pace_s - loop.time())
        writer.write(TOKENS[number % 4096] if number + 1 < asked else LAST)
        await writer.drain()
    usage = {"prompt_tokens": len(body["prompt"]), "completion_tokens": asked}
    writer.write(framed({"choices": [], "usage": usage}) + framed(b"[DONE]") + b"0\r\n\r\n")
    await writer.drain()


async def main() -> None:
    """Serve until the input ends."""
    times = Times(*(float(text) / 1e3 for text in sys.argv[1:]))
    server = await asyncio.start_server(lambda r, w: serve(r, w, times), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    server.close()
    os._exit(0)  # streams that the client has left need no farewell


if __name__ == "__main__":
    asyncio.run(main())
