"""A model's children on a Ray cluster: the key is read on the node, and travels nowhere."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from population.ledger import read_events
from population.replay import State
from tests.agents.endpoint import KEY, serving
from tests.agents.test_search import ALONE, CHILDREN, Improver, everything_below
from tests.agents.wire import Chat
from tests.vibeserve.recorded import RecordedEvaluator, toy_config
from vibeserve.agents.mutator import AgentMutator
from vibeserve.agents.options import AgentOptions
from vibeserve.display import SilentDisplay
from vibeserve.wiring import Parts, run

pytestmark = pytest.mark.tier("A")


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A node of two CPUs on this machine, whose workers find the key in their environment."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # loopback only
    monkeypatch.setenv("PYTHONPATH", os.getcwd())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("A_KEY", KEY)
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    nodes.wait_for_nodes()
    yield nodes
    nodes.shutdown()


def test_children_are_made_on_workers_and_ray_learns_no_key(cluster: Any, tmp_path: Path) -> None:
    wire = Chat()
    with serving(Improver(wire), repeat=True) as endpoint:
        options = (
            *ALONE, "agents.provider=openai-chat", "agents.model=a-model", "agents.key_env=A_KEY",
            f"agents.base_url={endpoint.url}/v1", f"cluster.address={cluster.address}",
        )  # fmt: skip
        config = toy_config(tmp_path / "runs", *options, executor="ray")
        run_dir = run(config, SilentDisplay(), Parts(evaluator=RecordedEvaluator())).run_dir
    state = State.replay(read_events(run_dir / "ledger"))
    assert len(state.archive.scored) == CHILDREN + 1
    assert state.spent["implementer", "a-model"].requests == 3 * CHILDREN
    session = Path(cluster.head_node.get_session_dir_path())
    places = [*everything_below(tmp_path), *everything_below(session / "logs")]
    assert len(places) > 20
    assert not [path for path, data in places if KEY.encode() in data]


def test_an_agent_travels_without_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", KEY)
    agent = AgentMutator(options=AgentOptions(provider="anthropic", model="m", key_env="A_KEY"))
    assert KEY.encode() not in pickle.dumps(agent)
