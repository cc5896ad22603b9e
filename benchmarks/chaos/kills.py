"""Kills thousands of drivers at random points and writes down what came of it.

`python -m benchmarks.chaos.kills --kills 10000 [--processes 2] [--first-seed 1] [--output benchmarks/chaos/results.md]`

Each process kills its own drivers (`tests.chaos.kills`): runs of the toy target with scripted children and recorded
measurements, one slot, all kills by SIGKILL. The results name the number of kills that were really made.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

_CHECKOUT = Path(__file__).resolve().parent.parent.parent
_MARK = "<!-- kills -->"


def main() -> None:
    """One table, and exit code 1 if anything was violated."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10_000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vibeserve-kills-") as folder:
        share = -(-given.kills // given.processes)
        seeds = range(given.first_seed, given.first_seed + given.processes)
        processes = [_start(Path(folder) / str(seed), seed, share) for seed in seeds]
        reports = [_report(process) for process in processes]
    text = table(reports)
    print(text)
    if given.output is not None:
        replace_section(given.output, _MARK, text)
    sys.exit(any(report["violations"] for report in reports))


def _start(folder: Path, seed: int, kills: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.chaos.kills", str(folder), str(seed), str(kills)]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(_CHECKOUT)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, cwd=_CHECKOUT, env=environment, text=True)


def _report(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, _ = process.communicate()
    report: dict[str, Any] = json.loads(out.splitlines()[-1])
    return report


def table(reports: list[dict[str, Any]]) -> str:
    """All processes' reports as one."""

    def total(name: str) -> int:
        return sum(report[name] for report in reports)

    violations = [violation for report in reports for violation in report["violations"]]
    rows = {
        "SIGKILLs that ended a driver": total("kills"),
        "drivers started": total("drivers"),
        "runs brought to their end": total("runs"),
        "of these with the population of the undisturbed run": total("equal_populations"),
        "acknowledged records": total("acknowledged"),
        "acknowledged records lost, doubled or out of order": sum("acknowledged" in v for v in violations),
        "stages repeated in all": total("repeated_stages"),
        "most stages that one driver repeated (one slot)": max(r["most_repeated_by_one_driver"] for r in reports),
        "violations of any kind": len(violations),
    }
    lines = ["| what | count |", "|---|---|", *(f"| {name} | {value:,} |" for name, value in rows.items())]
    took = f"{len(reports)} processes side by side, {max(r['seconds'] for r in reports):,.0f} s."
    return "\n".join([*lines, "", took, *(f"- {violation}" for violation in violations)])


def replace_section(path: Path, mark: str, text: str) -> None:
    """Puts the text between the two marks of a Markdown file."""
    before, _, after = path.read_text(encoding="utf-8").split(mark)
    path.write_text(f"{before}{mark}\n{text}\n{mark}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
