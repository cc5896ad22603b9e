"""Builds, checks, times and writes the table: our server and vLLM on one GPU, interleaved, under the same clients.

    python benchmarks/llama-3.1-8b/compare.py --output DIR --server FOLDER [--vllm SITE] [--rows 64x,max] [--repeats 3]

Both servers stay up, on the same GPU and the same CPUs, and take turns, A B B A A B …, so that a drift of the machine
hits both alike. Every run is appended to DIR/runs.jsonl at once, and the table is made of all that is there: a call
that covers some rows (`--rows`) adds to those before it, on the same kind of machine. A step that fails is reported,
and the rest goes on.

Without --vllm our server is measured alone. SITE is where `pip install --target` put vLLM.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

from contestants import OURS, TARGET, VLLM, StartFailed, contestants, machine, running
from rows import (
    OUR_CLIENT,
    PROMPT_IDS,
    VLLM_CLIENT,
    ClientFailed,
    OurClient,
    Row,
    VllmClient,
    audit_command,
    chosen,
    write_answers,
)
from table import markdown, read_runs

from population.errors import VibeServeError

Json = dict[str, Any]
CHECKER = TARGET / "accuracy_checker" / "checker.py"
LIMITS = ("max_gap", "p999_gap", "mean_gap", "flip_rate")
CLIENT_CPUS = 6
AUDITED = 96
"""Answers of the benchmark that are re-scored, from all rows."""
WARMUP = Row(name="warmup", input_tokens=64, output_tokens=32, rate_per_s=64)


def order(names: list[str], repeats: int) -> list[str]:
    """A B B A A B …: every server `repeats` times, and each pair in the other order than the one before."""
    return [name for repeat in range(repeats) for name in (names if repeat % 2 == 0 else names[::-1])]


class Comparison:
    """One call of the script."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        self._output: Path = arguments.output
        self._artifacts: Path = arguments.artifacts or self._output / "artifacts"
        self._deadline_s = time.monotonic() + arguments.budget_s
        self._problems: list[str] = []

    def run(self) -> int:
        self._output.mkdir(parents=True, exist_ok=True)
        if not (self._artifacts / "config.json").is_file():
            build = [sys.executable, str(TARGET / "reference" / "build.py"), "--output", str(self._artifacts)]
            subprocess.run(build, check=True, timeout=600)
        arguments = self._arguments
        entrants = contestants(arguments.server.resolve(), arguments.vllm, arguments.memory)
        cpus = tuple(sorted(os.sched_getaffinity(0)))
        share = min(CLIENT_CPUS, max(1, len(cpus) // 2))
        try:
            with running(entrants, self._artifacts, self._output, cpus[:-share] or cpus) as urls:
                low, high = arguments.prompt_ids
                ours = OurClient(urls, cpus[-share:], (low, high))
                self._check(urls)
                self._measure(urls, ours)
        except StartFailed as error:
            self._problems.append(str(error))
        else:
            self._audit(ours)
        self._report()
        return 1 if self._problems else 0

    def _check(self, urls: dict[str, str]) -> None:
        """The target's checker, for our server."""
        command = [sys.executable, "-I", "-B", str(CHECKER), "--url", urls[OURS], "--artifacts", str(self._artifacts)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
        print(done.stdout, end="", flush=True)
        if done.returncode:
            self._problems.append(f"the checker failed:\n{done.stdout}{done.stderr}")

    def _measure(self, urls: dict[str, str], ours: OurClient) -> None:
        arguments = self._arguments
        clients: dict[str, OurClient | VllmClient] = {OUR_CLIENT: ours}
        if arguments.vllm is not None and arguments.vllm_client:
            clients[VLLM_CLIENT] = VllmClient(urls, self._artifacts, arguments.vllm, self._output)
        for name in urls:
            self._once(OUR_CLIENT, ours, WARMUP, name)
            ours.answers[name].clear()
        for row in chosen(arguments.rows):
            for label, client in clients.items():
                for name in order(list(urls), arguments.repeats):
                    if time.monotonic() > self._deadline_s:
                        self._problems.append(
                            f"out of time ({arguments.budget_s:g} s) at row {row.name}: go on with --rows"
                        )
                        return
                    self._once(label, client, row, name)

    def _once(self, label: str, client: OurClient | VllmClient, row: Row, server: str) -> None:
        seed = random.SystemRandom().getrandbits(31)
        try:
            found = client.run(row, server, seed, self._arguments.seconds)
        except (VibeServeError, OSError, ClientFailed) as error:
            self._problems.append(f"{label}, {server}, {row.name}: {error}")
            return
        run = {"client": label, "server": server, "row": row.name, "at_s": time.time(), **found}
        print(json.dumps(run), flush=True)
        if row is not WARMUP:
            with (self._output / "runs.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(run) + "\n")

    def _audit(self, client: OurClient) -> None:
        """Re-score answers of the benchmarked traffic itself, the servers being gone."""
        limits = _limits()
        for server, answers in client.answers.items():
            if server == VLLM and not any(self._artifacts.glob("*.safetensors")):
                continue  # it ran on dummy weights
            sample = random.SystemRandom().sample(answers, min(AUDITED, len(answers)))
            responses, output = (self._output / f"audit-{server}.{kind}" for kind in ("jsonl", "json"))
            if not sample or not write_answers(responses, sample):
                self._problems.append(f"audit of {server}: no complete answer with token ids")
                continue
            done = subprocess.run(
                audit_command(self._artifacts, responses, output),
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )
            responses.unlink()
            if done.returncode:
                self._problems.append(f"audit of {server}: {done.stderr[-2000:]}")
                continue
            found = json.loads(output.read_text(encoding="utf-8"))
            found = {name: found[name] for name in (*LIMITS, "tokens")}
            output.write_text(json.dumps({"figures": found, "limits": limits}, indent=1) + "\n", encoding="utf-8")
            broken = [
                f"{name} {found[name]:.4g} > {limit:.4g}" for name, limit in limits.items() if found[name] > limit
            ]
            print(f"audit of {server}: {found}: {'FAIL ' + ', '.join(broken) if broken else 'pass'}", flush=True)
            self._problems += [f"audit of {server}: {text}" for text in broken]

    def _report(self) -> None:
        runs = read_runs(self._output / "runs.jsonl")
        tables = [text for text in (markdown(runs, client) for client in (OUR_CLIENT, VLLM_CLIENT)) if text]
        where = ", ".join(f"{name} {value}" for name, value in machine().items() if value)
        text = "\n\n".join([f"Measured on {where}.", *tables, *(f"Problem: {p}" for p in self._problems)])
        (self._output / "table.md").write_text(text + "\n", encoding="utf-8")
        print("\n" + text, flush=True)


def _limits() -> dict[str, float]:

    audit = tomllib.loads((TARGET / "target.toml").read_text(encoding="utf-8"))["audit"]
    return {name: audit[name] for name in LIMITS if name in audit}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for runs.jsonl, table.md, logs")
    parser.add_argument("--server", type=Path, default=TARGET / "seed", help="tree of our server; default: the seed")
    parser.add_argument(
        "--artifacts", type=Path, help="folder that reference/build.py wrote; default: made in --output"
    )
    parser.add_argument(
        "--vllm", type=Path, metavar="SITE", help="folder on PYTHONPATH that has vLLM; without: ours alone"
    )
    parser.add_argument("--vllm-client", action="store_true", help="measure with `vllm bench serve`, too")
    parser.add_argument("--memory", type=float, default=0.5, help="vLLM's share of the GPU's memory")
    parser.add_argument("--rows", help="names or beginnings of names with commas: 64x,max; default: all")
    parser.add_argument("--repeats", type=int, default=3, help="runs per server, row and client")
    parser.add_argument("--seconds", type=float, default=5.0, help="of arrivals per run")
    parser.add_argument("--prompt-ids", type=int, nargs=2, default=PROMPT_IDS, help="range of prompts' tokens")
    parser.add_argument("--budget-s", type=float, default=540.0, help="no run is started later than this")
    return Comparison(parser.parse_args()).run()


if __name__ == "__main__":
    sys.exit(main())
