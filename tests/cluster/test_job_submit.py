"""`ray job submit` as a user types it, on a head node of its own with a token: submitted, killed, drained, resumed."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from population.errors import ConfigError
from population.events import Ended, EpochStarted, Event, Proposed, Stopped
from population.ledger import read_events
from population.replay import State
from tests.cluster.submitting import NODE_KEY, Head, head_node, until
from vibeserve.lifecycle import RunState, run_state
from vibeserve.submission import looks_secret, require_fit

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\x9b]")
LARGEST_PACKAGE_BYTES = 5_000_000
TOY = "tests/toy_target"


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with head_node() as node:
        (node.root / "run.toml").write_text(
            f'[skills]\ndir = "{TOY}/skills"\n[budget]\nchildren = 60\n'
            "[evaluation]\nprofile = false\nrepeats = 1\nfinal_repeats = 0\n[cluster]\nqueue_high = 2\n"
        )
        yield node


def run_of(head: Head) -> Path | None:
    found = [folder for folder in head.runs.glob("*") if (folder / "ledger").is_dir()]
    assert len(found) <= 1
    return found[0] if found else None


def events_of(head: Head) -> list[Event]:
    run = run_of(head)
    return list(read_events(run / "ledger")) if run else []


def children_ended(events: list[Event]) -> int:
    return sum(isinstance(event, Ended) and event.number > 0 for event in events)


def child_ends(head: Head, job: str, already: int) -> list[Event]:
    """The ledger once another child has ended and the next is under way."""

    def happened() -> list[Event] | None:
        events = events_of(head)
        if children_ended(events) > already and State.replay(events).pending:
            return events
        assert head.details(job)["status"] in ("PENDING", "RUNNING"), head.logs(job)[-3000:]
        return None

    return list(until(happened, f"another child of job {job}"))


def test_a_search_is_submitted_killed_drained_and_resumed(head: Head) -> None:
    config = str(head.root / "run.toml")

    # `ray job stop` without patience: SIGTERM, and SIGKILL at once.
    impatient = {"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "0"}}
    head.submit("first", "run", TOY, "--config", config, runtime_env=impatient)
    before = child_ends(head, "first", 0)
    head.ray("job", "stop", "first")
    assert head.ended("first")["status"] == "STOPPED"
    until(lambda: not head.of_jobs(), "the end of every server of a killed driver")
    run = run_of(head)
    assert run is not None
    killed = events_of(head)
    assert killed[: len(before)] == before
    assert run_state(killed) is RunState.KILLED

    # With the patience that the head node was started with, the driver drains.
    head.submit("second", "resume", run.name)
    child_ends(head, "second", children_ended(killed))
    head.ray("job", "stop", "second")
    assert head.ended("second")["status"] == "STOPPED"
    drained = events_of(head)
    assert drained[: len(killed)] == killed
    assert isinstance(drained[-1], Stopped) and drained[-1].reason == "interrupted"
    state = State.replay(drained)
    assert set(state.pending) <= set(state.mutated), "only what waited for its evaluation is left to a resume"
    assert "vibeserve resume" in head.logs("second")
    until(lambda: not head.of_jobs(), "the end of every server of a drained driver")

    # And a third job ends it, with a budget that one more child uses up.
    wanted = sum(isinstance(event, Proposed) and event.proposal.number > 0 for event in drained) + 1
    head.submit("third", "resume", run.name, "-s", f"budget.children={wanted}")
    over = head.ended("third")
    assert (over["status"], over["driver_exit_code"]) == ("SUCCEEDED", 0), head.logs("third")[-3000:]
    complete(run, drained, events_of(head), wanted)
    lines(head.logs("first") + head.logs("second") + head.logs("third"))
    small(head)
    no_key_is_told(head)


def complete(run: Path, before: list[Event], events: list[Event], wanted: int) -> None:
    """A run folder with everything in it, in which every proposal has ended exactly once."""
    assert events[: len(before)] == before
    assert run_state(events) is RunState.FINISHED
    assert sum(isinstance(event, EpochStarted) for event in events) == 3
    ended = Counter(event.number for event in events if isinstance(event, Ended))
    assert ended == Counter(range(wanted + 1))
    state = State.replay(events)
    for candidate in state.archive.scored:
        assert (run / "children" / candidate / "benchmark.json").is_file()
    for name in ("run.toml", "secret", "target/target.toml", "skills", "ledger", "population.git/HEAD"):
        assert (run / name).exists(), name


def lines(logs: str) -> None:
    """Progress by lines: nothing that moves a cursor or colours, and a line for each thing that happened."""
    assert CONTROL.search(logs) is None
    assert re.search(r"^\[ *\d+\.\ds\] c000000 scored", logs, re.MULTILINE)
    assert re.search(r"^\[ *\d+\.\ds\] c000001 proposed: ", logs, re.MULTILINE)
    assert re.search(r"^\[ *\d+\.\ds\] stopped: interrupted$", logs, re.MULTILINE)
    assert "Front, *measured* during the search" in logs


def small(head: Head) -> None:
    """The package holds what a driver and a worker need, and nothing that was only lying about."""
    assert head.packages
    for package in head.packages:
        assert {path.name for path in package.iterdir()} >= {
            "vibeserve",
            "search",
            "population",
            "evaluators",
            "skills",
        }
        for left_out in (".git", "runs", "benchmarks", "docs", ".venv", ".mypy_cache", ".env"):
            assert not (package / left_out).exists(), left_out
        files = [path for path in package.rglob("*") if path.is_file() and path.suffix != ".pyc"]
        assert sum(path.stat().st_size for path in files) < LARGEST_PACKAGE_BYTES


def no_key_is_told(head: Head) -> None:
    """The node's key reached the node's processes, and nothing that Ray tells or logs."""
    assert NODE_KEY not in head.everything_told()
    logs = [path for path in (head.root / "ray").rglob("logs/**/*") if path.is_file()]
    assert logs
    assert not [path for path in logs if NODE_KEY.encode() in path.read_bytes()]


def test_a_job_that_carries_a_key_or_would_lose_its_runs_is_refused(head: Head) -> None:
    carried = {"env_vars": {"OTHER_API_KEY": "sk-carried-0123", "VIBESERVE_RUNS_DIR": "runs"}}
    head.submit("careless", "run", TOY, "-s", f"skills.dir={TOY}/skills", runtime_env=carried)
    over = head.ended("careless")
    assert (over["status"], over["driver_exit_code"]) == ("FAILED", 3)
    logs = head.logs("careless")
    assert "OTHER_API_KEY looks like a key" in logs and "revoke it" in logs
    assert "runs_dir: expected a folder that outlives the job" in logs and "--runs-dir /shared/runs" in logs
    assert "sk-carried-0123" not in logs


def test_without_the_token_nobody_submits(head: Head) -> None:
    said = head.ray("job", "list", code=1, RAY_AUTH_MODE="disabled")
    assert "Unauthorized" in said and "RAY_AUTH_MODE" in said


@pytest.fixture
def in_a_job(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """This process looks like the driver of a job; its working directory is Ray's copy of the checkout."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps({"runtime_env": {"working_dir": "gcs://p.zip"}}))
    return tmp_path


def test_runs_must_outlive_the_job(in_a_job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_fit(in_a_job.parent / "shared")
    (in_a_job / "link").symlink_to(in_a_job.parent)
    require_fit(in_a_job / "link" / "shared")
    for inside in (in_a_job / "runs", Path("runs"), in_a_job):
        with pytest.raises(ConfigError, match="outlives the job"):
            require_fit(inside)
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps({"runtime_env": {}, "metadata": {}}))
    require_fit(in_a_job / "runs")  # nothing was copied: the folder is the node's own
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR")
    require_fit(in_a_job / "runs")


@pytest.mark.parametrize("where", [{"runtime_env": {"env_vars": {"K_TOKEN": "x1"}}}, {"metadata": {"K_TOKEN": "x1"}}])
def test_every_place_that_ray_tells_is_searched_for_keys(
    where: dict[str, object], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps(where))
    with pytest.raises(ConfigError, match="K_TOKEN looks like a key") as refused:
        require_fit(tmp_path)
    assert "x1" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "value", "secret"),
    [
        ("ANTHROPIC_API_KEY", "abc", True),
        ("OPENAI_APIKEY", "abc", True),
        ("HF_TOKEN", "hf_abc", True),
        ("AWS_SECRET_ACCESS_KEY", "abc", True),
        ("db_password", "abc", True),
        ("ANYTHING", "sk-ant-0123", True),
        ("TOKEN", "abc", True),
        ("ANTHROPIC_API_KEY", "", False),
        ("GOOGLE_APPLICATION_CREDENTIALS", "/etc/keys/gcp.json", False),
        ("TOKENIZERS_PARALLELISM", "false", False),
        ("RAY_AUTH_TOKEN_PATH", "token", False),
        ("RAY_JOB_STOP_WAIT_TIME_S", "600", False),
        ("MONKEY", "banana", False),
        ("ANYTHING", "skeleton", False),
    ],
)
def test_what_looks_like_a_key(name: str, value: str, secret: bool) -> None:
    assert looks_secret(name, value) is secret
