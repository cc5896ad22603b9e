"""Decides what lies around the attacker: secrets, artifacts, workspaces, and where its traces are looked for.

Everything is as open as file permissions can make it, so that only the sandbox stands between attacker and secret.
"""

from __future__ import annotations

import ctypes
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from evaluators.hostile.archive import write_archive
from evaluators.hostile.attack import NotApplicable, Other, Scene
from evaluators.hostile.canary import remove
from evaluators.hostile.files import LINK
from evaluators.hostile.syscalls import call
from evaluators.sandbox import clean_environment
from evaluators.server import free_port

_AT_FDCWD, _HANDLE_BYTES = -100, 128
SECRET_VARIABLE = "VIBESERVE_DOCTOR_CANARY"
"""In the environment of the harness and of others; an attacker must not find it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """Folders of one sandboxed process."""

    workspace: Path
    home: Path
    log: Path
    nonce: str = field(default_factory=lambda: f"vs{secrets.token_hex(6)}")
    """Names its program, and so stands in the command line of each of its processes."""

    @property
    def program(self) -> str:
        return f"{self.nonce}.pyz"

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        return clean_environment(self.home, extra=extra)

    def live_pids(self) -> list[int]:
        """Its processes, as the machine counts, wherever they are now."""
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with suppress(OSError):
                if self.nonce.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.append(int(pid))
        return found


class Stage:
    """The folders of one probe; `places` names each secret's place, for whoever reads the verdict."""

    def __init__(self, top: Path, home: Path | None, ray: Path) -> None:
        self.places: dict[str, str] = {}
        self.attacker = self._room(top / "attacker")
        self._alone = top / "alone"
        self.harness, self.sibling = self._room(top / "harness"), self._room(top / "sibling")
        self.artifact = _file(top / "artifacts" / "weights.bin", secrets.token_hex(512))
        self.secret_files = {
            "checker": _file(top / "target" / "accuracy_checker" / "answers.json", self.secret("checker data")),
            "candidate": _file(self.sibling.workspace / "notes.txt", self.secret("another candidate")),
            "ray": _file(ray / "session_latest" / "logs" / "driver.log", self.secret("Ray's folder")),
        }
        if home is not None:
            self.secret_files["home"] = _file(home / "key", self.secret("HOME"))
        self._dress(self.attacker)
        self._server = (self.attacker.workspace / "server.py").read_bytes()
        self._weights = self.artifact.read_bytes()

    def secret(self, place: str) -> str:
        """A new secret that lies in `place`."""
        made = f"canary-{secrets.token_hex(16)}"
        self.places[made] = place
        return made

    def found_in(self, text: str) -> list[str]:
        """The places whose secrets are in `text`."""
        return sorted({place for secret, place in self.places.items() if secret in text})

    def lonely_room(self, name: str) -> Room:
        """For an attack that needs a sandbox of its own."""
        room = self._room(self._alone / name)
        self._dress(room)
        return room

    def canary_settings(self, room: Room, folder: Path) -> dict[str, Any]:
        """Write what a canary needs, and return it."""
        settings = {
            "secret": self.secret(f"{room.workspace.parent.name}: memory, shared memory, queues or an open file"),
            "folder": str(folder),
            "tcp_port": free_port(),
            "ipc_key": secrets.randbelow(1 << 30) + 1,
            "ipc_name": f"vs{secrets.token_hex(6)}",
        }
        _file(room.workspace / "settings.json", json.dumps(settings))
        return settings

    def write_scene(self, room: Room, scene: Scene) -> None:
        """Tell the attacker in `room` what it may know."""
        _file(room.workspace / "scene.json", json.dumps(asdict(scene)))

    def handle(self) -> str:
        """The kernel's handle of a secret file, in hex; empty where its file system has none."""
        buffer = ctypes.create_string_buffer(_HANDLE_BYTES.to_bytes(4, "little"), 8 + _HANDLE_BYTES)
        path = bytes(self.secret_files["checker"])
        try:
            call("name_to_handle_at", _AT_FDCWD, path, buffer, ctypes.create_string_buffer(8), 0)
        except (OSError, NotApplicable):
            return ""
        return buffer.raw.hex()

    def traces(self, room: Room) -> set[str]:
        """Attacks that changed artifacts or workspace."""
        found = set()
        if self.artifact.read_bytes() != self._weights or len(list(self.artifact.parent.iterdir())) != 1:
            found.add("write-artifact")
        if (room.workspace / "server.py").read_bytes() != self._server:
            found.add("write-workspace")
        for folder in (self.artifact.parent, room.workspace):
            if (folder / "remount-writable").exists():
                found.add("remount-writable")
        return found

    def _room(self, top: Path) -> Room:
        room = Room(workspace=top / "workspace", home=top / "home", log=top / "log")
        for folder in (top, room.workspace, room.home):
            folder.mkdir(parents=True, mode=0o777)
            folder.chmod(0o777)
        write_archive(room.workspace / room.program)
        return room

    def _dress(self, room: Room) -> None:
        _file(room.workspace / "server.py", "print('a server')\n")
        (room.workspace / LINK).symlink_to(self.secret_files["checker"])


@contextmanager
def staged(scratch: Path | None = None) -> Iterator[Stage]:
    """A stage below `scratch` (None: the temporary folder, where evaluations have their own), removed at the end."""
    with tempfile.TemporaryDirectory(prefix="vibeserve-doctor-", dir=scratch, ignore_cleanup_errors=True) as top:
        Path(top).chmod(0o755)
        ray = Path(tempfile.mkdtemp(prefix="ray-", dir=scratch))
        ray.chmod(0o755)
        home = _home_folder()
        try:
            yield Stage(Path(top), home, ray)
        finally:
            for folder in (ray, home):
                if folder is not None:
                    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def tempting_environment(secret: str) -> Iterator[None]:
    """Our own environment holds a secret, as it may hold keys."""
    os.environ[SECRET_VARIABLE] = secret
    try:
        yield
    finally:
        del os.environ[SECRET_VARIABLE]


def forget(settings: Mapping[str, Any]) -> None:
    """Remove what a canary that was killed has left in the kernel."""
    remove(int(settings["ipc_key"]), str(settings["ipc_name"]))


def other(role: str, pid: int, told: Mapping[str, Any]) -> Other:
    """A canary as the attacker knows it."""
    return Other(role=role, pid=pid, **told)


def _home_folder() -> Path | None:
    try:
        return Path(tempfile.mkdtemp(prefix=".vibeserve-doctor-", dir=Path.home()))
    except (OSError, RuntimeError):
        return None


def _file(path: Path, text: str) -> Path:
    """A file that every user may read and write, in a folder that every user may change."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.parent.chmod(0o777)
    path.write_text(text)
    path.chmod(0o666)
    return path
