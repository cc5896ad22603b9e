"""What runs coding CLIs, with one of a few lines: the key, the limits, the provider's failures, and what is left."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from population.candidate import Operator, Proposal
from population.errors import ProviderDown, ProviderRefused
from tests.agents.endpoint import KEY, Answer, Asked, Endpoint, serving
from tests.agents.fake_cli import GOOD, STUBBORN, fake_cli
from tests.agents.wire import Responses
from tests.vibeserve.recorded import TOY
from vibeserve.agents.clis.aside import set_aside
from vibeserve.agents.clis.mutator import CliMutator
from vibeserve.agents.options import AgentOptions
from vibeserve.executor import Returned
from vibeserve.mutators import Mutation, Unmade

WIRE = Responses()
FINE = WIRE.says("fine")
SKILLS = {"batching": {"SKILL.md": "Batch the requests.\n", "references/more.md": "More.\n"}}
tier_a = pytest.mark.tier("A")


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("A_KEY", KEY)
    shutil.copytree(TOY / "seed", tmp_path / "tree")
    return tmp_path / "tree"


def mutate(
    tree: Path, endpoint: Endpoint, work: str, returned: Returned | None = None, **more: object
) -> Mutation | Unmade:
    options = AgentOptions(
        provider="codex", model="a-model", base_url=f"{endpoint.url}/v1", key_env="A_KEY",
        command=str(fake_cli(tree.parent / "bin", work)), **{"retries": 0, **more},  # type: ignore[arg-type]
    )  # fmt: skip
    agent = CliMutator(options=options, skills=SKILLS)
    proposal = Proposal(number=1, operator=Operator.AGENT, parents=("c000000",))
    if returned is not None:
        return agent.repair(tree, proposal, "Improve the server.", returned)
    return agent.mutate(tree, proposal, "Improve the server.")


def running(mark: str) -> list[str]:
    """Processes of this machine with `mark` in their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if mark.encode() in path.read_bytes():
                found.append(path.parent.name)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


@tier_a
def test_a_child_and_what_it_took(tree: Path) -> None:
    with serving(FINE, repeat=True) as endpoint:
        made = mutate(tree, endpoint, GOOD)
    assert isinstance(made, Mutation)
    assert (made.summary, made.changed) == ("agent: Shorter delay.", ("engine.toml",))
    (spent,) = made.spent
    assert (spent.role, spent.model, spent.requests, spent.unmetered) == ("implementer", "a-model", 2, 0)
    assert (spent.input_tokens, spent.cached_tokens, spent.output_tokens, spent.dollars) == (200, 120, 14, None)
    assert endpoint.asked[0].path == "/v1/responses"
    told = endpoint.asked[0].body["input"][0]["content"]
    assert "Improve the server." in told and "$VIBESERVE_SKILLS" in told and "gives you no instructions" in told


@tier_a
def test_the_key_is_added_outside(tree: Path) -> None:
    """It is neither in the sandbox's environment nor in the CLI's settings, which the second request shows."""
    with serving(FINE, repeat=True) as endpoint:
        made = mutate(tree, endpoint, GOOD)
    assert [asked.headers["authorization"] for asked in endpoint.asked] == [f"Bearer {KEY}"] * 2
    inside = endpoint.asked[1].body["input"][0]["content"]
    assert "VIBESERVE_PLACEHOLDER" in inside and "[model_providers.vibeserve]" in inside and KEY not in inside
    assert KEY not in repr(made)


@tier_a
def test_nothing_but_the_model_can_be_reached(tree: Path) -> None:
    """Another server of the host, and other paths of the API."""
    work = """
def reached(url):
    try:
        return urllib.request.urlopen(url, data=b"{}", timeout=5).status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError as error:
        return type(error).__name__

ask(repr([reached(base_url + "/files"), reached(task.split("PORT ")[1].split()[0])]))
edit(3.5); say("Done."); done()
"""
    with serving(FINE, repeat=True) as other, serving(FINE, repeat=True) as endpoint:
        returned = Returned(commit="", words=f"PORT {other.url} ", transcript="", attempt=1)
        mutate(tree, endpoint, work, returned)
    assert endpoint.asked[0].body["input"][0]["content"] == "[403, 'URLError']"
    assert not other.asked and len(endpoint.asked) == 1


@tier_a
def test_skills_are_files(tree: Path) -> None:
    work = """
skill = os.environ["VIBESERVE_SKILLS"] + "/batching/"
ask(open(skill + "SKILL.md").read() + open(skill + "references/more.md").read())
edit(3.5); say("Done."); done()
"""
    with serving(FINE, repeat=True) as endpoint:
        mutate(tree, endpoint, work)
    assert endpoint.asked[0].body["input"][0]["content"] == "Batch the requests.\nMore.\n"


@tier_a
def test_a_limit_ends_everything(tree: Path) -> None:
    """Also what the CLI has started in a session of its own. What it had asked has a price that nobody told."""
    work = """
subprocess.Popen(["sleep", "86399.0625"], start_new_session=True)
while True: ask()
"""
    with serving(FINE, repeat=True) as endpoint:
        made = mutate(tree, endpoint, work, turns=3)
    assert isinstance(made, Unmade)
    assert made.rejected.reason == "nothing was handed in within 3 requests"
    assert made.spent[0].requests == made.spent[0].unmetered > 3
    assert not running("86399.0625")


@tier_a
@pytest.mark.parametrize(
    ("more", "work", "reason"),
    [
        ({"child_timeout_s": 1.0}, "time.sleep(3600)", "nothing was handed in within 1 s"),
        ({}, "ask(); say('I give up.'); done()", "nothing was changed"),
        ({}, "ask(); tell('turn.failed', error={'message': 'content_filter'}); sys.exit(1)", "the model refused: "),
        ({}, "ask(); tell('turn.failed', error={'message': 'context window'}); sys.exit(1)", "longer than the model"),
        ({}, "ask(); edit(3.5); sys.exit(5)", "codex ended with exit code 5: it does not say why"),
        ({}, "ask(); edit(3.5); done(); os.kill(os.getpid(), 9)", "codex ended with exit code -9"),
        (
            {},
            "ask(); open('engine.toml', 'w').write('['); say('x'); done()",
            "the tree's component files are malformed",
        ),
    ],
)
def test_children_that_come_to_nothing(tree: Path, more: dict[str, object], work: str, reason: str) -> None:
    with serving(FINE, repeat=True) as endpoint:
        made = mutate(tree, endpoint, work, **more)
    assert isinstance(made, Unmade)
    assert made.rejected.reason.startswith(reason)
    assert made.files[0][0] == "transcript.jsonl" and json.loads(made.files[0][1].splitlines()[-1])["kind"] == "end"


@tier_a
def test_a_wrong_key_ends_it_at_once(tree: Path) -> None:
    """However long the CLI would go on trying; and the provider's words are shown without the key in them."""
    answer = WIRE.error(401, "invalid_api_key", f"Incorrect API key provided: {KEY}")
    with serving(answer, repeat=True) as endpoint, pytest.raises(ProviderRefused, match="was not accepted") as caught:
        mutate(tree, endpoint, STUBBORN, retries=10**6)
    assert KEY not in str(caught.value)


@tier_a
def test_a_provider_that_is_down_is_waited_for_elsewhere(tree: Path) -> None:
    """After as many retries as were allowed; what was asked before is on the bill."""
    busy = WIRE.error(503, "overloaded", "maintenance")
    with serving(FINE, busy, repeat=True) as endpoint, pytest.raises(ProviderDown, match="maintenance") as caught:
        mutate(tree, endpoint, f"ask()\n{STUBBORN}", retries=3)
    assert (caught.value.spent[0].requests, caught.value.spent[0].unmetered) == (1, 1)
    assert len(endpoint.asked) >= 5


@tier_a
def test_a_long_wait_that_is_asked_for_is_not_slept_through(tree: Path) -> None:
    limit = WIRE.error(429, "rate_limit", "weekly limit", retry_after="90000")
    with serving(limit, repeat=True) as endpoint, pytest.raises(ProviderDown, match="weekly limit") as caught:
        mutate(tree, endpoint, "ask()\ntime.sleep(3600)", retries=10)
    assert caught.value.wait_s == 90000
    assert len(endpoint.asked) == 1


@tier_a
def test_a_cli_that_gets_over_it(tree: Path) -> None:
    busy = WIRE.error(503, "overloaded", "maintenance")
    with serving(busy, busy, FINE, repeat=True) as endpoint:
        made = mutate(tree, endpoint, f"{STUBBORN}\nedit(3.5); say('Done.'); done()", retries=5)
    assert isinstance(made, Mutation)


@tier_a
def test_an_answer_that_breaks_off_is_the_providers_fault(tree: Path) -> None:
    cut = Answer(events=FINE.events[:1], cut=True)
    work = "ask(); tell('turn.failed', error={'message': 'it broke'}); sys.exit(1)"
    with serving(cut, repeat=True) as endpoint, pytest.raises(ProviderDown, match="broke off"):
        mutate(tree, endpoint, work, retries=5)


@tier_a
def test_a_conversation_that_is_too_long_is_the_childs(tree: Path) -> None:
    answer = WIRE.error(400, "context_length_exceeded", "too long")
    work = "ask(); tell('turn.failed', error={'message': 'no'}); sys.exit(1)"
    with serving(answer, repeat=True) as endpoint:
        made = mutate(tree, endpoint, work)
    assert isinstance(made, Unmade)
    assert made.rejected.reason == "longer than the model can read or write: no"


@tier_a
def test_a_cli_that_never_asks_stops_the_run(tree: Path) -> None:
    """It is not set up as we think; every further child would end the same way."""
    work = "print('unknown setting: web_search', file=sys.stderr); sys.exit(2)"
    with (
        serving(FINE) as endpoint,
        pytest.raises(ProviderRefused, match=r"9\.9\.9 .*code 2 .*unknown setting") as caught,
    ):
        mutate(tree, endpoint, work)
    assert caught.value.spent[0].requests == 0


@tier_a
def test_a_key_that_comes_back_is_not_committed(tree: Path) -> None:
    """A provider can echo what it was sent."""

    def echo(asked: Asked) -> Answer:
        return WIRE.says(asked.headers["authorization"])

    work = "open('notes.md', 'w').write(ask()[1]); say(open('notes.md').read()); done()"
    with serving(echo, repeat=True) as endpoint:
        made = mutate(tree, endpoint, work)
    assert isinstance(made, Unmade)
    assert "found it in notes.md" in made.rejected.reason
    assert KEY not in repr(made)


@tier_a
def test_repair_begins_again_with_the_verdict(tree: Path) -> None:
    with serving(FINE, repeat=True) as endpoint:
        first = mutate(tree, endpoint, GOOD)
        assert isinstance(first, Mutation)
        words = "Rejected at stage accuracy: the answers differ."
        returned = Returned(commit="", words=words, transcript=first.files[0][1], attempt=1)
        second = mutate(tree, endpoint, GOOD.replace("3.5", "3.0"), returned)
    assert isinstance(second, Mutation)
    told = endpoint.asked[2].body["input"][0]["content"]
    assert "Improve the server." in told and words in told
    kinds = [json.loads(line)["kind"] for line in second.files[0][1].splitlines()]
    assert kinds == ["task", "note", "turn", "turn", "end", "note", "turn", "turn", "end"]


def test_what_clis_would_obey_is_set_aside_and_comes_back(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    files = {
        "server.py": "1",
        "AGENTS.md": "2",
        "docs/Claude.md": "3",
        ".gemini/settings.json": "4",
        "lost/GEMINI.md": "5",
    }
    for name, text in files.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text)
    (tree / ".claude").symlink_to("/etc")
    with set_aside(tree):
        left = sorted(str(path.relative_to(tree)) for path in tree.rglob("*") if not path.is_dir())
        assert left == ["server.py"]
        (tree / ".codex").mkdir()
        (tree / ".codex" / "log").write_text("x")
        shutil.rmtree(tree / "lost")
    back = {str(path.relative_to(tree)): path.read_text() for path in tree.rglob("*") if path.is_file()}
    del files["lost/GEMINI.md"]
    assert back == files
    assert (tree / ".claude").readlink() == Path("/etc")
