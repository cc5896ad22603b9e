"""A server that does not come up, is not the one that answers, or dies, is rejected in words."""

from __future__ import annotations

import json
import os
import signal
import socket
import urllib.request
from collections.abc import Callable

import pytest

from evaluators.server import ServerUnderTest, fill
from population.errors import InfrastructureError
from population.evaluation import Stage
from tests.evaluators.liveness import alive, await_death

Hostile = Callable[..., ServerUnderTest]


def test_ready_and_stopped(hostile: Hostile) -> None:
    with hostile("good") as server:
        assert server.start() is None
        assert server.crash() is None
        pid = server.process.pid
    assert not alive(pid)


def test_environment_is_exactly_the_allow_list(hostile: Hostile, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PYTHONPATH", "RAY_ADDRESS", "OPENAI_API_KEY", "LD_PRELOAD_"):
        monkeypatch.setenv(name, "secret")
    with hostile("good") as server:
        assert server.start() is None
        with urllib.request.urlopen(f"{server.url}/health", timeout=5) as answer:
            seen = set(json.load(answer)["env"])
    assert seen == {
        "PATH", "HOME", "TMPDIR", "LANG", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE", "PYTHONNOUSERSITE",
        "XDG_CACHE_HOME", "HF_HOME", "HF_HUB_OFFLINE", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "CUDA_CACHE_PATH",
        "CUDA_VISIBLE_DEVICES",
        "DECLARED",
    }  # fmt: skip


def test_never_ready(hostile: Hostile) -> None:
    with hostile("never-ready", ready_timeout_s=0.6) as server:
        rejected = server.start()
        assert rejected is not None
        assert rejected.stage is Stage.BOOT
        assert "not ready within 0.6 s" in rejected.reason
        assert "connection refused" in rejected.reason
        assert "loading weights" in rejected.evidence


def test_exits_at_once_keeps_the_last_20_lines(hostile: Hostile) -> None:
    with hostile("exits") as server:
        rejected = server.start()
    assert rejected is not None
    assert rejected.stage is Stage.BOOT
    assert "exit code 1" in rejected.reason
    assert "no kernel image" in rejected.evidence
    assert "line 21" in rejected.evidence
    assert "line 20\n" not in rejected.evidence
    assert "\x1b" not in rejected.evidence


def test_garbage_instead_of_http(hostile: Hostile) -> None:
    with hostile("garbage", ready_timeout_s=0.6) as server:
        rejected = server.start()
    assert rejected is not None
    assert "something that is not HTTP" in rejected.reason


def test_port_taken_is_not_the_candidates_fault(hostile: Hostile) -> None:
    with socket.create_server(("127.0.0.1", 0)) as squatter:
        port = squatter.getsockname()[1]
        with (
            hostile("good", port=port) as server,
            pytest.raises(InfrastructureError, match=f"port {port}.*taken by another"),
        ):
            server.start()


def test_a_foreign_server_on_the_port_is_not_believed(hostile: Hostile) -> None:
    with hostile("good") as other:
        assert other.start() is None
        port = int(other.url.rpartition(":")[2])
        with hostile("never-ready", port=port) as server, pytest.raises(InfrastructureError, match="taken by another"):
            server.start()


def test_crash_is_seen(hostile: Hostile) -> None:
    with hostile("good") as server:
        assert server.start() is None
        os.kill(server.process.pid, signal.SIGKILL)
        assert server.process.wait(5) == -signal.SIGKILL
        crash = server.crash()
    assert crash is not None
    assert crash.stage is Stage.BENCHMARK
    assert "signal 9" in crash.reason


def test_daemon_is_dead_after(hostile: Hostile) -> None:
    with hostile("daemon") as server:
        assert server.start() is None
        daemon = int(server.process.log_tail().split()[1])
        assert alive(daemon)
    assert not alive(daemon)


def test_stubborn_server_is_killed_without_grace_on_an_exception(hostile: Hostile) -> None:
    server = hostile("stubborn", grace_s=60)

    def interrupted() -> None:
        with server:
            assert server.start() is None
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    await_death(server.process.pid, timeout_s=1)


def test_log_bomb_is_bounded(hostile: Hostile) -> None:
    with hostile("log-bomb") as server:
        assert server.start() is None
        assert "last words" in server.process.log_tail()
    assert server.process.log.stat().st_size < 1_100_000
    assert server.process.log.read_text().startswith("first words")


def test_fill_leaves_other_braces_alone() -> None:
    assert fill(("{python}", '{"a": "{port}"}'), {"python": "py", "port": "1"}) == ("py", '{"a": "1"}')
