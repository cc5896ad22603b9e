"""Decides what a request looks like on the wire: the same keys in the same order, whatever it is for."""

from __future__ import annotations

import json
from typing import Any

from evaluators.load.endpoint import Endpoint
from evaluators.load.record import Request


def request_body(request: Request, endpoint: Endpoint) -> bytes:
    """The JSON body; only `stop` and `seed` are left out where they are not asked for."""
    prompt: Any = request.prompt_ids
    if endpoint.prompt_as_text:
        prompt = "".join(endpoint.vocab[token] for token in request.prompt_ids)
    body: dict[str, Any] = {
        "model": endpoint.model,
        "prompt": prompt,
        "max_tokens": request.max_tokens,
        "temperature": request.temperature or 0,
        "ignore_eos": request.ignore_eos,
        "stream": True,
        "stream_options": {"include_usage": True},
        "return_token_ids": True,
    }
    if request.stop:
        body["stop"] = list(request.stop)
    if request.seed is not None:
        body["seed"] = request.seed
    return json.dumps(body, separators=(",", ":")).encode()
