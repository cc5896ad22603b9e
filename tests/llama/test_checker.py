"""The accuracy checker: a correct server passes, and each broken one fails the check that is meant for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from llama import TOY, run_script, running_server

CHECKS = ("endpoints", "bad_requests", "chat", "text_prompt", "stop", "seed", "crowd", "hang_ups")


def failed_checks(url: str, artifacts: Path, output: Path) -> tuple[int, list[str]]:
    options = ("--url", url, "--artifacts", artifacts, "--output-json", output, "--timeout-s", "5")
    done = run_script("accuracy_checker/checker.py", *options)
    report = json.loads(output.read_text(encoding="utf-8"))
    assert report["passed"] == (done.returncode == 0), done.stderr
    assert [check["check"] for check in report["checks"]] == list(CHECKS)
    return done.returncode, [check["check"] for check in report["checks"] if not check["passed"]]


def test_a_correct_server_passes(artifacts: Path, tmp_path: Path) -> None:
    with running_server(TOY, artifacts) as url:
        assert failed_checks(url, artifacts, tmp_path / "out.json") == (0, [])


@pytest.mark.parametrize("fault", CHECKS)
def test_a_broken_server_fails(fault: str, artifacts: Path, tmp_path: Path) -> None:
    with running_server(TOY, artifacts, fault) as url:
        assert failed_checks(url, artifacts, tmp_path / "out.json") == (1, [fault])
