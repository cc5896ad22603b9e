"""Decides how the attacks travel into a sandbox: as one file that runs with the bare interpreter."""

from __future__ import annotations

import zipfile
from pathlib import Path

_FOLDER = Path(__file__).parent
_INSIDE = (
    "__init__", "attack", "attacker", "canary", "catalogue", "channels", "devices", "exhaustion", "files", "kernel",
    "processes", "rights", "syscalls",
)  # fmt: skip
"""Modules that need the standard library and each other only."""
_MAIN = """\
import sys
from evaluators.hostile import attacker, canary, kernel
role, *arguments = sys.argv[1:]
if role == "attack":
    attacker.main(arguments)
elif role == "canary":
    canary.main(arguments)
else:
    sys.exit(0 if kernel.works(role) else 1)
"""


def write_archive(path: Path) -> None:
    """Write the file; run it as `python -I PATH attack|canary|i386|x32 …`."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("__main__.py", _MAIN)
        archive.writestr("evaluators/__init__.py", "")
        for name in _INSIDE:
            archive.write(_FOLDER / f"{name}.py", f"evaluators/hostile/{name}.py")
    path.chmod(0o644)
