"""The parts of driving coding CLIs that need none: what answers mean, which programs will do, how they are told."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from evaluators.egress import Answered
from population.errors import ProviderDown, ProviderRefused
from tests.agents.endpoint import KEY
from tests.agents.fake_cli import fake_cli
from vibeserve.agents.clis.cli import PLACEHOLDER, CodingCli, Order
from vibeserve.agents.clis.installed import NotUsable, check, find, required
from vibeserve.agents.clis.registry import CLIS
from vibeserve.agents.clis.traffic import Watch
from vibeserve.agents.opening import defects, key_of
from vibeserve.agents.options import AgentOptions, RoleOptions
from vibeserve.agents.provider import ContextOverflow
from vibeserve.agents.providers.failures import Refused
from vibeserve.agents.roles import played
from vibeserve.agents.secrets import Redactor

ORDER = Order(model='a "model"', base_url="http://127.0.0.1:9", workspace='/tmp/a "tree"', effort="high", retries=2)


@pytest.fixture(params=CLIS.values(), ids=lambda cli: cli.name)
def cli(request: pytest.FixtureRequest) -> CodingCli:
    found: CodingCli = request.param
    return found


def answered(status: int = 200, words: object = None, path: str = "/responses", **headers: str) -> Answered:
    body = b"" if words is None else json.dumps(words).encode()
    return Answered(method="POST", path=path, status=status, words=body, headers=headers)


def watch(retries: int = 2) -> Watch:
    return Watch("codex m", Redactor([KEY]), retries)


BUSY = answered(503, {"error": {"type": "overloaded_error", "message": "busy"}})


def test_failures_in_a_row_are_counted() -> None:
    seen = watch()
    for _ in range(3):
        seen.note(BUSY)
        seen.note(BUSY)
        assert seen.fatal is None and isinstance(seen.last, ProviderDown)
        seen.note(answered())
        assert seen.last is None
    assert (seen.asked, seen.answered) == (9, 3)
    for _ in range(3):
        seen.note(BUSY)
    assert isinstance(seen.fatal, ProviderDown)


@pytest.mark.parametrize(
    ("answer", "kind", "at_once"),
    [
        (answered(401, {"error": {"message": f"no such key {KEY}"}}), ProviderRefused, True),
        (answered(429, {"error": {"code": "insufficient_quota", "message": "no money"}}), ProviderRefused, True),
        (answered(402, {"error": {"message": "pay"}}), ProviderRefused, True),
        (answered(404, {"error": {"message": "no such model"}}), ProviderRefused, False),
        (
            answered(400, {"error": {"message": "API key not valid", "status": "INVALID_ARGUMENT"}}),
            ProviderRefused,
            False,
        ),
        (answered(400, {"error": {"message": "maximum context length"}}), ContextOverflow, False),
        (answered(400, {"error": {"code": "content_filter", "message": "no"}}), Refused, False),
        (answered(429, {"error": {"message": "slow down"}}, **{"retry-after": "30"}), ProviderDown, False),
        (answered(429, [{"error": {"message": "tomorrow"}}], **{"retry-after": "86400"}), ProviderDown, True),
        (answered(502, None), ProviderDown, False),
        (Answered(method="POST", path="/responses", status=200, whole=False), ProviderDown, False),
    ],
)
def test_what_an_answer_means(answer: Answered, kind: type[Exception], at_once: bool) -> None:
    seen = watch()
    seen.note(answer)
    assert isinstance(seen.last, kind)
    assert (seen.fatal is not None) == at_once
    assert KEY not in str(seen.last)


def test_what_asks_no_model_does_not_count() -> None:
    seen = watch(retries=0)
    seen.note(answered(404, path="/v1/messages/count_tokens?beta=true"))
    seen.note(answered(404, path="/v1beta/models/m:countTokens"))
    seen.note(Answered(method="GET", path="/models", status=404))
    assert (seen.asked, seen.last, seen.fatal) == (0, None, None)


def test_a_cli_must_be_there_and_new_enough(tmp_path: Path) -> None:
    codex = CLIS["codex"]
    assert find(codex, str(fake_cli(tmp_path / "new", ""))).version == (9, 9, 9)
    with pytest.raises(NotUsable, match="expected the program /nowhere/codex, found none"):
        find(codex, "/nowhere/codex")
    with pytest.raises(NotUsable, match=r"or newer, got 0\.1\.2 at "):
        find(codex, str(fake_cli(tmp_path / "old", "", version="0.1.2")))
    with pytest.raises(NotUsable, match="expected a version from"):
        find(codex, str(fake_cli(tmp_path / "mute", "", version="unknown")))
    with pytest.raises(ProviderRefused, match="npm install -g @openai/codex"):
        required(codex, "/nowhere/codex")


def test_a_cli_is_asked_for_its_version_without_anything_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    program = tmp_path / "codex"
    program.write_text(f'#!/bin/sh\nenv >"{tmp_path}/env"\nls -A "$HOME" >"{tmp_path}/home"\necho 1.2.3\n')
    program.chmod(0o755)
    assert find(CLIS["codex"], str(program)).release == "1.2.3"
    assert KEY not in (tmp_path / "env").read_text() and (tmp_path / "home").read_text() == ""


def test_what_a_cli_needs_is_bound_as_a_whole(tmp_path: Path) -> None:
    """Packages of npm need their neighbours; the link in `.bin` is followed."""
    package = tmp_path / "lib" / "node_modules" / "@openai" / "codex" / "node_modules" / "x"
    program = fake_cli(package, "")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "codex").symlink_to(program)
    found = find(CLIS["codex"], str(tmp_path / "bin" / "codex"))
    assert found.readable == (tmp_path / "lib" / "node_modules",) and found.command == (str(program),)


def test_doctor_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cli: CodingCli) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = check(cli)
    assert not found.ok and cli.package in found.cure
    program = tmp_path / cli.name
    program.write_text("#!/bin/sh\necho 99.0.0\n")
    program.chmod(0o755)
    assert check(cli).detail == f"99.0.0 at {program}"


def test_a_cli_gets_an_address_and_no_key(cli: CodingCli) -> None:
    """What is asked of it stands in its settings or arguments, whatever characters it has."""
    invocation = cli.invocation(ORDER)
    told = [*invocation.arguments, *invocation.env.values(), *invocation.files.values()]
    assert any(ORDER.base_url in text for text in told)
    assert any(PLACEHOLDER in text for text in told)
    for name, text in invocation.files.items():
        settings = tomllib.loads(text) if name.endswith(".toml") else json.loads(text)
        assert settings
    models = [text for text in told if "a " in text and "model" in text]
    assert models
    assert cli.headers(KEY) and KEY in str(cli.headers(KEY))


def test_the_key_is_found_under_its_usual_name(cli: CodingCli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cli.key_env, KEY)
    monkeypatch.setenv("MINE", "another-key")
    options = AgentOptions(provider=cli.name, model="m")  # type: ignore[arg-type]
    assert key_of(options) == KEY
    assert key_of(AgentOptions(provider=cli.name, model="m", key_env="MINE")) == "another-key"  # type: ignore[arg-type]


def test_what_is_wrong_is_told_before_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    found = "\n".join(defects(AgentOptions(provider="codex", command="/nowhere/codex"), here=True))
    assert "agents.model" in found and "expected the program /nowhere/codex" in found and "OPENAI_API_KEY" in found
    assert not defects(AgentOptions(provider="codex", model="m", command="/nowhere/codex"), here=False)


def test_a_cli_plays_no_role_but_its_api_does() -> None:
    """A judge beside `claude` asks the same model by the Messages API."""
    judge = played(AgentOptions(provider="claude", model="m", key_env="A_KEY"), RoleOptions())
    assert judge is not None and (judge.provider, judge.model, judge.key_env) == ("anthropic", "m", "A_KEY")
    assert played(AgentOptions(provider="gemini", model="m"), RoleOptions()) is None
    other = played(AgentOptions(provider="gemini", model="m"), RoleOptions(provider="openai", model="n"))
    assert other is not None and other.provider == "openai"
