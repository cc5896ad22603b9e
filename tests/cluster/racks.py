"""A Ray cluster of this machine's processes whose nodes pretend to have GPUs, and to be of different hardware."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from vibeserve.cluster import connection, nodes
from vibeserve.cluster.selectors import ACCELERATOR_LABEL

DEADLINE_S = 90.0
_DETECTION = {
    # A node that was killed refuses at once, and is given up after less than two seconds; one that is slow has fifteen.
    "health_check_initial_delay_ms": 300,
    "health_check_period_ms": 300,
    "health_check_timeout_ms": 3000,
    "health_check_failure_threshold": 5,
}


class Racks:
    """The cluster; its head holds no evaluation. Ends with everything it consists of in `close`."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self._patch = pytest.MonkeyPatch()
        self._patch.setenv("RAY_AUTH_MODE", "disabled")  # loopback only
        self._patch.setenv("PYTHONPATH", os.getcwd())
        # As in a job: the checkout is there already, so that no worker waits until one was shipped and unpacked.
        self._patch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
        self._temp = tempfile.mkdtemp(prefix="vs-", dir="/tmp")  # socket paths must be short
        head = {"num_cpus": 0, "include_dashboard": False, "temp_dir": self._temp, "_system_config": _DETECTION}
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self._nodes: dict[str, Any] = {}

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def add(self, name: str, *, cpus: int = 2, gpus: int = 0, kind: str = "H200", power_w: int = 700) -> None:
        """A node joins, with so many GPUs of this kind; `named` and `identify` tell it from others."""
        labels = {"name": name, "power": str(power_w), **({ACCELERATOR_LABEL: kind} if gpus else {})}
        resources = {f"accelerator_type:{kind}": 1} if gpus else {}
        self._nodes[name] = self._cluster.add_node(num_cpus=cpus, num_gpus=gpus, labels=labels, resources=resources)

    def remove(self, name: str) -> None:
        self._cluster.remove_node(self._nodes.pop(name), allow_graceful=False)

    def clear(self) -> None:
        """Only the head is left; connected."""
        for name in list(self._nodes):
            self.remove(name)
        until("no node but the head", lambda: all(node.is_head for node in nodes.roster()))

    def drain(self, name: str) -> None:
        """What the autoscaler tells the cluster before it ends a machine; connected."""
        from ray._raylet import GcsClient
        from ray.core.generated.autoscaler_pb2 import DrainNodeReason

        preempted = DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
        accepted, why = GcsClient(address=self.address).drain_node(self._nodes[name].node_id, preempted, "a test", 0)
        assert accepted, why

    def close(self) -> None:
        connection.disconnect()
        self._cluster.shutdown()
        shutil.rmtree(self._temp, ignore_errors=True)
        self._patch.undo()


def identify(gpus: Sequence[str] | None) -> dict[str, str]:
    """What a node of `Racks` says of its hardware; elsewhere there is but one kind."""
    import ray

    found = {"CPU": "a CPU"}
    if gpus is None or gpus:
        labels = ray.get_runtime_context().get_node_labels()
        found |= {"GPU": labels[ACCELERATOR_LABEL], "GPU power limit": f"{labels['power']} W"}
    return found


def names(ids: Sequence[str] | frozenset[str]) -> list[str]:
    """Nodes of `Racks` by the names that they were added with."""
    known = {node.id: node.labels.get("name", "head") for node in nodes.roster()}
    return sorted(known[each] for each in ids)


def until(what: str, condition: Callable[[], bool]) -> None:
    """Wait for a condition that is certain to come."""
    deadline_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline_s, f"expected {what} within {DEADLINE_S:.0f} s"
        time.sleep(0.05)
