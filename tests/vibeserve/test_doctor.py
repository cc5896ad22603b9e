"""`vibeserve doctor`: a node whose isolation does not keep its promise is seen, named and not ok."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from evaluators.hostile.findings import Finding, Outcome, Probe
from evaluators.node import Check, NodeReport
from evaluators.sandbox import Problem, Tier
from vibeserve.cli import app
from vibeserve.commands.machine import node_row, show_nodes


def report(tier: Tier, *through: str, better: Problem | None = None) -> NodeReport:
    """A node with four attacks, of which one does not apply and these come through."""
    names = ("read-home", "stat-secret", "leave-daemon")
    found = [
        Finding(
            name=name,
            tries=f"Tries {name}",
            outcome=Outcome.LET_THROUGH if name in through else Outcome.BLOCKED,
            detail="how it ended",
        )
        for name in names
    ]
    absent = Finding(name="bpf", tries="Loads", outcome=Outcome.NOT_APPLICABLE, detail="this kernel has no bpf")
    probe = Probe(tier=tier, gaps=("a gap",) if tier == "B" else (), findings=(*found, absent), seconds=1.0)
    checks = (Check(name="cpus", ok=True, detail="2 usable"),)
    return NodeReport(node=f"node-{tier.lower()}", tier=tier, checks=checks, probe=probe, better=better)


def shown(*reports: NodeReport, verbose: bool = False) -> str:
    out = Console(file=StringIO(), width=200)
    show_nodes(list(reports), verbose, out)
    assert isinstance(out.file, StringIO)
    return out.file.getvalue()


def test_what_a_tier_may_let_through_is_ok() -> None:
    assert report("A").ok
    assert report("B", "stat-secret").ok
    assert report("C", "read-home", "stat-secret").ok


def test_a_broken_promise_is_not_ok_and_named() -> None:
    for broken in (report("A", "stat-secret"), report("B", "read-home"), report("C", "leave-daemon")):
        assert not broken.ok
        name = broken.probe.unexpected[0] if broken.probe else ""
        assert f"{broken.node} lets {name} through: Tries {name}; how it ended" in shown(broken)


def test_a_node_that_could_not_be_attacked_is_not_ok() -> None:
    silent = NodeReport(node="n", tier="A", checks=(), probe=None, trouble="no Python in there")
    assert not silent.ok
    assert "n could not be attacked: no Python in there" in shown(silent)
    assert node_row(silent, verbose=False)["trouble"] == "no Python in there"


def test_the_summary_counts_only_what_was_carried_out() -> None:
    row = node_row(report("B", "stat-secret"), verbose=False)
    assert (row["node"], row["tier"], row["attacks"], row["let_through"]) == ("node-b", "B", 3, ("stat-secret",))
    assert row["not_applicable"] == ("bpf",)
    line = next(line for line in shown(report("B", "stat-secret")).splitlines() if "node-b" in line)
    assert line.split() == ["ok", "node-b", "B", "3", "2", "1", "1"]


def test_less_than_tier_a_says_why_and_what_it_leaves_open() -> None:
    problem = Problem(cause="bubblewrap is missing", cure="install it")
    text = shown(report("C", better=problem))
    assert "node-c has no tier A: bubblewrap is missing. install it." in text
    assert "refused" in text
    assert "node-b leaves open: a gap" in shown(report("B"))
    assert node_row(report("C", better=problem), verbose=False)["no_tier_a"]["cure"] == "install it"


def test_verbose_shows_every_attack_with_the_reason_of_an_exception() -> None:
    text = shown(report("B", "stat-secret"), verbose=True)
    assert "how it ended (Landlock does not cover metadata" in text
    assert all(name in text for name in ("read-home", "leave-daemon", "bpf", "not applicable", "expected"))
    rows = node_row(report("B"), verbose=True)["findings"]
    assert [row["name"] for row in rows] == ["read-home", "stat-secret", "leave-daemon", "bpf"]


def test_doctor_attacks_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["doctor", "--json"])
    value = json.loads(done.stdout.strip().splitlines()[-1])
    names = {check["name"] for check in value["checks"]}
    assert {"python", "ray", "git", "bubblewrap", "py-spy", "cpus", "gpus", "disk", "ray tokens"} <= names
    assert all(check["cure"] for check in value["checks"] if not check["ok"])
    (node,) = value["nodes"]
    assert node["attacks"] >= 31
    assert node["unexpected"] == []
    assert node["tier"] == "A" or node["no_tier_a"]["cure"]
    assert done.exit_code == (0 if value["ok"] else 1)
