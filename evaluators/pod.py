"""Decides how our own process talks inside a pod: the network that one evaluation's server and clients share.

A socket belongs to the namespace in which it was created. The pod's holder creates sockets inside and passes them to
us, so that our client stays in this process and nothing is relayed.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from population.errors import InfrastructureError

CHECKOUT = Path(__file__).resolve().parent.parent
STOCK = 32
"""Sockets fetched at a time: a fetch costs two context switches, which no timed request should pay alone."""
_START_TIMEOUT_S = 20.0
_HOLD = "import sys; sys.path.append(sys.argv[1]); from evaluators.pod_holder import main; main()"
_ENTER = (
    "import os, sys; sys.path.append(sys.argv[1]); from evaluators.birth import enter_pod; "
    "enter_pod(int(sys.argv[2])); os.execvp(sys.argv[3], sys.argv[3:])"
)
_FETCH_TIMEOUT_S = 10.0

SocketFactory = Callable[[Any], socket.socket]
"""Address information → an unconnected TCP socket; what aiohttp takes."""


class Pod:
    """A network namespace with loopback only. A context manager; its holder dies with it, and with this process."""

    def __init__(self) -> None:
        """Starts the holder and does not wait for it.

        Raises:
            InfrastructureError: no process can be started.
        """
        self._lock = threading.Lock()
        self._stock: list[int] = []
        self._holder_pid: int | None = None
        self._control, theirs = socket.socketpair()
        self._control.settimeout(_START_TIMEOUT_S)
        try:
            self._holder = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _HOLD, str(CHECKOUT)],
                stdin=theirs.fileno(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={}, cwd="/",
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            self._control.close()
            raise InfrastructureError(f"cannot start the pod's holder: {error}") from error
        finally:
            theirs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def holder_pid(self) -> int:
        """A process inside; whoever joins the pod enters its namespaces.

        Raises:
            InfrastructureError: the machine does not let us make a network namespace.
        """
        with self._lock:
            return self._ready()

    @property
    def entrance(self) -> tuple[str, ...]:
        """Put before a command line, it makes the command run in the pod."""
        return (sys.executable, "-I", "-S", "-c", _ENTER, str(CHECKOUT), str(self.holder_pid))

    def socket(self) -> socket.socket:
        """An unconnected TCP socket (IPv4) that belongs to the pod. Safe to call from any thread.

        Raises:
            InfrastructureError: the holder is gone.
        """
        with self._lock:
            if not self._stock:
                self._fetch()
            return socket.socket(fileno=self._stock.pop())

    def close(self) -> None:
        """End the holder and close what was not used; idempotent."""
        self._control.close()
        with self._lock:
            while self._stock:
                socket.close(self._stock.pop())
        self._holder.kill()
        self._holder.wait()

    def _ready(self) -> int:
        if self._holder_pid is None:
            answer = b""
            with contextlib.suppress(OSError):
                while not answer.endswith((b"}", b"\n")) and (chunk := self._control.recv(4096)):
                    answer += chunk
            status = json.loads(answer or '{"failed": "it did not answer"}')
            if "ready" not in status:
                raise InfrastructureError(f"cannot make a network namespace: {status['failed']}")
            self._holder_pid = int(status["ready"])
            self._control.settimeout(_FETCH_TIMEOUT_S)
        return self._holder_pid

    def _fetch(self) -> None:
        self._ready()
        try:
            self._control.send(bytes([STOCK]))
            message, descriptors, _, _ = socket.recv_fds(self._control, 1, STOCK, socket.MSG_CMSG_CLOEXEC)
        except OSError as error:
            raise InfrastructureError(f"the pod's holder does not hand out sockets: {error}") from error
        self._stock = descriptors
        if not message or not descriptors:
            raise InfrastructureError("the pod's holder is gone; out of memory?")


def socket_factory(pod: Pod | None) -> SocketFactory | None:
    """For aiohttp's TCPConnector: the pod's sockets, or None for the host's own."""
    return None if pod is None else lambda _address: pod.socket()


class PodConnection(http.client.HTTPConnection):
    """An HTTP connection to a server inside `pod`; the host's network where `pod` is None.

    `timeout_s` counts from the connection to the end of the answer, however it drips.
    """

    def __init__(self, host: str, port: int | None, timeout_s: float, pod: Pod | None) -> None:
        super().__init__(host, port, timeout=timeout_s)
        self._pod = pod
        self._timeout_s = timeout_s

    def connect(self) -> None:
        """As in the base class, but with a socket of the pod."""
        deadline_s = time.monotonic() + self._timeout_s
        if self._pod is None:
            super().connect()
        else:
            self.sock = self._pod.socket()
            self.sock.settimeout(self.timeout)
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.sock.connect((self.host, self.port))
        self.sock = _PatientUntil(deadline_s, self.sock.detach())


class _PatientUntil(socket.socket):
    """A connected socket that reads until a deadline: a server that sends a byte now and then does not extend it."""

    def __init__(self, deadline_s: float, descriptor: int) -> None:
        super().__init__(fileno=descriptor)
        self._deadline_s = deadline_s

    def recv_into(self, *arguments: Any) -> int:
        left_s = self._deadline_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("timed out")
        self.settimeout(left_s)
        return super().recv_into(*arguments)
