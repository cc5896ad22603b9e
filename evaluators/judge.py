"""Decides whether a tree is worth starting and whether its answers are right, before any time is measured."""

from __future__ import annotations

import ast
import http.client
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from evaluators.command import TrustedCommand, run_trusted
from evaluators.process import printable
from evaluators.server import ServerUnderTest, describe_exit
from evaluators.target import Target
from population.evaluation import Rejected, Stage

MAX_FILES = 5000
MAX_TREE_BYTES = 64 << 20
MAX_SOURCE_BYTES = 2 << 20
_SMOKE_TOKENS = 4
_SMOKE_TIMEOUT_S = 30.0
_SMOKE_ANSWER_BYTES = 1 << 20


def static_check(workspace: Path) -> Rejected | None:
    """Reject a tree that is empty, huge, points outside itself, or whose Python does not parse. Executes nothing."""
    files, total_bytes = [], 0
    for path in _entries(workspace):
        if path.is_symlink():
            if not path.resolve().is_relative_to(workspace.resolve()):
                return _static(f"{path.relative_to(workspace)} is a link to {os.readlink(path)}, outside of the tree")
            continue
        if not path.is_file():
            return _static(f"{path.relative_to(workspace)} is neither a regular file, a folder nor a link")
        files.append(path)
        total_bytes += path.stat().st_size
        if len(files) > MAX_FILES or total_bytes > MAX_TREE_BYTES:
            return _static(f"expected at most {MAX_FILES} files and {MAX_TREE_BYTES >> 20} MiB, got more")
    if not files:
        return _static("the tree has no files")
    problems = [problem for path in files if path.suffix == ".py" and (problem := _syntax_problem(path, workspace))]
    return (
        _static(f"{len(problems)} Python files do not parse: {problems[0]}", "\n".join(problems)) if problems else None
    )


def smoke_check(server: ServerUnderTest, target: Target) -> Rejected | None:
    """One short request that is not streamed: does the server speak the protocol at all?"""
    low, high = target.prompt_ids
    prompt = [low + (i * 7919) % (high - low + 1) for i in range(8)]
    request = {
        "model": target.model.name, "prompt": prompt, "max_tokens": _SMOKE_TOKENS, "temperature": 0, "ignore_eos": True,
        "return_token_ids": True,
    }  # fmt: skip
    status, text = _post(server.url, "/v1/completions", request)
    if (crash := server.crash()) is not None:
        return Rejected(
            stage=Stage.SMOKE, reason="the server died on its first request", evidence=crash.evidence, tier=crash.tier
        )
    problem = f"got {text}" if status is None else f"got status {status}" if status != 200 else _smoke_problem(text)
    if problem is None:
        return None
    evidence = printable(f"{text[:2000]}\n--- server log ---\n{server.process.log_tail(10)}")[:4000]
    return Rejected(
        stage=Stage.SMOKE,
        reason=f"POST /v1/completions: expected a completion of {_SMOKE_TOKENS} tokens, {problem}",
        evidence=evidence,
    )


def accuracy_check(server: ServerUnderTest, command: TrustedCommand, words: dict[str, str]) -> Rejected | None:
    """The target's checker against the running server; its exit code 0 is a pass.

    Raises:
        InfrastructureError: the checker cannot be executed.
    """
    outcome = run_trusted(command, words)
    if outcome.code == 0:
        return None
    reason = (
        f"the accuracy checker did not end within {command.timeout_s:g} s"
        if outcome.code is None
        else f"the accuracy checker failed ({describe_exit(outcome.code)})"
    )
    if (crash := server.crash()) is not None:
        reason += "; the server died meanwhile"
        return Rejected(stage=Stage.CHECKER, reason=reason, evidence=crash.evidence, tier=crash.tier)
    return Rejected(stage=Stage.CHECKER, reason=reason, evidence=outcome.output)


def _entries(folder: Path) -> Iterator[Path]:
    for entry in sorted(os.scandir(folder), key=lambda e: e.name):
        if entry.is_dir(follow_symlinks=False):
            yield from _entries(Path(entry.path))
        else:
            yield Path(entry.path)


def _syntax_problem(path: Path, workspace: Path) -> str | None:
    name = path.relative_to(workspace)
    if path.stat().st_size > MAX_SOURCE_BYTES:
        return f"{name}: expected at most {MAX_SOURCE_BYTES} bytes of source, got {path.stat().st_size}"
    try:
        ast.parse(path.read_bytes(), filename=str(name))
    except SyntaxError as error:
        return printable(f"{name}:{error.lineno}: {error.msg}")
    except (ValueError, RecursionError, MemoryError) as error:
        return printable(f"{name}: {error or type(error).__name__}")
    return None


def _static(reason: str, evidence: str = "") -> Rejected:
    return Rejected(stage=Stage.STATIC, reason=printable(reason), evidence=evidence[:4000])


def _post(url: str, path: str, body: dict[str, Any]) -> tuple[int | None, str]:
    """Status and text, or None and what went wrong."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=_SMOKE_TIMEOUT_S)
    try:
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json", "Connection": "close"})
        response = connection.getresponse()
        return response.status, response.read(_SMOKE_ANSWER_BYTES).decode(errors="replace")
    except TimeoutError:
        return None, f"no answer within {_SMOKE_TIMEOUT_S:g} s"
    except (http.client.HTTPException, ValueError) as error:
        return None, f"something that is not HTTP: {error!r}"
    except OSError as error:
        return None, f"{error.strerror or error}"
    finally:
        connection.close()


def _smoke_problem(text: str) -> str | None:
    try:
        answer = json.loads(text)
        choice = answer["choices"][0]
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        return "got something that is not a completion object with choices"
    if not isinstance(choice, dict) or not isinstance(choice.get("text"), str):
        return "got a choice without text"
    return None
