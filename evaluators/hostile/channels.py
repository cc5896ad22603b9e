"""Decides which attacks go for channels out of the sandbox: network, sockets, shared memory and queues."""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Callable
from functools import partial

from evaluators.hostile.attack import Attack, NotApplicable, Other, Proof, Scene, canaries, first_success, read
from evaluators.hostile.syscalls import call

_TIMEOUT_S = 1.0
_QUERY = b"\x5a\x5a\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07example\x07invalid\x00\x00\x01\x00\x01"
"""DNS: the address of example.invalid, which nobody has; any answer shows a way out."""
NOWHERE = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
"""Addresses reserved for documentation."""
_QUEUE_BYTES = 8192
_SHM_RDONLY, _IPC_NOWAIT = 0o10000, 0o4000


def host_loopback(scene: Scene) -> str:
    """Connects to a port on the machine's loopback."""
    return first_success([partial(_tcp, other.tcp_port) for other in scene.others])


def outside_network(scene: Scene) -> str:
    """Looks for a route out of the machine."""
    return first_success([partial(route, family, address) for family, address in NOWHERE])


def resolve_names(scene: Scene) -> str:
    """Asks a name server."""
    if not scene.nameserver:
        raise NotApplicable("no name server answers the harness, either")
    return ask_name_server(scene.nameserver)


def pathname_socket(scene: Scene) -> str:
    """Connects to a unix socket in a folder, like Ray's."""
    return first_success([partial(_unix, other.pathname, "pathname-socket") for other in scene.others])


def abstract_socket(scene: Scene) -> str:
    """Connects to an abstract unix socket."""
    return first_success([partial(_unix, f"\0{other.abstract}", "abstract-socket") for other in scene.others])


def raw_socket(scene: Scene) -> str:
    """Forges packets (raw sockets)."""
    return _open(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)


def packet_socket(scene: Scene) -> str:
    """Reads others' packets (packet sockets)."""
    return _open(socket.AF_PACKET, socket.SOCK_RAW, 0)


def hypervisor_socket(scene: Scene) -> str:
    """Opens a socket to the hypervisor, which no network namespace holds back (vsock)."""
    return _open(socket.AF_VSOCK, socket.SOCK_STREAM, 0)


def sysv_shared_memory(scene: Scene) -> str:
    """Attaches others' System V shared memory."""
    return first_success([partial(_attach, other) for other in scene.others])


def sysv_messages(scene: Scene) -> str:
    """Takes messages from others' System V queue."""
    return first_success([partial(_receive, other) for other in scene.others])


def posix_shared_memory(scene: Scene) -> str:
    """Reads others' shared memory in /dev/shm."""
    ways: list[Callable[[], str]] = [partial(_secret, f"/dev/shm/{other.ipc_name}") for other in scene.others]
    return first_success(ways)


def posix_semaphore(scene: Scene) -> str:
    """Raises others' semaphore."""
    return first_success([partial(_post, other) for other in scene.others])


def posix_queue(scene: Scene) -> str:
    """Takes messages from others' POSIX queue."""
    return first_success([partial(_take, other) for other in scene.others])


def route(family: int, address: str) -> str:
    """Which of our addresses packets to `address` would leave from; sends nothing."""
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((address, 9))
        return f"by {probe.getsockname()[0]}"


def ask_name_server(address: str) -> str:
    """How a name server at `address` answers."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.settimeout(_TIMEOUT_S)
        probe.sendto(_QUERY, (address, 53))
        return f"{len(probe.recv(512))} bytes from {address}"


def _tcp(port: int) -> str:
    with socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT_S) as connection:
        connection.sendall(b"host-loopback\n")
    return f"connected to port {port}"


def _unix(address: str, name: str) -> str:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_TIMEOUT_S)
        connection.connect(address)
        connection.sendall(f"{name}\n".encode())
    return "connected"


def _open(family: int, kind: int, protocol: int) -> str:
    socket.socket(family, kind, protocol).close()
    return "the socket opened"


def _secret(path: str) -> str:
    return canaries(read(path))


def _attach(other: Other) -> str:
    address = call("shmat", call("shmget", other.ipc_key, 0, 0), 0, _SHM_RDONLY)
    return canaries(ctypes.string_at(address, 64).decode(errors="replace"))


def _receive(other: Other) -> str:
    buffer = ctypes.create_string_buffer(1024)
    call("msgrcv", call("msgget", other.ipc_key, 0), buffer, len(buffer) - 8, 0, _IPC_NOWAIT)
    return canaries(buffer.raw[8:].decode(errors="replace"))


def _post(other: Other) -> str:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.sem_open.restype = ctypes.c_void_p
    semaphore = libc.sem_open(f"/{other.ipc_name}".encode(), 0)
    if not semaphore:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    libc.sem_post(ctypes.c_void_p(semaphore))
    return "raised"


def _take(other: Other) -> str:
    queue = call("mq_open", other.ipc_name.encode(), os.O_RDONLY | os.O_NONBLOCK, 0, None)
    buffer = ctypes.create_string_buffer(_QUEUE_BYTES)
    call("mq_timedreceive", queue, buffer, _QUEUE_BYTES, None, None)
    return canaries(buffer.raw.decode(errors="replace"))


ATTACKS = (
    *(Attack(run=run, proof=Proof.EFFECT) for run in (host_loopback, pathname_socket, abstract_socket)),
    *(Attack(run=run, proof=Proof.RESULT) for run in (outside_network, resolve_names, raw_socket, packet_socket)),
    Attack(run=hypervisor_socket, proof=Proof.RESULT),
    Attack(run=sysv_shared_memory, proof=Proof.LOOT, needs=("shmget",)),
    Attack(run=sysv_messages, proof=Proof.LOOT, needs=("msgget",)),
    Attack(run=posix_shared_memory, proof=Proof.LOOT),
    Attack(run=posix_semaphore, proof=Proof.RESULT),
    Attack(run=posix_queue, proof=Proof.LOOT, needs=("mq_open",)),
)
