"""Decides how Anthropic's `claude -p` is driven: by its JSON stream, against the Messages API.

`--bare` is what keeps everything out that is not ours: logins, keychains, plugins, hooks, memories, CLAUDE.md.
"""

from __future__ import annotations

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

_EFFORTS = {"minimal": "low"}
_ENDS = {"prompt_too_long": Outcome.LENGTH}
_SYNTHETIC = "<synthetic>"
"""The model of messages that the CLI writes itself, about its troubles."""


class Claude:
    """`claude -p --output-format stream-json`."""

    name = "claude"
    package = "@anthropic-ai/claude-code"
    tested = (2, 1, 197)
    key_env = "ANTHROPIC_API_KEY"
    address = "https://api.anthropic.com"
    paths = ("/v1/messages",)

    def headers(self, key: str) -> Mapping[str, str]:
        return {"x-api-key": key}

    def invocation(self, order: Order) -> Invocation:
        effort = ("--effort", _EFFORTS.get(order.effort, order.effort)) if order.effort else ()
        return Invocation(
            arguments=(
                "-p", "--bare", "--output-format", "stream-json", "--verbose", "--no-session-persistence",
                "--permission-mode", "bypassPermissions", "--tools", "Bash,Read,Edit,Write,Glob,Grep",
                "--strict-mcp-config", "--disable-slash-commands", "--setting-sources", "user",
                "--model", order.model, *effort,
            ),
            env={
                "ANTHROPIC_BASE_URL": order.base_url,
                "ANTHROPIC_API_KEY": PLACEHOLDER,
                # Titles and summaries are asked of the same model: another one may not be there, or not be paid for.
                "ANTHROPIC_SMALL_FAST_MODEL": order.model,
                "ANTHROPIC_DEFAULT_HAIKU_MODEL": order.model,
                "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
                "CLAUDE_CODE_MAX_RETRIES": str(order.retries),
                "CLAUDE_CODE_MAX_OUTPUT_TOKENS": str(order.max_output_tokens),
                "DISABLE_AUTOUPDATER": "1",
            },
        )  # fmt: skip

    def read(self, output: str) -> Report:
        steps: list[Turn | ToolResult] = []
        end: Mapping[str, Any] = {}
        detail, synthetic = "", ""
        for event in events(output):
            match event.get("type"):
                case "assistant" if part(event, "message", "model") == _SYNTHETIC:
                    synthetic = str(event.get("error") or "")
                case "assistant" | "user":
                    steps += _steps(part(event, "message", "content"))
                case "system" if "refusal" in str(event.get("subtype")):
                    detail = str(event.get("api_refusal_explanation") or "")
                case "result":
                    end = event
        if not end:
            return Report(steps=tuple(steps))
        return Report(
            outcome=_outcome(end, synthetic),
            words=detail or str(end.get("result") or end.get("subtype") or "no reason given"),
            steps=tuple(steps),
            usage=_usage(end.get("modelUsage")),
            dollars=end["total_cost_usd"] if isinstance(end.get("total_cost_usd"), int | float) else None,
        )


def _outcome(end: Mapping[str, Any], synthetic: str) -> Outcome:
    if not end.get("is_error") and end.get("subtype") == "success":
        return Outcome.DONE
    if end.get("stop_reason") == "refusal":
        return Outcome.REFUSED
    if synthetic == "max_output_tokens":
        return Outcome.LENGTH
    known = _ENDS.get(str(end.get("terminal_reason")))
    return known or (Outcome.BROKE if synthetic else Outcome.FAILED)


def _steps(content: Any) -> Iterator[Turn | ToolResult]:
    for block in content if isinstance(content, list) else ():
        match part(block, "type"):
            case "text":
                yield said(str(block.get("text") or ""))
            case "tool_use":
                yield called(block.get("id"), block.get("name"), block.get("input"))
            case "tool_result":
                yield result(block.get("tool_use_id"), block.get("content") or "", bool(block.get("is_error")))


def _usage(told: Any) -> Usage | None:
    """The sum over the models that it used; unlike `usage` it counts answers that broke off, too."""
    if not isinstance(told, Mapping) or not told:
        return None
    each = list(told.values())
    cached = sum(count(one, "cacheReadInputTokens") for one in each)
    written = sum(count(one, "cacheCreationInputTokens") for one in each)
    return Usage(
        input_tokens=sum(count(one, "inputTokens") for one in each) + cached + written,
        cached_tokens=cached,
        cache_write_tokens=written,
        output_tokens=sum(count(one, "outputTokens") for one in each),
    )
