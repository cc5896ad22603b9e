"""Builds, checks, times and writes the table: our server and vLLM on one GPU, interleaved, under the same clients.

    python benchmarks/llama-3.1-8b/compare.py --output DIR [--vllm --client both] [--rows 64x,max] [--repeats 3]

Both servers stay up, on the same GPU and the same CPUs, and take turns, A B B A A B …, so that a drift of the machine
hits both alike; each pair gets the same arrivals. Every run is appended to DIR/runs.jsonl at once, and the tables are
made of all that is there: a call that covers some rows (`--rows`) adds to those before it, on the same kind of machine.
A step that fails is reported, and the rest goes on.

Without --vllm our server is measured alone.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import sysconfig
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contestants import OURS, TARGET, VLLM, StartFailed, contestants, machine, running
from rows import OUR_CLIENT, PROMPT_IDS, VLLM_CLIENT, OurClient, Row, audit_command, chosen, sample, write_answers
from table import markdown, read_runs
from trees import FASTEST, make_tree
from vllm_client import ClientFailed, VllmClient

from population.errors import VibeServeError

Json = dict[str, Any]
CHECKER = TARGET / "accuracy_checker" / "checker.py"
LIMITS = ("max_gap", "p999_gap", "mean_gap", "flip_rate")
CLIENT_CPUS = 6
BOTH = "both"
AUDITED = 96
"""Answers of the benchmark that are re-scored, from all rows alike."""
WARMUPS = (
    Row(name="warmup", input_tokens=64, output_tokens=32, rate_per_s=64),
    Row(name="warmup-long", input_tokens=1024, output_tokens=32, rate_per_s=16),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One run: both servers of a pair get the same arrivals and prompts, which neither has seen before."""

    row: Row
    server: str
    seed: int


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
        tree = arguments.server or self._output / "tree"
        if arguments.server is None and not tree.is_dir():
            make_tree(tree, arguments.recipes.split(","))
        entrants = contestants(tree.resolve(), arguments.vllm, arguments.memory)
        cpus = tuple(sorted(os.sched_getaffinity(0)))
        share = min(CLIENT_CPUS, max(1, len(cpus) // 2))
        try:
            with running(entrants, self._artifacts, self._output, cpus[:-share] or cpus) as urls:
                low, high = arguments.prompt_ids
                ours = OurClient(urls, cpus[-share:], (low, high))
                self._check(urls)
                with VllmClient(urls, self._artifacts, arguments.vllm, self._output, cpus[-share:]) as theirs:
                    self._measure(list(urls), ours, theirs)
        except StartFailed as error:
            self._problems.append(str(error))
        else:
            if arguments.client != VLLM_CLIENT:  # which keeps no answers
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

    def _measure(self, servers: list[str], ours: OurClient, theirs: VllmClient) -> None:
        arguments = self._arguments
        clients: dict[str, OurClient | VllmClient] = {OUR_CLIENT: ours, VLLM_CLIENT: theirs}
        for server in servers:
            for row in WARMUPS:
                self._once(OUR_CLIENT, ours, Turn(row=row, server=server, seed=_seed()))
            ours.answers[server].clear()
        for label, client in clients.items():
            if arguments.client not in (label, BOTH):
                continue
            for row in chosen(arguments.rows):
                seeds = [_seed() for _ in range(arguments.repeats)]
                for place, server in enumerate(order(servers, arguments.repeats)):
                    if time.monotonic() > self._deadline_s:
                        self._problems.append(
                            f"out of time ({arguments.budget_s:g} s) at row {row.name}: go on with --rows"
                        )
                        return
                    seed = seeds[place // len(servers)]
                    self._once(label, client, Turn(row=row, server=server, seed=seed))

    def _once(self, label: str, client: OurClient | VllmClient, turn: Turn) -> None:
        row, server = turn.row, turn.server
        try:
            found = client.run(row, server, turn.seed, self._arguments.seconds)
        except (VibeServeError, OSError, ClientFailed) as error:
            self._problems.append(f"{label}, {server}, {row.name}: {error}")
            return
        run = {"client": label, "server": server, "row": row.name, "pair": turn.seed, "at_s": time.time(), **found}
        print(json.dumps(run), flush=True)
        if row not in WARMUPS:
            with (self._output / "runs.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(run) + "\n")

    def _audit(self, client: OurClient) -> None:
        """Re-score answers of the benchmarked traffic itself, the servers being gone."""
        limits = _limits()
        for server, answers in client.answers.items():
            if server == VLLM and not any(self._artifacts.glob("*.safetensors")):
                continue  # it ran on dummy weights
            responses, output = (self._output / f"audit-{server}.{kind}" for kind in ("jsonl", "json"))
            if not write_answers(responses, sample(answers, AUDITED)):
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


def _seed() -> int:
    return random.SystemRandom().getrandbits(31)


def _limits() -> dict[str, float]:
    audit = tomllib.loads((TARGET / "target.toml").read_text(encoding="utf-8"))["audit"]
    return {name: audit[name] for name in LIMITS if name in audit}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for runs.jsonl, table.md, logs")
    parser.add_argument("--recipes", default=",".join(FASTEST), help="our server is the seed with these; default: all")
    parser.add_argument("--server", type=Path, help="tree of our server instead, say one that `vibeserve export` wrote")
    parser.add_argument(
        "--artifacts", type=Path, help="folder that reference/build.py wrote; default: made in --output"
    )
    parser.add_argument(
        "--vllm", type=Path, metavar="SITE", nargs="?", const=Path(sysconfig.get_path("purelib")),
        help="measure vLLM, too; SITE: the folder that `pip install --target` put it in, if it is not installed here",
    )  # fmt: skip
    parser.add_argument(
        "--client", choices=(OUR_CLIENT, VLLM_CLIENT, BOTH), default=OUR_CLIENT,
        help="who asks; vLLM's needs --vllm; default: ours",
    )  # fmt: skip
    parser.add_argument("--memory", type=float, default=0.5, help="vLLM's share of the GPU's memory")
    parser.add_argument("--rows", help="names or beginnings of names with commas: 64x,max; default: all")
    parser.add_argument("--repeats", type=int, default=3, help="runs per server, row and client")
    parser.add_argument("--seconds", type=float, default=5.0, help="of arrivals per run")
    parser.add_argument("--prompt-ids", type=int, nargs=2, default=PROMPT_IDS, help="range of prompts' tokens")
    parser.add_argument("--budget-s", type=float, default=540.0, help="no run is started later than this")
    arguments = parser.parse_args()
    if arguments.client != OUR_CLIENT and arguments.vllm is None:
        parser.error(f"--client {arguments.client!r} needs --vllm SITE, where that client is")
    return Comparison(arguments).run()


if __name__ == "__main__":
    sys.exit(main())
