"""Decides whether a tree is worth starting and whether its answers are right, before any time is measured."""

from __future__ import annotations

import http.client
import json
import os
import posixpath
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from evaluators.command import TrustedCommand, run_trusted
from evaluators.inspection.inspector import RULES, inspect_files
from evaluators.pod import PodConnection
from evaluators.process import printable
from evaluators.server import ServerUnderTest, describe_exit
from evaluators.strict_json import Malformed, parse_object
from evaluators.target import Target
from evaluators.target_schema import InspectionTable
from population.evaluation import Rejected, Stage
from population.git_objects import Entry
from population.trees import TreeRefused, read_folder

_SMOKE_PROMPT, _SMOKE_TOKENS = 8, 4
_SMOKE_TIMEOUT_S = 30.0
_SMOKE_ANSWER_BYTES = 1 << 20


def static_check(workspace: Path, limits: InspectionTable | None = None) -> Rejected | None:
    """Reject a tree that no candidate may have, that does not parse, or that breaks a rule of the diff inspection.

    Executes nothing. The tree must be an export: leftovers of running a server (`population.trees.SKIPPED`) are not
    looked at.
    """
    try:
        entries = read_folder(workspace)
    except TreeRefused as refusal:
        return _static(str(refusal), "\n".join(refusal.problems))
    if not entries:
        return _static("the tree has no files")
    findings = inspect_files(_contents(entries), limits)
    if not findings:
        return None
    why = {rule.id: rule.why for rule in RULES}
    lines = [str(finding) for finding in findings]
    lines += [f"{rule}: {why[rule]}" for rule in sorted({finding.rule for finding in findings}) if rule in why]
    more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
    return _static(f"{findings[0]}{more}", "\n".join(lines))


def smoke_check(server: ServerUnderTest, target: Target, seed: int) -> Rejected | None:
    """One short request that is not streamed: does the server speak the protocol at all? Its prompt is secret, too."""
    low, high = target.prompt_ids
    prompt = random.Random(f"smoke/{seed}").choices(range(low, high + 1), k=_SMOKE_PROMPT)
    request = {
        "model": target.model.name, "prompt": prompt, "max_tokens": _SMOKE_TOKENS, "temperature": 0, "ignore_eos": True,
        "return_token_ids": True,
    }  # fmt: skip
    status, text = _post(server, "/v1/completions", request)
    if (crash := server.crash()) is not None:
        return Rejected(
            stage=Stage.SMOKE, reason="the server died on its first request", evidence=crash.evidence, tier=crash.tier
        )
    problem = f"got {text}" if status is None else f"got status {status}" if status != 200 else None
    problem = problem or _smoke_problem(text, target)
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


def _contents(entries: Mapping[str, Entry]) -> dict[str, bytes]:
    """Path → content; a link counts as another name of the file that it leads to."""
    contents = {}
    for path, entry in entries.items():
        for _ in entries:
            if entry.mode != "120000":
                contents[path] = entry.data
                break
            path_there = posixpath.normpath(posixpath.join(posixpath.dirname(path), os.fsdecode(entry.data)))
            if path_there not in entries:
                break  # a folder, or nothing
            entry = entries[path_there]
    return contents


def _static(reason: str, evidence: str = "") -> Rejected:
    return Rejected(stage=Stage.STATIC, reason=printable(reason), evidence=printable(evidence)[:4000])


def _post(server: ServerUnderTest, path: str, body: dict[str, Any]) -> tuple[int | None, str]:
    """Status and text, or None and what went wrong."""
    address = urlsplit(server.url)
    connection = PodConnection(address.hostname or "", address.port, _SMOKE_TIMEOUT_S, server.pod)
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


def _smoke_problem(text: str, target: Target) -> str | None:
    try:
        answer = parse_object(text, "the answer")
        choice = answer["choices"][0]
    except (Malformed, KeyError, IndexError, TypeError):
        return "got something that is not a completion object with choices"
    if not isinstance(choice, dict) or not isinstance(choice.get("text"), str):
        return "got a choice without text"
    usage = answer.get("usage")
    counts = {"token_ids": choice.get("token_ids"), "usage": usage}
    if not target.measured_by_client:  # its own benchmark may be content with less
        counts = {name: value for name, value in counts.items() if value is not None}
    if "token_ids" in counts and not _are_ids(counts["token_ids"]):
        return f"got token_ids = {counts['token_ids']!r}"
    if "usage" in counts and not (isinstance(usage, dict) and _counted(usage) == (_SMOKE_PROMPT, _SMOKE_TOKENS)):
        return f"got usage = {usage!r}"
    return None if choice.get("finish_reason") == "length" else f"got finish_reason {choice.get('finish_reason')!r}"


def _are_ids(value: object) -> bool:
    return isinstance(value, list) and len(value) == _SMOKE_TOKENS and all(type(i) is int and i >= 0 for i in value)


def _counted(usage: dict[str, Any]) -> tuple[int | None, int | None]:
    """Prompt and completion tokens; None for what is no whole number."""
    prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
    return (prompt if type(prompt) is int else None, completion if type(completion) is int else None)
