"""Records what the real CLIs print, for the tests of how it is read.

`VIBESERVE_CLIS=DIR python -m tests.agents.record_clis`. Ids, times and paths are made the same in every recording.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from pathlib import Path

from evaluators.egress import Upstream
from tests.agents.cli_models import STAGES, Editor, Stage
from tests.agents.endpoint import Answer, serving
from vibeserve.agents.clis.cli import Order
from vibeserve.agents.clis.installed import find
from vibeserve.agents.clis.registry import CLIS
from vibeserve.agents.clis.session import Session, run
from vibeserve.agents.loop import Limits
from vibeserve.agents.secrets import Redactor

FOLDER = Path(__file__).resolve().parent / "recorded_clis"
CASES = ("good", "refused", "no-model", "too-long", "broken")
_SAME = (
    (
        re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"),
        "00000000-0000-0000-0000-000000000000",
    ),
    (re.compile(r"\b(ses|prt|msg)_[0-9a-zA-Z]{20,}"), r"\1_0"),
    (re.compile(r"/tmp/vibeserve-cli-\w+"), "/tmp/cli"),
    (re.compile(r"/tmp/record-\w+"), "/tmp/tree"),
    (re.compile(r"127\.0\.0\.1:\d+"), "127.0.0.1:9"),
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"), "2026-01-01T00:00:00Z"),
    (re.compile(r'"(timestamp|start|end|created)":\d{13}'), r'"\1":1767225600000'),
    (re.compile(r'"(\w*duration\w*|\w*_ms)":[\d.]+'), r'"\1":1'),
)


def answers(stage: Stage, case: str) -> Answer | Editor:
    wire = stage.wire
    match case:
        case "good":
            return Editor(stage, look="")
        case "refused":
            return wire.says("", (), "refusal")
        case "no-model":
            return wire.error(404, "not_found_error", "no such model")
        case "too-long":
            return wire.error(
                400, "context_length_exceeded", "prompt is too long: maximum context length is 1000 tokens"
            )
    return wire.breaks("overloaded_error", "Overloaded")


def recorded(stage: Stage, case: str) -> str:
    """All that the CLI prints, made the same."""
    cli = CLIS[stage.name]
    with (
        serving(answers(stage, case), repeat=True) as endpoint,
        tempfile.TemporaryDirectory(prefix="record-") as folder,
    ):
        Path(folder, "engine.toml").write_text("value = 4.0\n")
        session = Session(
            cli=cli,
            installed=find(cli, f"{os.environ['VIBESERVE_CLIS']}/node_modules/.bin/{cli.name}"),
            upstream=Upstream(
                url=f"{endpoint.url}{stage.base}", headers={"Accept-Encoding": "identity"}, paths=cli.paths
            ),
            order=Order(model="a-model", retries=1),
            limits=Limits(seconds=120, turns=20),
            skills={},
            redact=Redactor(),
        )
        text = run(session, Path(folder), "Shorten the delay.").output
    for pattern, same in _SAME:
        text = pattern.sub(same, text)
    lines = [line for line in text.split("\n") if line.startswith("{")]
    return "".join(f"{line}\n" for line in lines)


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for stage in STAGES:
        for case in CASES:
            text = recorded(stage, case)
            (FOLDER / f"{stage.name}-{case}.jsonl").write_text(text, encoding="utf-8")
            print(stage.name, case, CLIS[stage.name].read(text).outcome, len(text), json.dumps(text[-200:]))


if __name__ == "__main__":
    main()
