"""Evaluations per second on the peers' workload, VibeServe and OpenEvolve in turns.

`python -m benchmarks.cluster.peer --bench /work/shared/peer_bench --openevolve /tmp/oevenv/bin/python`

The workload (a stub LLM with seeded heavy-tailed latency, an evaluator that sleeps), its harness and its way of running
OpenEvolve are used as they are. W: evaluation slots; L: LLM calls at once. OpenEvolve evaluates where it mutates: with
L = W it has W workers, with L = 3W its best setting, 4W workers behind a lock on W slots. `ideal` is `simulate.py`'s
pipeline with these W and L: a schedule without any overhead. Evaluations per second are counted from the first LLM call
to the last evaluation's end; `busy` is the share of slot time in evaluations, in that window and in its steady part.

It takes a quiet machine: `--slots`, `--factors` and `--long` cut it into slices. Every run is kept in `peer.jsonl`, and
the table is of all that is there; `--fresh` begins anew.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

_CHECKOUT = Path(__file__).resolve().parents[2]
_OURS, _THEIRS = "VibeServe", "OpenEvolve"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One row of the table."""

    engine: str
    slots: int
    calls: int
    children: int


def command(setting: Setting, bench: Path, openevolve: Path) -> list[str]:
    """What the harness starts; `{out}` and `{port}` are its."""
    if setting.engine == _OURS:
        path = f"PYTHONPATH={_CHECKOUT}:{bench}"
        numbers = [str(setting.slots), str(setting.calls), str(setting.children)]
        return ["env", path, sys.executable, "-m", "benchmarks.cluster.peer_run", "{out}", "{port}", *numbers]
    run = [str(openevolve), str(bench / "openevolve" / "run_oe.py"), "{out}", "{port}"]
    tail = [str(setting.children), str(max(100, setting.children))]
    if setting.calls == setting.slots:
        return [*run, str(setting.slots), *tail]
    return ["env", f"PB_GPU_SLOTS={setting.slots}", *run, str(4 * setting.slots), *tail]


def measured(setting: Setting, bench: Path, openevolve: Path) -> dict[str, Any]:
    """The harness's account of one run.

    Raises:
        RuntimeError: the engine failed; with the end of what it said.
    """
    with tempfile.TemporaryDirectory(prefix="vibeserve-peer-") as folder:
        out = Path(folder) / "out"
        numbers = [str(n) for n in (setting.slots, setting.calls, setting.children)]
        line = [sys.executable, "-B", str(bench / "harness.py"), setting.engine, str(out), *numbers, "--"]
        environment = {**os.environ, "PB_RESULTS": str(Path(folder) / "results.jsonl"), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            [*line, *command(setting, bench, openevolve)],
            cwd=_CHECKOUT if setting.engine == _OURS else folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        said = (out / "stdout.log").read_text()[-3000:] if (out / "stdout.log").exists() else done.stderr[-3000:]
        found: dict[str, Any] = json.loads(done.stdout) if done.returncode == 0 else {}
        if found.get("rc") != 0 or "evals_per_s" not in found:
            raise RuntimeError(f"{setting}: expected a run that ends well, got {found or done.stderr[-2000:]}\n{said}")
        return found | {"said": said.strip().splitlines()[-1]}


def ideals(bench: Path, children: int) -> dict[tuple[int, int], float]:
    """(W, L) → evaluations per second of a pipeline without overhead."""
    done = subprocess.run(
        [sys.executable, "-B", str(bench / "simulate.py"), str(children)], capture_output=True, text=True, check=True
    )
    found = {}
    for line in done.stdout.splitlines():
        if "pipeline" in line:
            fields = dict(part.split("=") for part in line.replace("= ", "=").split() if "=" in part)
            found[int(fields["W"]), int(fields["L"])] = float(fields["evals/s"])
    return found


def table(results: Mapping[Setting, Sequence[Mapping[str, Any]]], bench: Path) -> str:
    head = (
        "| engine | W | L | N | runs | evaluations/s | of ideal | busy | busy, steady | gap p50 s "
        "| CPU ms per candidate |"
    )
    lines = [head, "|" + "---|" * 11]
    for setting, runs in results.items():
        if not runs:
            continue
        rates = [run["evals_per_s"] for run in runs]
        ideal = ideals(bench, setting.children).get((setting.slots, setting.calls))
        cells = [
            setting.engine,
            str(setting.slots),
            str(setting.calls),
            f"{setting.children:,}",
            str(len(runs)),
            _spread(rates, 2),
        ]
        cells += [f"{statistics.median(rates) / ideal:.3f}" if ideal else ""]
        cells += [_spread([run[key] for run in runs], 3) for key in ("eval_busy", "steady_eval_busy", "gap_p50")]
        cells += [_spread([run["cpu_per_cand_ms"] for run in runs], 0)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _spread(values: Sequence[float], digits: int) -> str:
    low, middle, high = (f"{v:.{digits}f}" for v in (min(values), statistics.median(values), max(values)))
    return middle if len(values) == 1 else f"{middle} ({low} to {high})"


def settings(options: argparse.Namespace) -> list[Setting]:
    """What this slice runs, ours and theirs in turns."""
    engines = [_OURS, _THEIRS] if options.openevolve else [_OURS]
    found = [
        Setting(engine=engine, slots=slots, calls=factor * slots, children=options.children)
        for slots in options.slots
        for factor in options.factors
        for engine in engines
    ]
    if options.long:
        slots = max(options.slots)
        found.append(Setting(engine=_OURS, slots=slots, calls=3 * slots, children=options.long))
    return found


def kept(journal: Path) -> dict[Setting, list[dict[str, Any]]]:
    """Every run so far, in the order of the table."""
    found: dict[Setting, list[dict[str, Any]]] = {}
    for line in journal.read_text(encoding="utf-8").splitlines() if journal.exists() else ():
        row = json.loads(line)
        found.setdefault(Setting(**row["setting"]), []).append(row["found"])
    return dict(sorted(found.items(), key=lambda item: _place(item[0])))


def _place(setting: Setting) -> tuple[int, int, int, bool]:
    return setting.children, setting.slots, -setting.calls, setting.engine != _OURS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", type=Path, default=Path("/work/shared/peer_bench"), help="folder of the workload")
    parser.add_argument("--openevolve", type=Path, help="a Python that has openevolve==0.4.0; without: ours alone")
    parser.add_argument("--slots", type=int, nargs="*", default=[4, 8])
    parser.add_argument("--factors", type=int, nargs="*", default=[3, 1], help="LLM calls per slot; none: the long run")
    parser.add_argument("--children", type=int, default=160)
    parser.add_argument("--long", type=int, default=0, help="children of one long run of ours at L = 3W, e.g. 1600")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--fresh", action="store_true", help="forget the runs of earlier slices")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/cluster/peer.md"))
    options = parser.parse_args()
    journal: Path = options.output.with_suffix(".jsonl")
    if options.fresh:
        journal.unlink(missing_ok=True)
    for repeat in range(options.repeats):
        for setting in settings(options):
            if setting.children == options.children or repeat == 0:  # the long one once
                found = measured(setting, options.bench, options.openevolve)
                with journal.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"setting": asdict(setting), "found": found}) + "\n")
                print(json.dumps(found), flush=True)
        text = f"# Evaluations per second\n\n{(__doc__ or '').split(chr(10) * 2, 1)[1].strip()}\n\n"
        text += f"Median (range) over the runs of a setting.\n\n{table(kept(journal), options.bench)}\n"
        options.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
