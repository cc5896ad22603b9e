"""Evolves the seed on this machine for some seconds, and goes on from where another call, perhaps elsewhere, ended.

    python benchmarks/llama-3.1-8b/evolve.py --output DIR --seconds 500 [--wheels FOLDER] [--from run.tar.xz]
    python benchmarks/llama-3.1-8b/evolve.py --output DIR --from run.tar.xz --keep       (no GPU needed)

A call begins no child that would not end in its time, and packs the run to DIR/run.tar.xz, from which the next call
goes on; the machine must be of the same kind. `--finals` on the last call: the front is measured once more, on the
held-out trace. `--keep` writes what is worth keeping in a repository to DIR/kept: ledger, front, report, and all
candidates' numbers.

Without PyTorch's CUDA: `--target` takes the folder that tiny_target.py wrote.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parents[1]
GRACE_S = 90.0
"""For the evaluation in flight, once the time is over: it is drained, and after this left to the next call."""


def install(wheels: Path) -> None:
    """What `pack_host.sh` packed, into this interpreter: the target's scripts run as `python -I`."""
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-compile"]
    subprocess.run([*command, *sorted(map(str, wheels.glob("*.whl")))], check=True, timeout=300)


def vibeserve(*words: str | Path) -> list[str]:
    """A command line of this checkout's VibeServe."""
    return [sys.executable, "-m", "vibeserve", *map(str, words)]


def the_run(runs: Path) -> Path | None:
    """The run below `runs`; None where there is none yet."""
    found = sorted(path for path in runs.glob("*") if (path / "ledger").is_dir())
    return found[-1] if found else None


def elapsed_s(run: Path) -> float:
    """Seconds in which a driver ran, summed over calls."""
    sys.path.insert(0, str(CHECKOUT))
    from population.ledger import read_events
    from population.replay import State

    return State.replay(read_events(run / "ledger")).elapsed_s


def evolve(arguments: argparse.Namespace, runs: Path) -> int:
    """One call's share of the run; the exit code of `vibeserve`."""
    run, finals = the_run(runs), str(int(arguments.finals))
    wall_s = arguments.seconds + (elapsed_s(run) if run else 0.0)
    settings = {"budget.wall_time_s": f"{wall_s:.1f}", "evaluation.final_repeats": finals}
    options = [word for key, value in settings.items() for word in ("-s", f"{key}={value}")]
    options += [word for setting in arguments.set for word in ("-s", setting)]
    if run is None:
        command = vibeserve("run", arguments.target, "--preset", "recipes", "--runs-dir", runs, *options)
    else:
        command = vibeserve("resume", run, *options)
    print(" ".join(command), flush=True)
    process = subprocess.Popen(command, cwd=CHECKOUT)
    try:
        return process.wait(arguments.seconds + GRACE_S + 600 * arguments.finals)
    except subprocess.TimeoutExpired:
        process.terminate()
    try:
        return process.wait(GRACE_S)
    except subprocess.TimeoutExpired:  # crash-only: the child in flight is repeated by the next call
        process.kill()
        return process.wait()


def keep(run: Path, folder: Path) -> None:
    """The ledger, the front, the report and every candidate's numbers."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for words in (
        ("report", run, "--output", folder),
        ("export", folder / "candidates.csv", "--run", run),
        ("front", run, "--json"),
    ):
        done = subprocess.run(vibeserve(*words), cwd=CHECKOUT, stdout=subprocess.PIPE, text=True, check=True)
    (folder / "front.json").write_text(done.stdout, encoding="utf-8")
    for path in folder.iterdir():  # where it ran is nobody's business
        path.write_text(path.read_text(encoding="utf-8").replace(f"{run.parent}/", "runs/"), encoding="utf-8")
    (folder / "report.html").unlink(missing_ok=True)  # the same as report.md
    shutil.copytree(run / "ledger", folder / "ledger", ignore=shutil.ignore_patterns("lock"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for runs/, run.tar.xz and kept/")
    parser.add_argument("--seconds", type=float, default=3000.0, help="in which children are begun")
    parser.add_argument("--from", dest="packed", type=Path, metavar="FILE", help="run.tar.xz of the call before")
    parser.add_argument("--wheels", type=Path, help="folder that pack_host.sh wrote; installed first")
    parser.add_argument("--target", type=Path, default=CHECKOUT / "examples" / "llama-3.1-8b")
    parser.add_argument("--finals", action="store_true", help="measure the front on the held-out trace at the end")
    parser.add_argument("-s", "--set", action="append", default=[], metavar="KEY=VALUE", help="as for vibeserve")
    parser.add_argument("--keep", action="store_true", help="do not evolve: write DIR/kept")
    arguments = parser.parse_args()
    if arguments.wheels is not None:
        install(arguments.wheels)
    runs = (arguments.output / "runs").resolve()
    runs.mkdir(parents=True, exist_ok=True)
    if arguments.packed is not None and the_run(runs) is None:
        with tarfile.open(arguments.packed) as tar:
            tar.extractall(runs, filter="data")
    code = 0 if arguments.keep else evolve(arguments, runs)
    run = the_run(runs)
    if run is None:
        print(f"{runs}: expected a run, found none", file=sys.stderr)
        return code or 1
    if arguments.keep:
        keep(run, arguments.output / "kept")
    else:
        pack(run, arguments.output / "run.tar.xz")
    return code


def pack(run: Path, file: Path) -> None:
    """The whole run folder."""
    with tarfile.open(file, "w:xz", preset=3) as tar:
        tar.add(run, arcname=run.name)
    print(f"{file}: {file.stat().st_size / 2**20:.1f} MiB", flush=True)


if __name__ == "__main__":
    sys.exit(main())
