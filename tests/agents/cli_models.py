"""Models for coding CLIs on loopback: each speaks its CLI's wire format, and calls the CLI's own tools."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from tests.agents.endpoint import Answer, Asked
from tests.agents.wire import CACHED, READ, WRITTEN, Anthropic, Call, Chat, Responses


class Speaker(Protocol):
    """A wire format, as far as these tests need it."""

    def says(self, text: str, calls: Any = (), stop: str | None = None) -> Answer: ...

    def error(self, status: int, kind: str, message: str, **headers: str) -> Answer: ...

    def breaks(self, kind: str, message: str) -> Answer: ...

    def results(self, asked: Asked) -> list[str]: ...


class GeminiApi:
    """`streamGenerateContent`."""

    def says(self, text: str, calls: Any = (), stop: str | None = None) -> Answer:
        if stop == "refusal":
            return Answer(events=(self.event({"content": {"role": "model", "parts": []}, "finishReason": "SAFETY"}),))
        parts: list[dict[str, Any]] = [{"text": text}] if text else []
        parts += [{"functionCall": {"name": c.name, "args": json.loads(c.arguments), "id": c.id}} for c in calls]
        first = self.event({"content": {"role": "model", "parts": parts}})
        # As the API counts: thoughts beside the answer's tokens, the cached within the prompt's.
        usage = {
            "promptTokenCount": READ, "cachedContentTokenCount": CACHED, "candidatesTokenCount": WRITTEN - 2,
            "thoughtsTokenCount": 2, "totalTokenCount": READ + WRITTEN,
        }  # fmt: skip
        last = self.event({"content": {"role": "model", "parts": [{"text": ""}]}, "finishReason": "STOP"}, usage)
        return Answer(events=(first, last))

    def event(self, candidate: dict[str, Any], usage: dict[str, Any] | None = None) -> bytes:
        more = {"usageMetadata": usage} if usage else {}
        data = {"candidates": [{**candidate, "index": 0}], "modelVersion": "a-model", "responseId": "r", **more}
        return f"data: {json.dumps(data)}\r\n\r\n".encode()

    def error(self, status: int, kind: str, message: str, **headers: str) -> Answer:
        body = {"error": {"code": status, "message": message, "status": kind.upper()}}
        return Answer(status=status, body=body, headers={k.replace("_", "-"): v for k, v in headers.items()})

    def breaks(self, kind: str, message: str) -> Answer:
        """It has no word for it: the answer ends without a reason."""
        return Answer(events=(self.event({"content": {"role": "model", "parts": [{"text": "I"}]}}),))

    def results(self, asked: Asked) -> list[str]:
        parts = [p for c in asked.body["contents"] for p in c.get("parts", [])]
        return [json.dumps(p["functionResponse"]["response"]) for p in parts if "functionResponse" in p]


class ResponsesOfTools(Responses):
    """Codex sends more kinds of results than one."""

    def results(self, asked: Asked) -> list[str]:
        return [str(i["output"]) for i in asked.body["input"] if str(i.get("type")).endswith("_output")]


class AnthropicOfTools(Anthropic):
    """Claude sends results as blocks, or as text."""

    def results(self, asked: Asked) -> list[str]:
        content = [
            m["content"] for m in asked.body["messages"] if m["role"] == "user" and isinstance(m["content"], list)
        ]
        return [json.dumps(b["content"]) for blocks in content for b in blocks if b["type"] == "tool_result"]


@dataclass(frozen=True)
class Stage:
    """One CLI, and what its model speaks."""

    name: str
    wire: Speaker
    shell: Callable[[str], Call]
    """A call of the CLI's shell tool."""
    base: str = ""
    """Of the address, below the endpoint's."""


def _shell(tool: str, argument: str, **more: Any) -> Callable[[str], Call]:
    return lambda command: Call(tool, {argument: command, **more})


STAGES = (
    Stage("codex", ResponsesOfTools(), _shell("exec_command", "cmd"), "/v1"),
    Stage("claude", AnthropicOfTools(), _shell("Bash", "command")),
    Stage("gemini", GeminiApi(), _shell("run_shell_command", "command", description="edit")),
    Stage("opencode", Chat(), _shell("bash", "command", description="edit"), "/v1"),
)


class Editor:
    """A model with one idea: a shorter delay, a little shorter for each child; it tries to find a key on its way."""

    LOOK = 'env; cat "$HOME"/.[a-z]*/*.json "$HOME"/.[a-z]*/*.toml 2>/dev/null; ls "$VIBESERVE_SKILLS"'

    def __init__(self, stage: Stage, look: str | None = None) -> None:
        self.stage, self._numbers = stage, self._delays()
        self.look = self.LOOK if look is None else look
        self.seen: list[str] = []

    def __call__(self, asked: Asked) -> Answer:
        results = self.stage.wire.results(asked)
        if not results:
            edit = f"sed -i 's/value = [0-9.]*/value = {next(self._numbers)}/' engine.toml"
            return self.stage.wire.says("I shorten the delay.", [self.stage.shell(f"{edit}; {self.look}").raw])
        self.seen.append(results[-1])
        return self.stage.wire.says("Shorter delay: fewer idle milliseconds.\n")

    def _delays(self) -> Iterator[float]:
        for number in range(100):
            yield round(3.5 - number / 50, 3)


def texts(body: Any) -> str:
    """Everything that a model is told in a request."""
    return re.sub(r"\\+n", "\n", json.dumps(body, ensure_ascii=False))
