"""One client process: reads jobs as JSON lines, prepares, waits for the common start, answers with what it saw."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from dataclasses import replace
from typing import Any

from evaluators.load.client import Client
from evaluators.load.generator import Share
from evaluators.load.pool import pin
from evaluators.load.schedule import Prompts
from evaluators.load.wire import endpoint_from_json, job_from_json, share_to_json
from population.errors import ConfigError


def main() -> None:
    """Serve jobs until the input ends. The argument lists the CPUs to stay on, with commas."""
    pin([int(cpu) for cpu in sys.argv[1].split(",") if cpu] if len(sys.argv) > 1 else [])
    asyncio.run(_serve())


async def _serve() -> None:
    messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    threading.Thread(target=_listen, args=(asyncio.get_running_loop(), messages), daemon=True).start()
    prompts: dict[tuple[int, int], Prompts] = {}
    vocab: tuple[str, ...] = ()
    while True:
        message = await messages.get()
        vocab = tuple(message.get("vocab", vocab))
        endpoint = replace(endpoint_from_json(message["endpoint"]), vocab=vocab)
        job = job_from_json(message["job"])
        try:
            share = Share(job, endpoint, prompts.setdefault(endpoint.prompt_ids, Prompts(endpoint.prompt_ids)))
        except ConfigError as error:
            _say({"problem": str(error)})
            continue
        async with Client(endpoint) as client:
            _say({"ready": True})
            start = await messages.get()
            result = await share.run(client, start["start_s"])
        _say(share_to_json(result))


def _listen(loop: asyncio.AbstractEventLoop, messages: asyncio.Queue[dict[str, Any]]) -> None:
    """The input ends when the parent leaves, however it leaves: then this process ends too, mid-load or not."""
    for line in sys.stdin:
        loop.call_soon_threadsafe(messages.put_nowait, json.loads(line))
    os._exit(0)


def _say(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
