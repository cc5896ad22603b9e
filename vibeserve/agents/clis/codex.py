"""Decides how OpenAI's `codex exec` is driven: by its JSONL events, against the Responses API.

It reports tokens once, when its turn ends: of one that was cut off they are unknown.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
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

_BROKE = re.compile(
    r"stream disconnected|unexpected status|exceeded retry limit|error sending request|timed? ?out", re.I
)
_LENGTH = re.compile(r"max_output_tokens|context window|context_length|too long|maximum context", re.I)
_REFUSED = re.compile(r"content_filter|cyber_policy|invalid_prompt|safety", re.I)
_SETTINGS = """\
model = {model}
model_provider = "vibeserve"
approval_policy = "never"
# It runs in a sandbox of ours, in which there is none of its own.
sandbox_mode = "danger-full-access"
check_for_update_on_startup = false
web_search = "disabled"
# The tree is a candidate's: what stands in its AGENTS.md is no instruction.
project_doc_max_bytes = 0
{effort}
[analytics]
enabled = false
[feedback]
enabled = false
[history]
persistence = "none"
[model_providers.vibeserve]
name = "vibeserve"
base_url = {base_url}
wire_api = "responses"
env_key = "VIBESERVE_PLACEHOLDER"
request_max_retries = {retries}
stream_max_retries = {retries}
supports_websockets = false
[projects.{workspace}]
trust_level = "untrusted"
"""


class Codex:
    """`codex exec --json`."""

    name = "codex"
    package = "@openai/codex"
    tested = (0, 169, 0)
    key_env = "OPENAI_API_KEY"
    address = BASE_URL
    paths = ("/responses",)

    def headers(self, key: str) -> Mapping[str, str]:
        return {"Authorization": f"Bearer {key}"}

    def invocation(self, order: Order) -> Invocation:
        effort = f"model_reasoning_effort = {json.dumps(order.effort)}" if order.effort else ""
        settings = _SETTINGS.format(
            model=json.dumps(order.model),
            effort=effort,
            base_url=json.dumps(order.base_url),
            retries=order.retries,
            workspace=json.dumps(order.workspace),
        )
        return Invocation(
            arguments=(
                "exec", "--json", "--skip-git-repo-check", "--ephemeral", "--ignore-rules",
                "--dangerously-bypass-approvals-and-sandbox", "-",
            ),
            env={"VIBESERVE_PLACEHOLDER": PLACEHOLDER},
            files={".codex/config.toml": settings},
        )  # fmt: skip

    def read(self, output: str) -> Report:
        steps: list[Turn | ToolResult] = []
        outcome, words, usage = Outcome.CUT, "", None
        for event in events(output):
            match event.get("type"):
                case "item.completed":
                    steps += _steps(event.get("item"))
                case "turn.completed":
                    outcome, usage = Outcome.DONE, _usage(event.get("usage"))
                case "turn.failed":
                    words = str(part(event, "error", "message") or "no reason given")
                    outcome = _outcome(words)
        return Report(outcome=outcome, words=words, steps=tuple(steps), usage=usage)


def _outcome(words: str) -> Outcome:
    for pattern, outcome in ((_REFUSED, Outcome.REFUSED), (_LENGTH, Outcome.LENGTH), (_BROKE, Outcome.BROKE)):
        if pattern.search(words):
            return outcome
    return Outcome.FAILED


def _steps(item: Any) -> Iterator[Turn | ToolResult]:
    match part(item, "type"):
        case "agent_message":
            yield said(str(part(item, "text") or ""))
        case "command_execution":
            yield called(part(item, "id"), "shell", {"command": part(item, "command")})
            yield result(part(item, "id"), part(item, "aggregated_output") or "", bool(part(item, "exit_code")))
        case "file_change":
            yield called(part(item, "id"), "apply_patch", part(item, "changes"))
            yield result(part(item, "id"), part(item, "status"), part(item, "status") == "failed")
        case "mcp_tool_call" | "todo_list" | "web_search" | "reasoning" | "error" | None:
            return
        case other:
            yield called(part(item, "id"), other, item)


def _usage(told: Any) -> Usage:
    """`input_tokens` has the cached ones in it, `output_tokens` the reasoning."""
    return Usage(
        input_tokens=count(told, "input_tokens"),
        cached_tokens=count(told, "cached_input_tokens"),
        cache_write_tokens=count(told, "cache_write_input_tokens"),
        output_tokens=count(told, "output_tokens"),
    )
