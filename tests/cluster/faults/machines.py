"""A Ray cluster of this machine's processes, made to be broken: every node can be killed, stopped and replaced.

The head holds no evaluation, as on a real cluster; the other nodes hold one per CPU and know their name.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.faults.ground import GROUND_VARIABLE, NODE_VARIABLE, born

_DETECTION = {
    # A stopped raylet is given up after about five seconds, one that is merely slow on a busy machine is not.
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 1500,
    "health_check_failure_threshold": 3,
    # Drivers and workers give a head up that does not answer; Ray's own default is a minute.
    "gcs_rpc_server_reconnect_timeout_s": 5,
}


class Machines:
    """The cluster. Ends with everything it consists of in `close`."""

    def __init__(self, ground: Path, names: tuple[str, ...] = ("a", "b"), cpus: int = 1) -> None:
        from ray.cluster_utils import Cluster

        self._ground, self._cpus, self._patch = ground, cpus, pytest.MonkeyPatch()
        self._patch.setenv("RAY_AUTH_MODE", "disabled")  # loopback only
        self._patch.setenv("PYTHONPATH", os.getcwd())
        self._patch.setenv("RAY_worker_niceness", "0")
        self._temp = tempfile.mkdtemp(prefix="vs-", dir="/tmp")  # socket paths must be short
        self._nodes: dict[str, Any] = {}
        head = {"num_cpus": 0, "include_dashboard": False, "temp_dir": self._temp, "_system_config": _DETECTION}
        self._cluster = Cluster(initialize_head=True, head_node_args=head | self._environment("head"))
        for name in names:
            self.add(name)

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def add(self, name: str) -> None:
        """A node of that name joins."""
        self._nodes[name] = self._cluster.add_node(num_cpus=self._cpus, **self._environment(name))

    def kill(self, name: str) -> None:
        """SIGKILL to everything that Ray started the node with; its workers lose their raylet."""
        self._cluster.remove_node(self._nodes.pop(name), allow_graceful=False)

    def kill_head(self) -> None:
        """The head with the cluster's memory (GCS), and after it the nodes that are left without one."""
        self._cluster.remove_node(self._cluster.head_node, allow_graceful=False)

    def raylet(self, name: str) -> int:
        """The process id of a node's raylet."""
        return int(self._nodes[name].all_processes["raylet"][0].process.pid)

    def split(self, name: str) -> None:
        """The node no longer answers anybody, although everything on it goes on."""
        os.kill(self.raylet(name), signal.SIGSTOP)

    def heal(self, name: str) -> None:
        """The node answers again."""
        os.kill(self.raylet(name), signal.SIGCONT)

    def restore(self, names: tuple[str, ...] = ("a", "b")) -> None:
        """Exactly these nodes, whatever a test has left."""
        for name in tuple(self._nodes):
            if name not in names or born(self.raylet(name)) is None or _stopped(self.raylet(name)):
                self.kill(name)
        for name in names:
            if name not in self._nodes:
                self.add(name)

    def close(self) -> None:
        self._cluster.shutdown()
        self._patch.undo()
        shutil.rmtree(self._temp, ignore_errors=True)

    def _environment(self, name: str) -> dict[str, Any]:
        own = {"XDG_CACHE_HOME": str(self._ground / f"cache-{name}"), "TMPDIR": str(self._ground / f"tmp-{name}")}
        for folder in own.values():
            Path(folder).mkdir(exist_ok=True)
        return {"env_vars": {NODE_VARIABLE: name, GROUND_VARIABLE: str(self._ground), **own}}


def _stopped(pid: int) -> bool:
    """Whether a signal holds the process: a test has split its node off, and failed before it healed it."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
