"""Which tier a machine gives, and what a refusal says: every cause with its cure."""

from __future__ import annotations

import errno
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from evaluators import bubblewrap
from evaluators.isolation import FLAG, Facts, choose, facts, why_not_a, why_not_b
from evaluators.launch import CHECKOUT
from evaluators.pipeline import LocalEvaluator
from evaluators.sandbox import Problem
from population.errors import ConfigError, IsolationError

BROKEN = Problem(cause="bubblewrap cannot isolate here: setting up uid map: Permission denied", cure="allow it")
MISSING = Problem(cause="bubblewrap is not installed (no `bwrap` on PATH)", cure="install bubblewrap >= 0.8")
GOOD = Facts(kernel="6.8.0", node="node-1", landlock=4)
NO_A = replace(GOOD, bubblewrap=BROKEN)
NO_B = replace(NO_A, landlock=OSError(errno.ENOSYS, "Function not implemented"), kernel="5.4.0")
MACOS = Facts(system="Darwin", node="laptop", bubblewrap=MISSING, bubblewrap_present=False, landlock=0)


@pytest.mark.parametrize(
    ("given", "allow_reduced", "first_party", "tier"),
    [
        (GOOD, False, False, "A"),
        (GOOD, True, False, "A"),
        (GOOD, True, True, "A"),
        (NO_A, True, False, "B"),
        (NO_A, True, True, "B"),
        (NO_A, False, True, "C"),
        (NO_B, True, True, "C"),
        (MACOS, False, True, "C"),
        (MACOS, True, True, "C"),
        (NO_A, False, False, None),
        (NO_B, False, False, None),
        (NO_B, True, False, None),
        (MACOS, True, False, None),
    ],
)
def test_the_order_of_tiers(given: Facts, allow_reduced: bool, first_party: bool, tier: str | None) -> None:
    if tier is None:
        with pytest.raises(IsolationError):
            choose(allow_reduced, first_party, given)
    else:
        assert choose(allow_reduced, first_party, given).tier == tier


def refusal(given: Facts, allow_reduced: bool = False) -> str:
    with pytest.raises(IsolationError) as refused:
        choose(allow_reduced, False, given)
    assert refused.value.exit_code == ConfigError.exit_code == 3
    return str(refused.value)


@pytest.mark.parametrize(
    ("changes", "cause", "cure"),
    [
        ({"bubblewrap": MISSING, "bubblewrap_present": False}, "not installed", "install bubblewrap >= 0.8"),
        (
            {"bubblewrap": MISSING, "bubblewrap_present": False, "apparmor_restricts_userns": True},
            "not installed",
            "install bubblewrap",
        ),
        ({"apparmor_restricts_userns": True}, "AppArmor", "bwrap-userns-restrict"),
        (
            {"container": True, "seccomp_filtered": True, "apparmor_restricts_userns": True},
            "seccomp profile",
            "--security-opt seccomp=unconfined",
        ),
        ({"userns_clone": False}, "unprivileged_userns_clone is 0", "sysctl -w kernel.unprivileged_userns_clone=1"),
        ({"max_user_namespaces": 0}, "max_user_namespaces is 0", "sysctl -w user.max_user_namespaces="),
        ({}, "setting up uid map", "allow it"),
        ({"system": "Darwin"}, "macOS has neither", "run on Linux"),
    ],
    ids=["missing", "missing, AppArmor", "AppArmor", "Docker", "userns_clone", "max_user_namespaces", "other", "macOS"],
)
def test_a_refusal_names_what_forbids_tier_a_and_what_to_do(changes: dict[str, object], cause: str, cure: str) -> None:
    text = refusal(replace(NO_A, **changes))  # type: ignore[arg-type]
    (line,) = [line for line in text.splitlines() if "tier A" in line]
    assert cause in line and cure in line
    assert "node-1" in text


def test_what_bubblewrap_itself_said_is_kept() -> None:
    assert "setting up uid map: Permission denied" in refusal(replace(NO_A, apparmor_restricts_userns=True))


@pytest.mark.parametrize(
    ("changes", "cause", "cure"),
    [
        ({"landlock": OSError(errno.ENOSYS, ""), "kernel": "5.4.0"}, "kernel 5.4.0 has no Landlock", "5.13 or newer"),
        ({"landlock": OSError(errno.EOPNOTSUPP, "")}, "switched off", "lsm="),
        ({"landlock": OSError(errno.EPERM, "")}, "seccomp profile hides Landlock", "Docker 23.0"),
        ({"architecture": "riscv64"}, "riscv64", "x86_64 or aarch64"),
        ({"system": "Darwin"}, "macOS", "Linux"),
    ],
    ids=["old kernel", "switched off", "Docker", "architecture", "macOS"],
)
def test_a_refusal_names_what_forbids_tier_b(changes: dict[str, object], cause: str, cure: str) -> None:
    for allow_reduced in (False, True):
        text = refusal(replace(NO_A, **changes), allow_reduced)  # type: ignore[arg-type]
        (line,) = [line for line in text.splitlines() if "tier B" in line]
        assert cause in line and cure in line
        assert FLAG not in line  # it would not help


def test_a_refusal_offers_tier_b_only_where_it_would_work() -> None:
    text = refusal(NO_A)
    assert f"add {FLAG}" in text
    assert "checkout's own" in text


@pytest.mark.parametrize(
    ("answer", "cause"),
    [("bubblewrap 0.4.1", "got bubblewrap 0.4.1"), ("", "no version"), (None, "does not run")],
    ids=["old", "silent", "broken"],
)
def test_an_unfit_bubblewrap_is_refused(tmp_path: Path, answer: str | None, cause: str) -> None:
    program = tmp_path / "bwrap"
    program.write_text("#!/bin/sh\nexit 7\n" if answer is None else f"#!/bin/sh\necho {answer}\n")
    program.chmod(0o755)
    problem = bubblewrap.available(str(program))
    assert problem is not None
    assert cause in problem.cause and "bubblewrap >= 0.8" in problem.cure


def test_a_machine_without_bubblewrap_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    problem = bubblewrap.available()
    assert problem is not None and "no `bwrap` on PATH" in problem.cause


def test_this_machine_is_judged_by_trying() -> None:
    found = facts()
    assert found is facts()
    assert (why_not_a(found) is None) == (found.bubblewrap is None)
    sandbox = choose(allow_reduced=True, first_party=True)
    assert sandbox.tier == ("A" if found.bubblewrap is None else "B" if why_not_b(found) is None else "C")
    assert all(isinstance(gap, str) for gap in sandbox.gaps)


def test_evaluators_travel_without_a_choice() -> None:
    """The driver's machine says nothing about the one that evaluates."""
    evaluator = pickle.loads(pickle.dumps(LocalEvaluator(allow_reduced=True)))
    assert isinstance(evaluator, LocalEvaluator)


_LIKE_DOCKER = """
import sys
from pathlib import Path
from evaluators import confine, isolation, seccomp
from evaluators.launch import Launch
from evaluators.sandbox import clean_environment
top = Path(sys.argv[1])
confine._prctl("no_new_privs", confine._PR_SET_NO_NEW_PRIVS, 1)
confine._load_filter(seccomp.program())
isolation._CONTAINER_MARKS = ("/proc",)
print(isolation.why_not_a(isolation.facts()))
try:
    isolation.choose(allow_reduced=False, first_party=False)
except isolation.IsolationError as error:
    print(error)
sandbox = isolation.choose(allow_reduced=True, first_party=False)
env = clean_environment(top / "home")
with sandbox.launch(Launch(command=(sys.executable, "-c", "pass"), workspace=top, env=env, log=top / "log")) as process:
    print("tier", sandbox.tier, "code", process.wait(20), (top / "log").read_text())
"""


@pytest.mark.tier("A")
@pytest.mark.tier("B")
def test_under_a_filter_like_dockers_tier_a_is_refused_and_tier_b_works(tmp_path: Path) -> None:
    """Our own filter stands for it: like Docker's it refuses namespaces and mounts, and it cannot be taken off."""
    done = subprocess.run(
        [sys.executable, "-c", _LIKE_DOCKER, str(tmp_path)],
        capture_output=True, text=True, timeout=60, check=False, env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "seccomp profile forbids namespaces" in done.stdout and "seccomp=unconfined" in done.stdout
    assert f"add {FLAG}" in done.stdout
    assert "tier B code 0" in done.stdout
