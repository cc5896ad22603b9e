"""A completions server that does nothing but write prepared chunks at a fixed pace: what is left is the client's cost.

python fast_server.py PACE_MS      prints its port; every stream gets one token per PACE_MS (0: as fast as it can)
"""

from __future__ import annotations

import asyncio
import json
import os
import sys

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


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pace_s: float) -> None:
    """Answer the requests of one connection."""
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            size = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
            body = json.loads(await reader.readexactly(size))
            await answer(writer, body, pace_s)
    except (asyncio.IncompleteReadError, ConnectionError):
        return
    finally:
        writer.close()


async def answer(writer: asyncio.StreamWriter, body: dict, pace_s: float) -> None:
    """Stream `max_tokens` chunks on an absolute pace."""
    asked, loop = body["max_tokens"], asyncio.get_running_loop()
    writer.write(HEAD)
    begun_s = loop.time()
    for number in range(asked):
        if pace_s:
            await asyncio.sleep(begun_s + number * pace_s - loop.time())
        writer.write(TOKENS[number % 4096] if number + 1 < asked else LAST)
        await writer.drain()
    usage = {"prompt_tokens": len(body["prompt"]), "completion_tokens": asked}
    writer.write(framed({"choices": [], "usage": usage}) + framed(b"[DONE]") + b"0\r\n\r\n")
    await writer.drain()


async def main() -> None:
    """Serve until the input ends."""
    pace_s = float(sys.argv[1]) / 1e3
    server = await asyncio.start_server(lambda r, w: serve(r, w, pace_s), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    server.close()
    os._exit(0)  # streams that the client has left need no farewell


if __name__ == "__main__":
    asyncio.run(main())
