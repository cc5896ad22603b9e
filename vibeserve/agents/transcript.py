"""Decides what is written down of a conversation: every turn, call and result, without keys, and readable again.

One JSON object per line. `task` comes first, then `turn` and `result` as they happen, `note` where something else was
said, `trouble` where the provider failed, `end` last.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from typing import Any

from population.errors import ConfigError
from population.spending import Usage
from vibeserve.agents.conversation import Conversation, Exchange, Stop, ToolCall, ToolResult, Turn
from vibeserve.agents.secrets import Redactor

FILE = "transcript.jsonl"
_VERSION = 1


class Transcript:
    """Grows while a conversation goes on; lives in memory until the child's files are kept."""

    def __init__(self, redact: Redactor, past: str = "") -> None:
        """`past`: the transcript of a conversation that goes on; new lines follow its last one."""
        self._redact = redact
        self._lines = _lines(past)

    @property
    def text(self) -> str:
        """All lines so far."""
        return "".join(f"{line}\n" for line in self._lines)

    def begin(self, role: str, model: str, conversation: Conversation) -> None:
        """What the model is told at first; nothing of a conversation that goes on."""
        if self._lines:
            return
        self._write(
            kind="task",
            version=_VERSION,
            role=role,
            model=model,
            instructions=conversation.instructions,
            task=conversation.task,
            tools=[tool.name for tool in conversation.tools],
        )

    def turn(self, turn: Turn) -> None:
        """The model's answer, without the provider's own JSON, which may hold encrypted reasoning."""
        self._write(
            kind="turn",
            stop=turn.stop.value,
            text=turn.text,
            calls=[asdict(call) for call in turn.calls],
            usage=None if turn.usage is None else asdict(turn.usage),
            **({"detail": turn.detail} if turn.detail else {}),
        )

    def result(self, result: ToolResult, elapsed_s: float) -> None:
        """What a tool said."""
        self._write(kind="result", **asdict(result), elapsed_s=round(elapsed_s, 3))

    def note(self, text: str) -> None:
        """What the model was told beside results."""
        self._write(kind="note", text=text)

    def trouble(self, text: str) -> None:
        """What went wrong with the provider."""
        self._write(kind="trouble", text=text)

    def end(self, outcome: str, reason: str) -> None:
        """How it ended."""
        self._write(kind="end", outcome=outcome, reason=reason)

    def _write(self, **entry: Any) -> None:
        self._lines.append(json.dumps(_redacted(entry, self._redact), ensure_ascii=False, default=str))


def _redacted(value: Any, redact: Redactor) -> Any:
    """Text by text, before it becomes JSON, so that what is cut out never breaks a line."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {key: _redacted(each, redact) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_redacted(each, redact) for each in value]
    return value


def read_turns(text: str, name: str) -> list[Turn]:
    """The turns of a transcript, to be played again.

    Raises:
        ConfigError: it is no transcript of this version.
    """
    return [exchange.turn for exchange in read_past(text, name).exchanges]


def read_past(text: str, name: str) -> Conversation:
    """The conversation that a transcript tells of, without the provider's own JSON and without tools, to go on with it.

    Raises:
        ConfigError: as `read_turns`.
    """
    try:
        entries = [json.loads(line) for line in _lines(text)]
        if not entries or entries[0].get("kind") != "task" or entries[0].get("version") != _VERSION:
            raise ConfigError(f"{name}: expected a transcript whose first line has kind 'task', version {_VERSION}")
        told = Conversation(instructions=entries[0]["instructions"], task=entries[0]["task"])
        return replace(told, exchanges=tuple(_exchanges(entries)))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{name}: expected a transcript, one JSON object per line: {error!r}") from error


def _lines(text: str) -> list[str]:
    """By line ends alone: what JSON holds may have other separators, which `splitlines` would split at."""
    return [line for line in text.split("\n") if line]


def _exchanges(entries: list[dict[str, Any]]) -> Iterator[Exchange]:
    """Each turn with the results and notes up to the next one."""
    exchange: Exchange | None = None
    for entry in entries:
        match entry["kind"]:
            case "turn":
                if exchange is not None:
                    yield exchange
                exchange = Exchange(turn=_turn(entry))
            case "result" if exchange is not None:
                result = ToolResult(call_id=entry["call_id"], text=entry["text"], failed=entry["failed"])
                exchange = replace(exchange, results=(*exchange.results, result))
            case "note" if exchange is not None:
                exchange = replace(exchange, note=f"{exchange.note}\n{entry['text']}".strip())
    if exchange is not None:
        yield exchange


def _turn(entry: Mapping[str, Any]) -> Turn:
    usage = entry["usage"]
    return Turn(
        text=entry["text"],
        calls=tuple(ToolCall(**call) for call in entry["calls"]),
        stop=Stop(entry["stop"]),
        usage=None if usage is None else Usage(**usage),
        detail=entry.get("detail", ""),
    )


def readable(text: str) -> str:
    """A transcript for people: what was said and done, in order."""
    return "\n".join(_words(json.loads(line)) for line in _lines(text))


def _words(entry: Mapping[str, Any]) -> str:
    match entry["kind"]:
        case "task":
            return f"# {entry['role']} ({entry['model']})\n{entry['task']}\n"
        case "turn":
            calls = [f"> {call['name']} {call['arguments']}" for call in entry["calls"]]
            return "\n".join([f"## turn ({entry['stop']})", *filter(None, [entry["text"]]), *calls])
        case "result":
            return f"{'error' if entry['failed'] else 'result'}: {entry['text']}"
        case "end":
            return f"## {entry['outcome']}: {entry['reason']}"
        case other:
            return f"{other}: {entry['text']}"
