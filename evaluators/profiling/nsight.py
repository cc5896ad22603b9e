"""Decides how Nsight Systems is asked about a server with a GPU, and what its tables say.

nsys cannot attach, so the server starts below it; it records the range that our hook opens and closes, and its reports
are opened in the same sandbox, because a candidate's processes wrote them.
https://docs.nvidia.com/nsight-systems/UserGuide/
"""

from __future__ import annotations

import csv
import io
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

from evaluators.process import Launch, NotExecutable
from evaluators.profiling.evidence import Evidence, Spent, ranked
from evaluators.profiling.injection import Injection, Silent, untrusted
from evaluators.sandbox import Sandbox
from evaluators.server import ServerCommand
from population.errors import InfrastructureError

TOOL = "nsys"
REPORTS = {
    "cuda_gpu_kern_sum": "GPU time in kernels",
    "nvtx_sum": "time in NVTX ranges, which may lie in each other",
    "cuda_api_sum": "CPU time in CUDA calls",
}
"""Report of `nsys stats` → what its shares are parts of."""
RANGES = "NVTX_RANGES"
"""Set for the server: whoever names phases by NVTX need not do so where nobody records them."""
_COUNTS = ("Instances", "Num Calls")
_NAMES = ("Name", "Range")
_RECORD = (
    "profile", "--trace=cuda,nvtx", "--sample=none", "--cpuctxsw=none", "--capture-range=cudaProfilerApi",
    "--capture-range-end=stop", "--cuda-graph-trace=node", "--trace-fork-before-exec=true", "--force-overwrite=true",
)  # fmt: skip
_REPORT_S = 60.0
_STATS_S = 120.0
_POLL_S = 0.2
_MOST_BYTES = 1 << 20


def nsys() -> Path | None:
    """The program, or None: it is not installed."""
    found = shutil.which(TOOL)
    return None if found is None else Path(found).resolve()


class NsightSystems:
    """A server below `nsys profile`; implements `rerun.Instrument`."""

    tool = TOOL

    def __init__(self, program: Path, folder: Path, window_s: float, sandbox: Sandbox) -> None:
        self._program, self._sandbox = program, sandbox
        self._injection = Injection(folder, "range", window_s)
        self._command: ServerCommand | None = None

    def around(self, command: ServerCommand) -> ServerCommand:
        """See `Instrument.around`."""
        hooked = self._injection.around(command)
        table = replace(command.table, command=(*record(self._program, self._report), *command.table.command))
        env = {**hooked.env, RANGES: "1"}
        self._command = replace(hooked, table=table, env=env, readable=(*hooked.readable, *installation(self._program)))
        return self._command

    def begin(self) -> None:
        """See `Instrument.begin`."""
        self._injection.begin()

    def end(self) -> None:
        """See `Instrument.end`; returns when nsys has written its report, or the server's end would cut it off."""
        self._injection.end()
        deadline_s, size = time.monotonic() + _REPORT_S, -1
        while time.monotonic() < deadline_s:
            now = os.stat(self._report).st_size if self._report.is_file() else -1
            if now > 0 and now == size:
                return
            size = now
            time.sleep(_POLL_S)
        raise Silent(f"nsys wrote no report in {_REPORT_S:g} s")

    def evidence(self) -> Evidence:
        """See `Instrument.evidence`."""
        assert self._command is not None, "around() comes first"
        output = self._injection.output
        launch = Launch(
            command=stats(self._program, self._report, output / "stats"),
            workspace=output,
            env={name: value for name, value in self._command.env.items() if name != "PYTHONPATH"},
            log=output.parent / "nsys-stats.log",
            cpus=self._command.cpus,
            readable=installation(self._program),
            writable=(output,),
        )
        try:
            with self._sandbox.launch(launch) as process:
                code = process.wait(_STATS_S)
        except NotExecutable as error:
            raise InfrastructureError(f"nsys stats: {error}") from error
        if code != 0:
            return Evidence.without(TOOL, f"nsys stats {'took too long' if code is None else f'failed ({code})'}")
        texts = {name: untrusted(output / f"stats_{name}.csv", _MOST_BYTES) or b"" for name in REPORTS}
        return evidence_of({name: text.decode(errors="replace") for name, text in texts.items()})

    @property
    def _report(self) -> Path:
        return self._injection.output / "server.nsys-rep"


def record(program: Path, report: Path) -> tuple[str, ...]:
    """What stands before the server's command."""
    return (str(program), *_RECORD, f"--output={report}")


def stats(program: Path, report: Path, output: Path) -> tuple[str, ...]:
    """Writes `OUTPUT_<report>.csv` for each of `REPORTS`."""
    reports = ",".join(REPORTS)
    return (
        str(program), "stats", "--format=csv", f"--report={reports}", "--force-export=true", "--force-overwrite=true",
        f"--output={output}", str(report),
    )  # fmt: skip


def installation(program: Path) -> tuple[Path, ...]:
    """The folder with the program's libraries, `/opt/nvidia/nsight-systems/2025.3.2`; none for /usr, always there."""
    return () if program.is_relative_to("/usr") else (program.parents[1],)


def evidence_of(tables: dict[str, str]) -> Evidence:
    """Rows of the CSV tables of `nsys stats`; a table that is empty or not known adds none."""
    rows = [row for name, of in REPORTS.items() for row in ranked(read_table(tables.get(name, "")), of=of, source=TOOL)]
    if not rows:
        return Evidence.without(TOOL, "nsys saw no kernel, range or call of CUDA")
    return Evidence(rows=tuple(rows), notes={TOOL: "recorded by Nsight Systems"})


def read_table(text: str) -> list[Spent]:
    """The rows of one table: `Total Time (ns)`, `Instances` or `Num Calls`, and `Name` or `Range`.

    Lines before the heading are messages; a row that is not of numbers is left out.
    """
    lines = text.splitlines()
    first = next((at for at, line in enumerate(lines) if "Total Time (ns)" in line), len(lines))
    found = []
    for row in csv.DictReader(io.StringIO("\n".join(lines[first:]))):
        count = next((row[key] for key in _COUNTS if row.get(key)), "0")
        name = next((row[key] for key in _NAMES if row.get(key)), "")
        total = row.get("Total Time (ns)") or ""
        if name and total.isdecimal() and count.isdecimal():
            found.append(Spent(name=name.removeprefix(":"), amount=int(total) / 1000, calls=int(count)))
    return found
