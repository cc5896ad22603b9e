"""The accuracy checker of tiny-llama: the seed passes, and each broken server fails the check that is meant for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_llama import copy_seed, run_script, running_server

CORRUPT_IN_A_CROWD = (
    "                token_ids.append(token)\n",
    "                if len(self.scheduler._waiting) > 2 and len(seq.tokens) % 4 == 0:\n"
    "                    token = (token + 1) % 8192\n"
    "                token_ids.append(token)\n",
)
BROKEN = {
    "crowd": ("engine.py", CORRUPT_IN_A_CROWD),
    "stop": ("server.py", ("StopText(completion.stop)", "StopText(())")),
    "bad_requests": ("protocol.py", ("lambda v: 0 <= v <= 2", "lambda v: True")),
    "chat": ("server.py", ('app.router.add_post("/v1/chat/completions", self._completions)', "pass")),
    "endpoints": ("server.py", ('app.router.add_get("/v1/models", self._models)', "pass")),
}


def failed_checks(url: str, output: Path) -> tuple[int, list[str]]:
    done = run_script("accuracy_checker/checker.py", "--url", url, "--output-json", str(output))
    report = json.loads(output.read_text(encoding="utf-8"))
    assert report["passed"] == (done.returncode == 0), done.stderr
    return done.returncode, [check["check"] for check in report["checks"] if not check["passed"]]


def test_the_seed_passes(seed_url: str, tmp_path: Path) -> None:
    assert failed_checks(seed_url, tmp_path / "out.json") == (0, [])


@pytest.mark.parametrize("check", BROKEN)
def test_a_broken_server_fails(check: str, artifacts: Path, tmp_path: Path) -> None:
    name, edit = BROKEN[check]
    folder = copy_seed(tmp_path / "server", {name: edit})
    with running_server(folder, artifacts) as (url, _):
        assert failed_checks(url, tmp_path / "out.json") == (1, [check])


def test_a_server_that_does_not_answer_fails(tmp_path: Path) -> None:
    from tiny_llama import free_port

    code, failed = failed_checks(f"http://127.0.0.1:{free_port()}", tmp_path / "out.json")
    assert code == 1
    assert len(failed) == 5
