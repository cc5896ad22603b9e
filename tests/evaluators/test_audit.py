"""The audit's sample covers loads, crowds, times and lengths; its verdict is the largest gap."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from evaluators.audit import audit, sample_responses
from evaluators.command import TrustedCommand
from evaluators.judge import static_check
from evaluators.load.record import Failure, Response
from evaluators.profiler import MOST_STACK_BYTES, busy, most_frequent, shares
from evaluators.target_schema import AuditTable
from population.errors import InfrastructureError
from population.evaluation import Rejected, Stage


def response(
    number: int, load: str = "high", sent_s: float = 0.0, end_s: float = 1.0, prompt: int = 8, **changes: object
) -> Response:
    settings: dict[str, object] = {
        "id": f"{load}/{number}.0", "load": load, "purpose": "timed", "prompt_ids": [1] * prompt, "max_tokens": 4,
        "output_ids": [1, 2, 3, 4], "text": "", "scheduled_s": sent_s, "sent_s": sent_s,
        "first_s": sent_s, "last_s": end_s,
        "chunk_s": [end_s], "chunk_tokens": [4], "finish_reason": "length", "end_s": end_s,
    }  # fmt: skip
    return Response(**{**settings, **changes})  # type: ignore[arg-type]


def test_every_load_and_length_is_sampled() -> None:
    responses = [response(i, sent_s=i / 10, end_s=i / 10 + 1, prompt=8 + 8 * (i % 2)) for i in range(40)]
    responses += [response(i, load="low", sent_s=2 * i, end_s=2 * i + 1) for i in range(5)]
    chosen = [item.response for item in sample_responses(responses, 12, seed=3)]
    assert len(chosen) == len({r.id for r in chosen}) == 12
    assert {r.load for r in chosen} == {"low", "high"}
    assert {len(r.prompt_ids) for r in chosen} == {8, 16}
    assert min(r.sent_s for r in chosen if r.load == "high") < 2 < max(r.sent_s for r in chosen if r.load == "high")


def test_a_sample_of_one_is_a_crowded_answer() -> None:
    responses = [response(i, load="low", sent_s=2 * i, end_s=2 * i + 1) for i in range(5)] + [
        response(i) for i in range(9)
    ]
    (item,) = sample_responses(responses, 1, seed=0)
    assert item.response.load == "high"
    assert item.occupancy == 9


def test_the_choice_depends_on_the_secret_seed() -> None:
    responses = [response(i, sent_s=i, end_s=i + 1) for i in range(200)]
    picks = [tuple(item.response.id for item in sample_responses(responses, 6, seed=s)) for s in (1, 1, 2)]
    assert picks[0] == picks[1] != picks[2]


def test_what_cannot_be_scored_is_left_out() -> None:
    failed = response(1, failure=Failure(kind="timeout", evidence=""))
    assert sample_responses([failed, response(2, output_ids=None), response(3, output_ids=[])], 5, seed=0) == []
    censored = response(4, censored=True, finish_reason=None)
    assert [item.response.id for item in sample_responses([censored], 5, seed=0)] == [censored.id]


def verdict(folder: Path, *gaps: object) -> dict[str, float] | Rejected:
    """The audit of four answers, two to short prompts and two to long ones, with these gaps by the score command."""
    sample = sample_responses([response(n, prompt=8 if n < 2 else 64) for n in range(4)], 4, seed=0)
    scores = [
        {"id": f"high/{n}.0", "tokens": 4, "max_gap": 0.0, "flips": 0, "worst_position": 0, "gaps": gap}
        for n, gap in enumerate(gaps)
    ]
    figures = {"tokens": 16, "max_gap": 0.02, "p999_gap": 0.02, "mean_gap": 0.009, "flip_rate": 0.5}
    report, output = folder / "canned.json", folder / "report.json"
    report.write_text(json.dumps(figures | {"per_response": scores}))
    copy = "import shutil, sys; shutil.copy(sys.argv[1], sys.argv[2])"
    table = AuditTable(
        command=(sys.executable, "-c", copy, str(report), "{output}", "{responses}"), max_gap=0.05, mean_gap=0.01
    )
    command = TrustedCommand(
        table="audit", command=table.command, folder=folder, timeout_s=10, log=folder / "log", home=folder / "home"
    )
    return audit(sample, table, command, {"responses": str(folder / "responses"), "output": str(output)})


def test_long_prompts_that_are_served_worse_do_not_hide_in_the_mean(tmp_path: Path) -> None:
    fine = verdict(tmp_path, *[[0.009] * 4] * 4)
    assert isinstance(fine, dict)
    assert fine["mean_gap"] == 0.009
    bad = verdict(tmp_path, [0.0] * 4, [0.0] * 4, [0.018] * 4, [0.018] * 4)
    assert isinstance(bad, Rejected)
    assert bad.stage is Stage.AUDIT
    assert "mean_gap 0.018 > 0.01414 (prompt length: long, 8 tokens)" in bad.reason
    with pytest.raises(InfrastructureError, match="'gaps' must be a list"):
        verdict(tmp_path, [-1.0] * 4, [0.0] * 4, [0.0] * 4, [0.0] * 4)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "no files"),
        ({"a.py": "x = (\n"}, "a.py:1"),
        ({"a.py": "x = 1\0"}, "a.py"),
        ({"a.py": "(" * 5000 + ")" * 5000}, "a.py"),
        ({"a.py": "-" * 200_000 + "1"}, "a.py"),
    ],
)
def test_static_check_rejects(tmp_path: Path, files: dict[str, str], said: str) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    rejected = static_check(tmp_path)
    assert rejected is not None
    assert rejected.stage is Stage.STATIC
    assert said in rejected.reason


def test_links_must_stay_inside(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("")
    (tmp_path / "inside").symlink_to("a.py")
    assert static_check(tmp_path) is None
    (tmp_path / "outside").symlink_to("/etc/passwd")
    rejected = static_check(tmp_path)
    assert rejected is not None
    assert "'outside': a link may only lead to a file or folder inside the tree" in rejected.reason


def test_shares_of_folded_stacks() -> None:
    stacks = (
        "main (a.py:1);step (b.py:2) 3\nmain (a.py:1);step (b.py:9) 3\nmain (a.py:1);send (/x/y/c.py:4) 2\ngarbage\n"
    )
    assert shares(stacks) == {"step (b.py)": 0.75, "send (c.py)": 0.25}
    assert shares("") == {}
    assert most_frequent("a;c 7\ngarbage\na;b 1\n") == "a;b 1\na;c 7\n"  # a file that is cut loses its beginning
    long = "".join(f"{'frame;' * 50}{i} {i}\n" for i in range(100))
    assert len(most_frequent(long)) <= MOST_STACK_BYTES and most_frequent(long).startswith(f"{'frame;' * 50}61 61\n")
    of_processes = (
        'process 7:"python server.py --port 9";main (a.py:1) 2\nprocess 8:"python server.py";main (a.py:1) 3\n'
    )
    assert most_frequent(of_processes) == "main (a.py:1) 5\n"


@pytest.mark.parametrize(
    ("frame", "waits"),
    [
        ("EpollSelector.select (selectors.py:468)", True),
        ("Condition.wait (threading.py:320)", True),
        ("wait (/usr/lib/python3.11/threading.py:320)", True),
        ("socket.accept (socket.py:294)", True),
        ("await (model.py:3)", False),
        ("Model.select (model.py:3)", False),
        ("Thread.run (threading.py:982)", False),
    ],
)
def test_a_thread_that_waits_is_not_busy(frame: str, waits: bool) -> None:
    stacks = f"main (a.py:1);{frame} 3\n{frame} 2\n"
    assert busy(stacks) == ("" if waits else stacks)
