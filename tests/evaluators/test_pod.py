"""The pod: loopback only, shared by one evaluation's server and clients, closed to others, gone with its owner."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from evaluators.bubblewrap import BubblewrapSandbox
from evaluators.command import TrustedCommand, run_trusted
from evaluators.launch import Launch
from evaluators.load.endpoint import Endpoint
from evaluators.load.session import ClientOptions, LoadSession
from evaluators.load.workload import Load
from evaluators.pod import STOCK, Pod, PodConnection
from evaluators.process import RunningProcess
from evaluators.sandbox import clean_environment
from evaluators.server import ServerCommand, ServerUnderTest, probe_http
from evaluators.target_schema import ServerTable
from population.errors import InfrastructureError
from tests.evaluators.liveness import alive, await_death

pytestmark = pytest.mark.tier("A")

ROOT = Path(__file__).parents[2]
SERVER = ROOT / "tests" / "evaluators" / "servers" / "hostile.py"


@pytest.fixture
def pod() -> Iterator[Pod]:
    with Pod() as made:
        yield made


@pytest.fixture
def server(pod: Pod, tmp_path: Path) -> Iterator[ServerUnderTest]:
    """A real server in tier A, inside the pod."""
    (tmp_path / "workspace").mkdir()
    command = ServerCommand(
        table=ServerTable(command=("{python}", str(SERVER), "good", "{port}"), ready_timeout_s=10, stop_grace_s=0.3),
        workspace=tmp_path / "workspace", log=tmp_path / "server.log", env=clean_environment(tmp_path / "home"),
        placeholders={"python": sys.executable}, readable=(SERVER.parent,),
    )  # fmt: skip
    with ServerUnderTest(command, BubblewrapSandbox(), pod=pod) as started:
        assert started.start() is None
        yield started


def port_of(server: ServerUnderTest) -> int:
    return int(server.url.rpartition(":")[2])


def test_our_process_reaches_the_server_and_the_host_does_not(server: ServerUnderTest, pod: Pod) -> None:
    port = port_of(server)
    assert probe_http(port, "/health", 2.0, pod) == "ready"
    assert probe_http(port, "/health", 2.0) == "connection refused"


def test_a_trusted_command_runs_in_the_pod_and_does_not_see_the_tree(
    server: ServerUnderTest, pod: Pod, tmp_path: Path
) -> None:
    script = tmp_path / "check.py"
    script.write_text(
        "import os, sys, urllib.request\n"
        "with urllib.request.urlopen(sys.argv[1] + '/health', timeout=5) as answer: assert answer.status == 200\n"
        "print(sorted(os.listdir(sys.argv[2])), [name for _, name in __import__('socket').if_nameindex()])\n"
    )
    (tmp_path / "workspace" / "planted.py").write_text("")
    command = TrustedCommand(
        table="accuracy", command=("{python}", str(script), "{url}", str(tmp_path / "workspace")), folder=tmp_path,
        timeout_s=20, log=tmp_path / "check.log", home=tmp_path / "trusted", cpus=(), gpus=(), pod=pod,
        hidden=(tmp_path / "workspace",),
    )  # fmt: skip
    outcome = run_trusted(command, {"url": server.url})
    assert (outcome.code, outcome.output.strip()) == (0, "[] ['lo']"), outcome


@pytest.mark.parametrize("processes", [1, 2])
def test_the_load_generator_works_from_inside(server: ServerUnderTest, pod: Pod, processes: int) -> None:
    """The hostile server's answers are no completions: what counts is that every request reached it."""
    endpoint = Endpoint(url=server.url, model="toy", prompt_ids=(1, 30))
    load = Load(name="small", kind="closed", concurrency=2, num_requests=6, input_tokens=(4, 4), output_tokens=(2, 2))
    options = ClientOptions(processes=processes, pod=pod)
    with LoadSession(endpoint, (load,), options) as session:
        responses = session.run(load, 1, 2).responses
    assert len(responses) == 6
    assert not [response for response in responses if "refused" in str(response)]


def test_two_pods_do_not_meet(pod: Pod) -> None:
    with Pod() as other, pod.socket() as listening, other.socket() as calling, pod.socket() as neighbour:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        address = listening.getsockname()
        with pytest.raises(ConnectionRefusedError):
            calling.connect(address)
        neighbour.connect(address)


def test_nothing_but_loopback(pod: Pod) -> None:
    with pod.socket() as outside, pytest.raises(OSError, match="unreachable"):
        outside.connect(("192.0.2.1", 80))


def test_sockets_come_from_many_threads(pod: Pod) -> None:
    made: list[socket.socket] = []
    threads = [threading.Thread(target=lambda: made.append(pod.socket())) for _ in range(2 * STOCK)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({each.fileno() for each in made}) == 2 * STOCK
    for each in made:
        each.close()


def test_a_dripping_answer_does_not_extend_the_deadline(pod: Pod) -> None:
    with pod.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        done = threading.Event()

        def drip() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.sendall(b"HTTP/1.0 200 OK\r\n")
                while not done.wait(0.05):
                    connection.sendall(b"x")

        thread = threading.Thread(target=drip)
        thread.start()
        began = time.monotonic()
        connection = PodConnection("127.0.0.1", listening.getsockname()[1], 0.4, pod)
        try:
            connection.request("GET", "/")
            with pytest.raises((TimeoutError, http.client.HTTPException)):
                connection.getresponse().read()
            assert time.monotonic() - began < 2
        finally:
            connection.close()
            done.set()
            thread.join()


def test_a_dead_holder_is_the_machines_fault(pod: Pod) -> None:
    holder = pod.holder_pid
    os.kill(holder, signal.SIGKILL)
    with pytest.raises(InfrastructureError, match="holder"):
        pod.socket()


def test_a_command_for_a_pod_that_is_gone_is_the_machines_fault(tmp_path: Path) -> None:
    with Pod() as gone:
        holder = gone.holder_pid
    launch = Launch(command=("true",), workspace=tmp_path, env={}, log=tmp_path / "log", pod=holder)
    with pytest.raises(InfrastructureError, match="the pod is gone"):
        RunningProcess(launch)


def test_the_holder_dies_with_its_owner() -> None:
    script = (
        f"import sys, time; sys.path.insert(0, {str(ROOT)!r})\n"
        "from evaluators.pod import Pod; pod = Pod(); print(pod.holder_pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        holder = int(owner.stdout.readline())
        assert alive(holder)
        owner.kill()
    await_death(holder, timeout_s=2)
