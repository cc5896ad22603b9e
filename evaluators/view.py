"""Decides what exists for a command inside bubblewrap: a root with the system, the interpreter and what was granted.

Nothing else is there: not the home, not other candidates, not the checker, no socket of the host.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from evaluators.process import Launch

STAGE = "/tmp"
_SYSTEM_LINKS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_SETTINGS = (
    "/etc/ld.so.cache", "/etc/alternatives", "/etc/localtime", "/etc/ssl/certs", "/etc/pki/tls/certs",
    "/sys/devices/system",
)  # fmt: skip
_GPU_CONTROL = ("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools")
_SEVERAL_GPUS = ("/sys/devices", "/sys/bus/pci", "/sys/class/pci_bus")
"""Where NCCL reads how the GPUs are connected."""


class View:
    """Collects bubblewrap's options and the files they need; later mounts lie on top of earlier ones."""

    def __init__(self, *, staged: bool, first_fd: int) -> None:
        """`staged`: sources are bound below STAGE first, because bubblewrap's user cannot reach them."""
        self.options: list[str] = []
        self.stages: list[Path] = []
        self.files: dict[int, bytes] = {}
        self._staged = staged
        self._next_fd = first_fd

    def system(self) -> None:
        """/usr, and what of /etc programs need to start."""
        self.add("--ro-bind", "/usr", "/usr")
        for name in _SYSTEM_LINKS:
            path = Path("/", name)
            if path.is_symlink():
                self.add("--symlink", os.readlink(path), str(path))
            elif path.is_dir():
                self.add("--ro-bind", str(path), str(path))
        for name in _SETTINGS:
            self.add("--ro-bind-try", name, name)

    def person(self, uid: int, gid: int, home: str) -> None:
        """A user that can be looked up, and the names of this host."""
        self._file("/etc/passwd", f"candidate:x:{uid}:{gid}::{home}:/bin/sh\n")
        self._file("/etc/group", f"candidate:x:{gid}:\n")
        self._file("/etc/hosts", "127.0.0.1 localhost candidate\n")
        self._file("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n")

    def kernel(self, gpus: tuple[str, ...], shared_memory_bytes: int) -> None:
        """/proc of its own, and the devices: the harmless ones, and those of its GPUs."""
        self.add("--proc", "/proc", "--dev", "/dev")
        self.memory("/dev/shm", shared_memory_bytes)
        for node in gpu_nodes(gpus):
            self.add("--dev-bind-try", node, node)
        for name in _SEVERAL_GPUS if len(gpus) > 1 else ():
            self.add("--ro-bind-try", name, name)
        self.add("--remount-ro", "/dev")

    def interpreter(self) -> None:
        """Our own Python, its virtual environment and its packages."""
        found: list[str] = []
        for name in (sys.base_prefix, sys.prefix):
            for path in dict.fromkeys((name, os.path.realpath(name))):
                if not any(Path(path).is_relative_to(known) for known in ("/usr", *found)):
                    found.append(path)
                    self.read(Path(path))

    def memory(self, place: str, size_bytes: int) -> None:
        """An empty folder of limited size that vanishes with the command."""
        self.add("--perms", "1777", "--size", str(size_bytes), "--tmpfs", place)

    def read(self, path: Path) -> None:
        """`path` is there and cannot be changed."""
        self.add("--ro-bind", self._source(path), str(path))

    def write(self, path: Path) -> None:
        """`path` is there and can be changed as far as its permissions allow."""
        self.add("--bind", self._source(path), str(path))

    def add(self, *options: str) -> None:
        """Further options, as they are."""
        self.options += options

    def _source(self, path: Path) -> str:
        if not self._staged:
            return str(path)
        if path not in self.stages:
            self.stages.append(path)
        return f"{STAGE}/{self.stages.index(path)}"

    def _file(self, place: str, text: str) -> None:
        self.files[self._next_fd] = text.encode()
        # In the root itself, which ends up read-only: a mount for each would take longer than all the rest of it.
        self.add("--perms", "0444", "--file", str(self._next_fd), place)
        self._next_fd += 1


def build(launch: Launch, *, staged: bool, uid: int, temporary_bytes: int, first_fd: int) -> View:
    """Everything that `launch` may see, in the order in which it is mounted."""
    view = View(staged=staged, first_fd=first_fd)
    home = launch.env.get("HOME", "/home")
    view.system()
    view.person(uid, uid if staged else os.getgid(), home)
    view.kernel(launch.gpus, temporary_bytes)
    view.memory("/tmp", temporary_bytes)
    view.interpreter()
    for path in launch.readable:
        view.read(path)
    if launch.workspace not in launch.writable:
        view.read(launch.workspace)
    for path in launch.writable:
        view.write(path)
    view.memory(home, temporary_bytes)
    for folder in _private_folders(launch, home):
        view.add("--dir", folder)
    view.add("--chdir", str(launch.workspace), "--remount-ro", "/")
    return view


def _private_folders(launch: Launch, home: str) -> Iterator[str]:
    """Folders of the environment that `clean_environment` puts below the home."""
    for name in ("TMPDIR", "XDG_CACHE_HOME"):
        folder = launch.env.get(name, "")
        if folder.startswith(f"{home}/"):
            yield folder


def gpu_nodes(gpus: tuple[str, ...]) -> Iterator[str]:
    """Device nodes of these GPUs (indices or UUIDs) and of the driver; some may not exist."""
    if gpus:
        minors = {**_minors_by_uuid(), **{gpu: gpu for gpu in gpus if gpu.isdigit()}}
        yield from (f"/dev/nvidia{minors[gpu]}" for gpu in gpus if gpu in minors)
        yield from _GPU_CONTROL


def _minors_by_uuid() -> dict[str, str]:
    """GPU UUID → number of its device node, from the driver's own list."""
    found = {}
    for path in Path("/proc/driver/nvidia/gpus").glob("*/information"):
        lines = dict(line.split(":", 1) for line in path.read_text().splitlines() if ":" in line)
        found[lines.get("GPU UUID", "").strip()] = lines.get("Device Minor", "").strip()
    return found
