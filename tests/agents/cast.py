"""Models in several roles behind one endpoint on loopback, and runs of the toy target that they take part in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from population.events import Event
from population.ledger import read_events
from tests.agents.endpoint import Answer, Asked, Endpoint
from tests.agents.wire import Call, Format

Part = Callable[[Asked], Answer]
ROLES = {"You are a judge": "judge", "You are a performance engineer": "evaluator"}


class Cast:
    """Answers as whoever is asked, by the system prompt."""

    def __init__(self, wire: Format, **parts: Part) -> None:
        self.wire, self.parts = wire, parts
        self.asked: dict[str, list[Asked]] = {"implementer": [], "judge": [], "evaluator": []}

    def __call__(self, asked: Asked) -> Answer:
        system = self.wire.system(asked)
        role = next((role for words, role in ROLES.items() if system.startswith(words)), "implementer")
        self.asked[role].append(asked)
        return self.parts[role](asked)


class Writer:
    """An implementer that writes files at once, others for each child, and submits."""

    def __init__(self, wire: Format, *children: Mapping[str, str]) -> None:
        self.wire, self.children, self.count = wire, children, 0

    def __call__(self, asked: Asked) -> Answer:
        files = self.children[min(self.count, len(self.children) - 1)]
        self.count += 1
        calls = [
            Call("write", {"path": path, "content": text}, f"call_{self.count}_{n}").raw
            for n, (path, text) in enumerate(files.items())
        ]
        return self.wire.says(
            "Done.", [*calls, Call("submit", {"summary": f"child {self.count}"}, f"call_{self.count}_s").raw]
        )


def objection(quote: str, file: str = "engine.py", kind: str = "reward hacking") -> dict[str, str]:
    return {"kind": kind, "reason": "it knows the client", "file": file, "quote": quote, "harm": "false figures"}


class Verdict:
    """A judge that says the same of everything."""

    def __init__(self, wire: Format, *objections: Mapping[str, str]) -> None:
        self.wire, self.objections = wire, objections

    def __call__(self, asked: Asked) -> Answer:
        return self.wire.says("", [Call("submit", {"objections": list(self.objections)}, "call_j").raw])


PROVIDERS = {"anthropic": "anthropic", "openai responses": "openai", "openai chat": "openai-chat"}
MODELS_ALONE = (
    "search.operators.recipe=false", "search.operators.tune=false", "search.operators.merge=false",
    "evaluation.remeasure=false", "search.use_surrogate=false",
)  # fmt: skip


def options(wire: Format, endpoint: Endpoint, *more: str) -> tuple[str, ...]:
    """A run whose children all come from models behind the endpoint; the key is in A_KEY."""
    return (
        *MODELS_ALONE, f"agents.provider={PROVIDERS[wire.name]}", "agents.model=a-model", "agents.key_env=A_KEY",
        f"agents.base_url={wire.base_url(endpoint.url)}", "agents.retries=0", *more,
    )  # fmt: skip


def events_of(run_dir: Path) -> list[Event]:
    return list(read_events(run_dir / "ledger"))
