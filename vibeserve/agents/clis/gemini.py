"""Decides how Google's `gemini -p` is driven: by its JSON stream, against the Gemini API.

It reports tokens once, at the end, and its exit code is the status of the API's last error modulo 256.
"""

from __future__ import annotations

import json
import re
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

_NO_CONTEXT = "there-is-no-such-context-file.md"
"""The tree is a candidate's: what stands in its GEMINI.md is no instruction."""
_REFUSED = re.compile(r"safety settings|blocked|prohibited", re.I)
_LENGTH = re.compile(r"token (?:count|limit)|context window|too long|maximum context|max_tokens", re.I)
_BROKE = re.compile(r"API Error|stream ended|fetch failed|Invalid stream|empty response", re.I)


class Gemini:
    """`gemini --output-format stream-json`."""

    name = "gemini"
    package = "@google/gemini-cli"
    tested = (0, 61, 0)
    key_env = "GEMINI_API_KEY"
    address = "https://generativelanguage.googleapis.com"
    paths = ("/v1beta/models/",)

    def headers(self, key: str) -> Mapping[str, str]:
        return {"x-goog-api-key": key}

    def invocation(self, order: Order) -> Invocation:
        settings = {
            "general": {"enableAutoUpdate": False, "maxAttempts": order.retries + 1},
            "privacy": {"usageStatisticsEnabled": False},
            "telemetry": {"enabled": False},
            "security": {"auth": {"selectedType": "gemini-api-key"}},
            "context": {"fileName": _NO_CONTEXT},
            "hooksConfig": {"enabled": False},
            "skills": {"enabled": False},
            "experimental": {"enableAgents": False},
            "tools": {"exclude": ["google_web_search", "web_fetch", "save_memory", "enter_plan_mode"]},
        }
        return Invocation(
            # Only in a trusted folder do tools run without questions; what could abuse that is set aside (`aside.py`).
            arguments=(
                "--output-format", "stream-json", "--model", order.model, "--approval-mode", "yolo", "--skip-trust",
                "--extensions", "none", "-p", "",
            ),
            env={
                "GEMINI_API_KEY": PLACEHOLDER,
                "GOOGLE_GEMINI_BASE_URL": order.base_url,
                "GEMINI_SYSTEM_MD": "0",  # or a `.env` of the tree could name another
                "NO_BROWSER": "1",
            },
            files={".gemini/settings.json": json.dumps(settings)},
        )  # fmt: skip

    def read(self, output: str) -> Report:
        steps: list[Turn | ToolResult] = []
        outcome, words, usage, complaint = Outcome.CUT, "", None, ""
        for event in events(output):
            match event.get("type"):
                case "message" if event.get("role") == "assistant":
                    _say(steps, str(event.get("content") or ""))
                case "tool_use":
                    steps.append(called(event.get("tool_id"), event.get("tool_name"), event.get("parameters")))
                case "tool_result":
                    failed = event.get("status") != "success"
                    steps.append(result(event.get("tool_id"), event.get("output") or event.get("error") or "", failed))
                case "error":
                    complaint = str(event.get("message") or "")
                case "result":
                    words = str(part(event, "error", "message") or complaint)
                    outcome = Outcome.DONE if event.get("status") == "success" else _outcome(words)
                    usage = _usage(event.get("stats"))
        return Report(outcome=outcome, words=words, steps=tuple(steps), usage=usage)


def _outcome(words: str) -> Outcome:
    for pattern, outcome in ((_REFUSED, Outcome.REFUSED), (_LENGTH, Outcome.LENGTH), (_BROKE, Outcome.BROKE)):
        if pattern.search(words):
            return outcome
    return Outcome.FAILED


def _say(steps: list[Turn | ToolResult], piece: str) -> None:
    """Messages come in pieces."""
    last = steps[-1] if steps else None
    if isinstance(last, Turn) and not last.calls:
        steps[-1] = said(last.text + piece)
    else:
        steps.append(said(piece))


def _usage(told: Any) -> Usage | None:
    """Thoughts are in the total alone."""
    if not count(told, "total_tokens"):
        return None
    read = count(told, "input_tokens")
    return Usage(
        input_tokens=read, cached_tokens=count(told, "cached"), output_tokens=count(told, "total_tokens") - read
    )
