"""Which nodes match a demand, and what a user is told where none does."""

from __future__ import annotations

import pytest

from vibeserve.cluster.selectors import ACCELERATOR_LABEL, Demand, Node, accepts, fits, shortfall

HEAD = Node(id="0", name="head", cpus=0, gpus=0, resources={"node:__internal_head__": 1.0})
H100 = Node(id="1", name="gpu-1", cpus=8, gpus=4, labels={ACCELERATOR_LABEL: "H100"})
BARE = Node(id="2", name="gpu-2", cpus=8, gpus=8, resources={"accelerator_type:H200": 1.0})


@pytest.mark.parametrize(
    ("selector", "value", "expected"),
    [
        ("a", "a", True),
        ("a", "b", False),
        ("a", None, False),
        ("!a", "b", True),
        ("!a", "a", False),
        ("!a", None, True),
        ("in(a, b)", "b", True),
        ("in(a,b)", "c", False),
        ("in(a,b)", None, False),
        ("!in(a,b)", "a", False),
        ("!in(a,b)", None, True),
    ],
)
def test_selectors_mean_what_they_mean_to_ray(selector: str, value: str | None, expected: bool) -> None:
    assert accepts(selector, value) is expected


def test_a_node_holds_what_its_scarcest_resource_allows() -> None:
    assert fits(H100, Demand(cpus=4, gpus=1)) == 2
    assert fits(H100, Demand(cpus=1, gpus=2)) == 2
    assert fits(H100, Demand(cpus=1, gpus=1, labels={ACCELERATOR_LABEL: "H200"})) == 0
    assert fits(HEAD, Demand(cpus=1)) == 0


def test_each_node_is_told_what_it_lacks() -> None:
    text = shortfall([HEAD, H100, BARE], Demand(cpus=16, gpus=8, labels={ACCELERATOR_LABEL: "H200"}))
    assert "expected a node with 8 GPUs, 16 CPUs and ray.io/accelerator-type=H200" in text
    lines = {line.split(":")[0].strip(): line for line in text.splitlines()}
    assert "0 of 8 GPUs; 0 of 16 CPUs; no label" in lines["head (head)"]
    assert lines["gpu-1"].endswith("4 of 8 GPUs; 8 of 16 CPUs; ray.io/accelerator-type is H100")
    assert "GPUs" not in lines["gpu-2"]
    assert "ray start --labels=ray.io/accelerator-type=H200" in lines["gpu-2"]


@pytest.mark.parametrize("asked", ["h100", "NVIDIA H100", "H-100", "in(h100,A100)"])
def test_a_near_miss_is_offered(asked: str) -> None:
    assert "did you mean ray.io/accelerator-type=H100?" in shortfall(
        [H100], Demand(cpus=1, labels={ACCELERATOR_LABEL: asked})
    )


def test_nothing_is_offered_that_is_not_meant() -> None:
    assert "did you mean" not in shortfall([H100], Demand(cpus=1, gpus=16, labels={ACCELERATOR_LABEL: "H100"}))
    assert "did you mean" not in shortfall([H100], Demand(cpus=1, labels={ACCELERATOR_LABEL: "TPU-V5"}))
    text = shortfall([H100], Demand(cpus=1, labels={"ray.io/accelerator_type": "H100"}))
    assert "no node has a label ray.io/accelerator_type; did you mean ray.io/accelerator-type?" in text


def test_a_node_that_leaves_says_so() -> None:
    leaving = Node(id="3", name="gpu-3", cpus=8, gpus=8, draining=True)
    assert "gpu-3: it is draining" in shortfall([leaving], Demand(cpus=1, gpus=1))
