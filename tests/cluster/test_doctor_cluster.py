"""`vibeserve doctor --cluster`: what is known of every node, what is wrong with it first, and the cure."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator
from dataclasses import replace
from io import StringIO

import pytest
import ray
from rich.console import Console
from typer.testing import CliRunner

from evaluators.hostile.findings import Probe
from evaluators.node import Check, NodeReport
from tests.cluster.racks import Racks
from vibeserve.cli import app
from vibeserve.cluster.census import NodeState, Skew, diagnose, kinds_apart
from vibeserve.cluster.selectors import ACCELERATOR_LABEL, Node
from vibeserve.cluster_view import cluster_row, show_cluster
from vibeserve.node_facts import TOOLS, NodeFacts

NODE = Node(id="1", name="gpu-1", cpus=8, gpus=1, labels={ACCELERATOR_LABEL: "H200"})
REPORT = NodeReport(node="gpu-1", tier="A", checks=(), probe=Probe(tier="A", gaps=(), findings=(), seconds=1.0))
FACTS = NodeFacts(
    python=platform.python_version(),
    ray=ray.__version__,
    cpus=8,
    memory_gb=64.0,
    disk_free_gb=100.0,
    disk_place="/tmp",
    gpus=("NVIDIA H200, 143771 MiB",),
    tools={"git": "/usr/bin/git", "nsys": None},
    git=Check(name="git", ok=True, detail="2.40"),
    fingerprint={"GPU": "NVIDIA H200"},
    report=REPORT,
)
FINE = Skew(ahead_ms=1.0, error_ms=2.0)


def test_a_node_as_it_should_be_has_no_problem() -> None:
    assert diagnose(NODE, FACTS, FINE) == []


@pytest.mark.parametrize(
    ("node", "facts", "skew", "cause", "cure"),
    [
        (replace(NODE, labels={}), FACTS, FINE, "no label", "ray start --labels"),
        (NODE, FACTS, Skew(ahead_ms=-2000, error_ms=3), "clock is -2000 ms", "chrony"),
        (NODE, replace(FACTS, ray="2.9.0"), FINE, "Ray 2.9.0", "same version"),
        (NODE, replace(FACTS, python="3.9.1"), FINE, "Python 3.9.1", "same Python"),
        (NODE, replace(FACTS, disk_free_gb=0.5), FINE, "0.5 GB free for /tmp", "TMPDIR"),
        (NODE, replace(FACTS, gpus=()), FINE, "told of 1 GPUs, but nvidia-smi lists 0", "nvidia-smi"),
        (NODE, replace(FACTS, git=replace(FACTS.git, ok=False, cure="install it")), FINE, "git: 2.40", "install it"),
        (
            NODE,
            replace(FACTS, report=replace(REPORT, probe=None, trouble="no")),
            FINE,
            "does not hold: no",
            "--verbose",
        ),
    ],
)
def test_each_defect_is_named_with_its_cure(node: Node, facts: NodeFacts, skew: Skew, cause: str, cure: str) -> None:
    (problem,) = diagnose(node, facts, skew)
    assert cause in problem.cause
    assert cure in problem.cure


def test_a_clock_that_may_be_right_is_no_problem() -> None:
    assert diagnose(NODE, FACTS, Skew(ahead_ms=900, error_ms=500)) == []


def test_gpu_nodes_of_several_kinds_are_told_apart() -> None:
    def state(name: str, gpu: str, **changes: object) -> NodeState:
        node = replace(NODE, name=name, **changes)  # type: ignore[arg-type]
        return NodeState(node=node, facts=replace(FACTS, fingerprint={"GPU": gpu}), skew=FINE, problems=())

    assert kinds_apart([state("a", "H200"), state("b", "H200")]) is None
    assert kinds_apart([state("a", "H200"), state("cpu", "none", gpus=0.0)]) is None
    assert kinds_apart([state("a", "H200"), state("b", "H100")]) == "GPU nodes differ from a: b has GPU H100, not H200"


def test_problems_come_before_the_table() -> None:
    problems = tuple(diagnose(NODE, replace(FACTS, disk_free_gb=0.5), FINE))
    out = Console(file=StringIO(), width=250)
    state = NodeState(node=NODE, facts=FACTS, skew=FINE, problems=problems)
    silent = NodeState(node=replace(NODE, name="gpu-2"), facts=None, skew=None, problems=problems)
    show_cluster([state, silent], "they differ", out)
    assert isinstance(out.file, StringIO)
    text = out.file.getvalue()
    assert text.index("gpu-1: 0.5 GB free") < text.index("they differ") < text.index("disk free")
    row = next(line for line in text.splitlines() if line.startswith("problem") and "gpu-1" in line)
    assert all(part in row for part in ("1 × H200", "8 of 8", "64 GB", "100 GB", "+1.0 ± 2.0 ms", "git"))
    assert "nsys" not in row
    assert cluster_row(silent)["problems"][0]["cure"]


@pytest.fixture(scope="module")
def racks() -> Iterator[Racks]:
    """A head, and a node that pretends to more GPUs than there are in any machine."""
    racks = Racks()
    try:
        racks.add("a", gpus=99)
        yield racks
    finally:
        racks.close()


def test_the_doctor_visits_every_node(racks: Racks) -> None:
    done = CliRunner().invoke(app, ["doctor", "--cluster", racks.address, "--json"])
    assert done.exit_code == 1, done.output
    value = json.loads(done.stdout.strip().splitlines()[-1])
    broken, head = value["nodes"]
    assert (head["head"], head["ray_gpus"], head["problems"]) == (True, 0, [])
    assert broken["labels"]["name"] == "a"
    assert "nvidia-smi lists" in broken["problems"][0]["cause"]
    for node in (broken, head):
        assert node["attacks"] >= 31
        assert node["tier"] in ("A", "B", "C")
        assert node["ray"] == ray.__version__
        assert set(node["tools"]) == set(TOOLS) and node["tools"]["git"]
        assert node["disk_free_gb"] > 0 and node["memory_gb"] > 0 and node["cpus"] >= 1
        # All nodes are this machine, so whatever the error says must cover the difference.
        assert abs(node["clock_ms"]["ahead"]) <= node["clock_ms"]["error"] + 1.0
    assert "problem" in done.output
