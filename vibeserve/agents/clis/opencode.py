"""Decides how `opencode run` is driven: by its JSON events, against any Chat Completions API."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from population.spending import Usage
from vibeserve.agents.clis.cli import (
    PLACEHOLDER,
    Invocation,
    Order,
    Outcome,
    Report,
    called,
    count,
    events,
    part,
    result,
    said,
)
from vibeserve.agents.conversation import ToolResult, Turn
from vibeserve.agents.providers.openai_client import BASE_URL

_CONTEXT_TOKENS = 128_000
"""Assumed of a model that nothing is known of; the CLI shortens the conversation before, or when the API objects."""
_ERRORS = {"ContextOverflowError": Outcome.LENGTH, "MessageOutputLengthError": Outcome.LENGTH,
           "APIError": Outcome.BROKE, "ProviderAuthError": Outcome.BROKE, "UnknownError": Outcome.BROKE}  # fmt: skip
_STOPS = {"length": Outcome.LENGTH, "content-filter": Outcome.REFUSED}
_OFF = (
    "AUTOUPDATE", "MODELS_FETCH", "LSP_DOWNLOAD", "DEFAULT_PLUGINS",
    # The tree is a candidate's: what stands in its settings and its AGENTS.md is no instruction.
    "PROJECT_CONFIG", "CLAUDE_CODE", "EXTERNAL_SKILLS",
)  # fmt: skip


class OpenCode:
    """`opencode run --format json`."""

    name = "opencode"
    package = "opencode-ai"
    tested = (1, 18, 33)
    key_env = "OPENAI_API_KEY"
    address = BASE_URL
    paths = ("/chat/completions",)

    def headers(self, key: str) -> Mapping[str, str]:
        return {"Authorization": f"Bearer {key}"} if key else {}

    def invocation(self, order: Order) -> Invocation:
        model: dict[str, Any] = {
            "name": order.model,
            "limit": {"context": _CONTEXT_TOKENS, "output": order.max_output_tokens},
        }
        if order.effort:
            model["options"] = {"reasoningEffort": order.effort}
        settings = {
            "autoupdate": False,
            "share": "disabled",
            "snapshot": False,
            "formatter": False,
            "lsp": False,
            "model": f"vibeserve/{order.model}",
            "small_model": f"vibeserve/{order.model}",
            "enabled_providers": ["vibeserve"],
            "provider": {
                "vibeserve": {
                    "npm": "@ai-sdk/openai-compatible",
                    "name": "vibeserve",
                    "options": {"baseURL": order.base_url, "apiKey": PLACEHOLDER},
                    "models": {order.model: model},
                }
            },
            "permission": {"*": "allow", "webfetch": "deny", "websearch": "deny"},
        }
        return Invocation(
            arguments=(
                "run", "--format", "json", "--pure", "--auto", "--title", "child",
                "--model", f"vibeserve/{order.model}",
            ),
            env={f"OPENCODE_DISABLE_{what}": "1" for what in _OFF},
            files={".config/opencode/opencode.json": json.dumps(settings)},
        )  # fmt: skip

    def read(self, output: str) -> Report:
        steps: list[Turn | ToolResult] = []
        outcome, words, used = Outcome.CUT, "", Usage()
        metered = False
        for event in events(output):
            match event.get("type"):
                case "text":
                    steps.append(said(str(part(event, "part", "text") or "")))
                case "tool_use":
                    steps += _tool(event.get("part"))
                case "step_finish":
                    used, metered = _plus(used, part(event, "part", "tokens")), True
                    reason = str(part(event, "part", "reason"))
                    outcome = Outcome.CUT if reason == "tool-calls" else _STOPS.get(reason, Outcome.DONE)
                    words = "" if outcome in (Outcome.DONE, Outcome.CUT) else f"the model stopped for {reason}"
                case "error":
                    outcome = _ERRORS.get(str(part(event, "error", "name")), Outcome.FAILED)
                    words = str(part(event, "error", "data", "message") or "no reason given")
        return Report(outcome=outcome, words=words, steps=tuple(steps), usage=used if metered else None)


def _tool(told: Any) -> tuple[Turn, ToolResult]:
    call = part(told, "callID")
    failed = part(told, "state", "status") != "completed"
    text = part(told, "state", "error") if failed else part(told, "state", "output")
    return called(call, part(told, "tool"), part(told, "state", "input")), result(call, text or "", failed)


def _plus(used: Usage, told: Any) -> Usage:
    """`input` is what was neither cached nor put there; reasoning stands beside `output`."""
    cached, written = count(told, "cache", "read"), count(told, "cache", "write")
    return Usage(
        input_tokens=used.input_tokens + count(told, "input") + cached + written,
        cached_tokens=used.cached_tokens + cached,
        cache_write_tokens=used.cache_write_tokens + written,
        output_tokens=used.output_tokens + count(told, "output") + count(told, "reasoning"),
    )
