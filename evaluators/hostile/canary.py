"""Decides what lies open beside the attacker: a process full of secrets, and what it notices of attacks.

One runs as the harness would (unconfined), one as a sibling candidate would (in a sandbox like the attacker's). Run as
`python -I CANARY.pyz SETTINGS`, standard library only. Prints where everything lies, then a line per heartbeat.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import socket
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from evaluators.hostile.attack import NotApplicable
from evaluators.hostile.syscalls import call

_HEARTBEAT_S = 0.05
_BOARD_BYTES = 128
_IPC_CREAT, _IPC_RMID = 0o1000, 0
_OPEN = 0o666


def main(arguments: Sequence[str]) -> NoReturn:
    """Hold the secrets of `SETTINGS` (see `Canary`) until SIGTERM."""
    settings = json.loads(Path(arguments[0]).read_text())
    canary = Canary(settings)
    signal.signal(signal.SIGTERM, lambda *_: canary.leave())
    print(json.dumps({"begun": True, "scene": canary.scene()}), flush=True)
    canary.watch()


class Canary:
    """Settings: `secret`, `folder` (for its socket), `tcp_port`, `ipc_key`, `ipc_name`.

    What its own sandbox does not let it open is not there, and nobody can attack it.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        self._secret = str(settings["secret"])
        self._key, self._name = int(settings["ipc_key"]), str(settings["ipc_name"])
        self._buffer = ctypes.create_string_buffer(self._secret.encode())
        self._board = ctypes.create_string_buffer(_BOARD_BYTES)
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  # stays open, so that its descriptor can be stolen
        self._file.write(self._secret.encode())
        self._file.flush()
        self._pathname = str(Path(settings["folder"]) / f"{self._name}.sock")
        self._port = int(settings["tcp_port"])
        addresses = (("127.0.0.1", self._port), f"\0{self._name}", self._pathname)
        self._sockets = [made for address in addresses if (made := listener(address)) is not None]
        with suppress(OSError):
            os.chmod(self._pathname, 0o777)
        self._contacts: list[str] = []
        share(self._key, self._name, self._secret)

    def scene(self) -> dict[str, Any]:
        """The fields of `Other`; its pid is for whoever started it to find out."""
        return {
            "secret_address": ctypes.addressof(self._buffer),
            "board_address": ctypes.addressof(self._board),
            "secret_fd": self._file.fileno(),
            "tcp_port": self._port,
            "abstract": self._name,
            "pathname": self._pathname,
            "ipc_key": self._key,
            "ipc_name": self._name,
        }

    def watch(self) -> NoReturn:
        """Report what attackers leave: names that were sent, and names that were written into our memory."""
        beat = 0
        while True:
            ready, _, _ = select.select(self._sockets, [], [], _HEARTBEAT_S)
            for sock in ready:
                self._contacts += _message(sock)
            beat += 1
            boards = self._board.raw.decode(errors="replace").replace("\0", " ").split()
            print(json.dumps({"beat": beat, "contacts": self._contacts, "boards": boards}), flush=True)

    def leave(self) -> NoReturn:
        """Take what outlives a process away, and end."""
        remove(self._key, self._name)
        Path(self._pathname).unlink(missing_ok=True)
        os._exit(0)


def listener(address: str | tuple[str, int]) -> socket.socket | None:
    """A listening stream socket; None where we may not listen."""
    family = socket.AF_INET if isinstance(address, tuple) else socket.AF_UNIX
    try:
        made = socket.socket(family, socket.SOCK_STREAM)
    except OSError:
        return None
    try:
        made.bind(address)
        made.listen(16)
    except OSError:
        made.close()
        return None
    return made


def share(key: int, name: str, secret: str) -> None:
    """Put the secret into every kind of shared memory and queue that this system has, open to every user."""
    text = secret.encode()
    for way in (_share_sysv, _share_posix, _share_queue):
        with suppress(OSError, NotApplicable):
            way(key, name, text)


def remove(key: int, name: str) -> None:
    """Undo `share`; for whatever is left of it, in whoever's name."""
    ways: list[Callable[[], object]] = [
        lambda: call("shmctl", call("shmget", key, 0, 0), _IPC_RMID, None),
        lambda: call("msgctl", call("msgget", key, 0), _IPC_RMID, None),
        lambda: os.unlink(f"/dev/shm/{name}"),
        lambda: os.unlink(f"/dev/shm/sem.{name}"),
        lambda: call("mq_unlink", name.encode()),
    ]
    for way in ways:
        with suppress(OSError, NotApplicable):
            way()


def _share_sysv(key: int, name: str, text: bytes) -> None:
    address = call("shmat", call("shmget", key, _BOARD_BYTES, _IPC_CREAT | _OPEN), 0, 0)
    ctypes.memmove(address, text, len(text))
    message = ctypes.create_string_buffer((1).to_bytes(8, "little") + text)
    call("msgsnd", call("msgget", key, _IPC_CREAT | _OPEN), message, len(text), 0)


def _share_posix(key: int, name: str, text: bytes) -> None:
    path = Path(f"/dev/shm/{name}")
    path.write_bytes(text)
    path.chmod(_OPEN)
    libc = ctypes.CDLL(None)
    libc.sem_open.restype = ctypes.c_void_p
    libc.sem_open(f"/{name}".encode(), os.O_CREAT, _OPEN, 0)
    os.chmod(f"/dev/shm/sem.{name}", _OPEN)


def _share_queue(key: int, name: str, text: bytes) -> None:
    mask = os.umask(0)
    queue = call("mq_open", name.encode(), os.O_CREAT | os.O_RDWR, _OPEN, None)
    os.umask(mask)
    call("mq_timedsend", queue, text, len(text), 0, None)


def _message(sock: socket.socket) -> list[str]:
    """What a contact says: the name of an attack, or nothing."""
    connection, _ = sock.accept()
    with connection:
        connection.settimeout(1.0)
        with suppress(OSError):
            return connection.recv(256).decode(errors="replace").split()
    return []
