"""Decides whether an evaluation had effects outside of the candidate: what a sibling, the host and our records show."""

from __future__ import annotations

import hashlib
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Self

from population.evaluation import Evaluation

LOG_LIMIT_BYTES = 3 << 20
"""A flooded log is cut at 1 MiB, twice over while it is rotated, with some room."""
_SIBLING = "import signal; signal.pause()"


class Sibling:
    """Another candidate under evaluation on this host: a process, its secret environment, its folder. Ends on exit."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.secret = secrets.token_hex(12)
        folder.mkdir(parents=True)
        (folder / "secret.txt").write_text(f"{self.secret}\n")
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _SIBLING], env={"SIBLING_KEY": self.secret}, cwd=folder
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def problems(self) -> list[str]:
        intact = (self.folder / "secret.txt").read_text() == f"{self.secret}\n"
        return [*(["the sibling was killed"] if self.process.poll() is not None else [])] + (
            [] if intact else ["the sibling's file was changed"]
        )


class Witness:
    """What must be the same after an evaluation as before it."""

    def __init__(self, sibling: Sibling, kept: tuple[Path, ...], outside: Path) -> None:
        """`kept`: folders that nobody may change. `outside`: a folder that any user may write to, and nobody does."""
        self._sibling = sibling
        self._kept = kept
        self._outside = outside
        self.mark = f"mark-{secrets.token_hex(8)}"
        outside.mkdir(mode=0o777)
        outside.chmod(0o777)
        self._before = self._state()

    def words(self) -> Mapping[str, str]:
        """What a fixture may put into its code as @NAME@."""
        return {
            "MARK": self.mark,
            "OUTSIDE": str(self._outside),
            "SECRET": self._sibling.secret,
            "SIBLING_PID": str(self._sibling.process.pid),
            "SIBLING_FOLDER": str(self._sibling.folder),
            "HARNESS_PID": str(os.getpid()),
            "TARGET": str(self._kept[0]),
        }

    def problems(self, evaluation: Evaluation, output: Path) -> list[str]:
        """Every effect that should not be, in words."""
        found = self._sibling.problems()
        after = self._state()
        found += [f"{name} changed to {after[name]}" for name, value in self._before.items() if after[name] != value]
        found += [f"process {pid} was left behind" for pid in processes_with(self.mark)]
        found += [f"{path} was left behind" for path in self._outside.iterdir()]
        for path in (Path("/dev/shm", self.mark), Path("/tmp", self.mark)):
            if path.exists():
                found.append(f"{path} was left behind")
                path.unlink()
        texts = {path.name: path.read_bytes() for path in output.rglob("*") if path.is_file()}
        texts["the evaluation"] = repr(sorted(asdict(evaluation).items())).encode()
        for name, text in texts.items():
            found += [f"{name} holds the sibling's secret"] if self._sibling.secret.encode() in text else []
            found += [f"{name} has {len(text)} bytes"] if len(text) > LOG_LIMIT_BYTES else []
        shown = (str(value) for key, value in asdict(evaluation).items() if key in ("reason", "evidence"))
        found += [f"an escape sequence reaches the terminal: {text!r}" for text in shown if "\x1b" in text]
        return found

    def _state(self) -> dict[str, object]:
        return {
            "our CPU affinity": os.sched_getaffinity(0),
            "our priority": os.getpriority(os.PRIO_PROCESS, 0),
            "the sibling's priority": _priority(self._sibling.process.pid),
            **{str(folder): tree_hash(folder) for folder in self._kept},
        }


def tree_hash(folder: Path) -> str:
    """One hash over every file's path, mode and content."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        digest.update(f"{path.relative_to(folder)}\0{path.lstat().st_mode}\0".encode())
        if path.is_file():
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def processes_with(mark: str) -> list[int]:
    """Processes, ours left out, whose command line holds `mark`."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            try:
                with open(f"/proc/{entry}/cmdline", "rb") as file:
                    words = file.read()
            except OSError:
                continue
            found += [int(entry)] if mark.encode() in words else []
    return found


def _priority(pid: int) -> int | None:
    try:
        return os.getpriority(os.PRIO_PROCESS, pid)
    except ProcessLookupError:
        return None
