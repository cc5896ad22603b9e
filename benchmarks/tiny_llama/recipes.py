"""Measures a ladder of cumulative recipes on the seed of examples/tiny-llama: throughput, TTFT and TPOT per load.

    python benchmarks/tiny_llama/recipes.py [--only NAME …] [--repeats 1] [--output FILE.md]

Server and client are pinned to one core each. Rungs are measured round-robin, so that a drift of the machine touches
all of them alike; numbers of a busy machine rank, they do not claim.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from evaluators.load import bench  # noqa: E402
from evaluators.load.endpoint import Endpoint  # noqa: E402
from evaluators.load.workload import Load  # noqa: E402
from population.candidate import Operator, Proposal  # noqa: E402
from population.evaluation import Rejected  # noqa: E402
from vibeserve.mutators import RecipeMutator, TuneMutator  # noqa: E402
from vibeserve.recipes import load_recipes  # noqa: E402

TARGET = ROOT / "examples" / "tiny-llama"
BATCHED = "kv-cache continuous-batching batched-forward"
FAST = f"{BATCHED} fused-weights tiled-weights"
LADDER = {
    "seed": "",
    "kv-cache": "kv-cache",
    "+ continuous-batching": "kv-cache continuous-batching",
    "+ batched-forward": BATCHED,
    "+ fused-weights": f"{BATCHED} fused-weights",
    "+ tiled-weights": FAST,
    "+ max_running 32": f"{FAST} scheduler.max_running=32",
    "+ max_running 48": f"{FAST} scheduler.max_running=48",
    "+ flush-tuning": f"{FAST} flush-tuning scheduler.max_running=48",
    "+ prefix-caching": f"{FAST} flush-tuning prefix-caching scheduler.max_running=48",
    "all": f"{FAST} flush-tuning prefix-caching chunked-prefill ngram-speculation shortest-job-first "
    "scheduler.max_running=48",
    "one at a time": f"{FAST} flush-tuning prefix-caching ngram-speculation scheduler.max_running=1",
    "decode first": f"{FAST} flush-tuning prefix-caching chunked-prefill scheduler.max_running=48 "
    "scheduler.priority=decode-first",
    "prefill first": f"{FAST} flush-tuning prefix-caching chunked-prefill scheduler.max_running=48 "
    "scheduler.priority=prefill-first",
    "small steps": f"{FAST} flush-tuning prefix-caching chunked-prefill scheduler.max_running=48 "
    "scheduler.step_tokens=16",
}
METRICS = ("output_throughput", "median_ttft_ms", "median_tpot_ms")


def knob_value(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def make_tree(folder: Path, rung: str) -> Path:
    """The seed with the recipes and knobs (`component.knob=value`) of one rung."""
    shutil.copytree(TARGET / "seed", folder, ignore=shutil.ignore_patterns(".*", "__pycache__"))
    words = rung.split()
    recipes = RecipeMutator(load_recipes(ROOT / "skills"))
    for word in words:
        name, equals, value = word.partition("=")
        if equals:
            proposal = Proposal(number=1, operator=Operator.TUNE, knobs={name: knob_value(value)})
            outcome = TuneMutator().mutate(folder, proposal, "")
        else:
            outcome = recipes.mutate(folder, Proposal(number=1, operator=Operator.RECIPE, recipe=name), "")
        if isinstance(outcome, Rejected):
            raise SystemExit(f"{rung}: {outcome.reason}")
    return folder


@contextmanager
def served(tree: Path, artifacts: Path, environment: dict[str, str]) -> Iterator[str]:
    """URL of a running server, pinned to the first core when there are two or more."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "server.py", "--port", str(port), "--artifacts", str(artifacts)]
    process = subprocess.Popen(command, cwd=tree, env=os.environ | environment, start_new_session=True)
    cpus = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(process.pid, cpus[: max(1, len(cpus) - 1)])
    try:
        wait_ready(f"http://127.0.0.1:{port}/health", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_ready(url: str, process: subprocess.Popen[bytes], timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.02)
    raise SystemExit(f"{url}: the server did not become ready within {timeout_s} s; see its output above")


def measure(tree: Path, artifacts: Path, target: dict[str, object], loads: list[Load]) -> dict[str, float]:
    server, model = target["server"], target["model"]
    assert isinstance(server, dict)
    assert isinstance(model, dict)
    with served(tree, artifacts, server["env"]) as url:
        endpoint = Endpoint(url=url, model=model["name"], prompt_ids=tuple(model["prompt_ids"]))
        results = bench(endpoint, loads, trace_seed=7)
    return {f"{name}@{r.load.name}": r.metrics.get(name, float("nan")) for r in results for name in METRICS}


def table(rows: dict[str, list[dict[str, float]]], loads: list[Load]) -> str:
    heads = [f"{load.name} {short}" for load in loads for short in ("tok/s", "TTFT ms", "TPOT ms")]
    lines = ["| rung | " + " | ".join(heads) + " |", "|---|" + "---|" * len(heads)]
    for rung, samples in rows.items():
        keys = [f"{metric}@{load.name}" for load in loads for metric in METRICS]
        cells = [f"{statistics.median(sample[key] for sample in samples):.1f}" for key in keys]
        lines.append(f"| {rung} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", metavar="RUNG", help=f"rungs to measure, of {', '.join(LADDER)}")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--output", type=Path, help="write the table there, too")
    arguments = parser.parse_args()
    target = tomllib.loads((TARGET / "target.toml").read_text(encoding="utf-8"))
    loads = [Load.from_table(load) for load in target["load"]]
    rows: dict[str, list[dict[str, float]]] = {rung: [] for rung in arguments.only or LADDER}
    with tempfile.TemporaryDirectory() as scratch:
        artifacts = Path(scratch) / "artifacts"
        subprocess.run([sys.executable, "-I", TARGET / "reference" / "build.py", "--output", artifacts], check=True)
        for repeat in range(arguments.repeats):
            for number, rung in enumerate(rows):
                tree = make_tree(Path(scratch) / f"{number}-{repeat}", LADDER[rung])
                rows[rung].append(measure(tree, artifacts, target, loads))
                print(rung, {name: round(value, 1) for name, value in rows[rung][-1].items()}, flush=True)
    text = table(rows, loads)
    print(text)
    if arguments.output is not None:
        arguments.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
