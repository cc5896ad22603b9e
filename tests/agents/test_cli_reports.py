"""How what coding CLIs print is read: recordings of the real ones (`record_clis.py`), and lines that no CLI printed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from population.spending import Usage
from tests.agents.wire import CACHED, READ, WRITTEN
from vibeserve.agents.clis.cli import CodingCli, Outcome
from vibeserve.agents.clis.registry import CLIS
from vibeserve.agents.conversation import ToolResult, Turn

RECORDED = Path(__file__).resolve().parent / "recorded_clis"
# Of answers without a word codex and opencode make a turn that is done; the tree, unchanged, tells.
ENDS = {
    "good": dict.fromkeys(CLIS, Outcome.DONE),
    "refused": {
        "codex": Outcome.DONE, "claude": Outcome.REFUSED, "gemini": Outcome.REFUSED, "opencode": Outcome.DONE,
    },
    "no-model": dict.fromkeys(CLIS, Outcome.BROKE),
    "too-long": dict.fromkeys(CLIS, Outcome.LENGTH),
    "broken": dict.fromkeys(CLIS, Outcome.BROKE),
}  # fmt: skip


@pytest.fixture(params=CLIS.values(), ids=lambda cli: cli.name)
def cli(request: pytest.FixtureRequest) -> CodingCli:
    found: CodingCli = request.param
    return found


def output(cli: CodingCli, case: str) -> str:
    return (RECORDED / f"{cli.name}-{case}.jsonl").read_text(encoding="utf-8")


def test_a_child_that_was_made(cli: CodingCli) -> None:
    report = cli.read(output(cli, "good"))
    assert report.outcome is Outcome.DONE
    assert report.last_words.strip() == "Shorter delay: fewer idle milliseconds."
    said, call, result, last = report.steps
    assert isinstance(said, Turn) and said.text == "I shorten the delay."
    assert isinstance(call, Turn) and "sed -i" in json.loads(call.calls[0].arguments)["command"]
    assert isinstance(result, ToolResult) and (result.call_id, result.failed) == (call.calls[0].id, False)
    assert isinstance(last, Turn) and not last.calls
    assert report.usage is not None
    assert (report.usage.input_tokens, report.usage.cached_tokens) == (2 * READ, 2 * CACHED)
    assert report.usage.output_tokens == 2 * WRITTEN
    assert (report.dollars is not None) == (cli.name == "claude")


@pytest.mark.parametrize("case", ENDS)
def test_how_it_ended(cli: CodingCli, case: str) -> None:
    report = cli.read(output(cli, case))
    assert report.outcome is ENDS[case][cli.name]
    assert bool(report.words) or report.outcome in (Outcome.DONE, Outcome.CUT)


def test_what_was_cut_off_is_read_as_far_as_it_goes(cli: CodingCli) -> None:
    """At any byte, as while the CLI still runs: never an error, never more than the whole tells."""
    text = output(cli, "good")
    whole = cli.read(text)
    for end in range(0, len(text), 97):
        report = cli.read(text[:end])
        assert len(report.steps) <= len(whole.steps)
        assert report.usage is None or report.usage.input_tokens <= 2 * READ
    assert cli.read(text[: text.rindex('{"type"')]).outcome is Outcome.CUT


@pytest.mark.parametrize(
    "line",
    [
        "Warning: something", "{", "[]", '{"type": 7}', '{"type": "result"}', '{"type": "result", "stats": null}',
        '{"type": "item.completed"}', '{"type": "item.completed", "item": {"type": "new_kind", "id": 1}}',
        '{"type": "turn.completed"}', '{"type": "turn.failed", "error": "no object"}', '{"type": "assistant"}',
        '{"type": "assistant", "message": {"content": "no list"}}', '{"type": "user", "message": {"content": [1, {}]}}',
        '{"type": "tool_use"}', '{"type": "tool_use", "part": []}', '{"type": "step_finish", "part": {"tokens": []}}',
        '{"type": "error", "error": []}', '{"type": "text", "part": null}', '{"type": "message", "role": "assistant"}',
    ],
)  # fmt: skip
def test_lines_that_are_not_as_expected(cli: CodingCli, line: str) -> None:
    """A newer version may say more, or otherwise; what is around it is still read."""
    text = output(cli, "good")
    first, _, rest = text.partition("\n")
    report = cli.read(f"{first}\n{line}\n{rest}")
    assert report.last_words.strip() == "Shorter delay: fewer idle milliseconds."
    assert report.outcome is Outcome.DONE


def test_tokens_that_nobody_told_are_unknown(cli: CodingCli) -> None:
    assert cli.read("").usage is None
    assert cli.read(output(cli, "no-model")).usage is None


def test_thoughts_are_output() -> None:
    """Gemini counts them beside the answer, in the total alone; opencode beside the output, too."""
    stats = {"total_tokens": 150, "input_tokens": 100, "output_tokens": 20, "cached": 60}
    line = json.dumps({"type": "result", "status": "success", "stats": stats})
    assert CLIS["gemini"].read(line).usage == Usage(input_tokens=100, cached_tokens=60, output_tokens=50)
    tokens = {"input": 40, "output": 20, "reasoning": 30, "cache": {"read": 60, "write": 5}}
    line = json.dumps({"type": "step_finish", "part": {"reason": "stop", "tokens": tokens}})
    expected = Usage(input_tokens=105, cached_tokens=60, cache_write_tokens=5, output_tokens=50)
    assert CLIS["opencode"].read(line).usage == expected


def test_a_recording_holds_nothing_of_whoever_made_it(cli: CodingCli) -> None:
    for case in ENDS:
        text = output(cli, case)
        assert "/root" not in text and "/home/" not in text.replace("/tmp/cli/home/", "")
