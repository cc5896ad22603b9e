"""Decides how `vllm bench serve` is asked for a row: one process for all of its runs, on the client's CPUs."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rows import METRICS, MODEL, Row

Json = dict[str, Any]
SCRIPT = Path(__file__).resolve().parent / "vllm" / "client.py"
IMPORT_TIMEOUT_S, RUN_TIMEOUT_S, END_TIMEOUT_S = 120.0, 120.0, 20.0
KEPT = ("PATH", "HOME", "LD_LIBRARY_PATH", "TMPDIR")


class ClientFailed(Exception):
    """The client broke off: says why."""


class VllmClient:
    """`vllm bench serve`, which sends its prompts as text and believes the server's usage. A context manager."""

    def __init__(self, urls: dict[str, str], artifacts: Path, site: Path, output: Path, cpus: tuple[int, ...]) -> None:
        self._urls, self._artifacts, self._site, self._output, self._cpus = urls, artifacts, site, output, cpus
        self._log = output / "vllm-bench.log"
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def run(self, row: Row, server: str, seed: int, seconds: float) -> Json:
        """One run.

        Raises:
            ClientFailed: it failed or did not end; with the end of what it said.
        """
        result = self._output / f"vllm-bench-{server}-{row.name}.json"
        result.unlink(missing_ok=True)
        words = [
            "--model", MODEL, "--tokenizer", str(self._artifacts), "--base-url", self._urls[server],
            "--dataset-name", "random", "--random-input-len", str(row.input_tokens),
            "--random-output-len", str(row.output_tokens), "--ignore-eos", "--temperature", "0",
            "--request-rate", f"{row.rate_per_s:g}", "--num-prompts", str(row.requests(seconds)),
            "--percentile-metrics", "ttft,tpot", "--metric-percentiles", "50,99", "--seed", str(seed),
            "--disable-tqdm", "--save-result", "--result-dir", str(result.parent), "--result-filename", result.name,
        ]  # fmt: skip
        self._ask(words, RUN_TIMEOUT_S + 10 * seconds)
        found = json.loads(result.read_text(encoding="utf-8"))
        if not found["completed"]:  # it calls that a latency of 0
            raise ClientFailed(f"none of {row.requests(seconds)} requests was served")
        return {name: found[name] for name in METRICS if name in found} | {"flags": []}

    def _ask(self, words: list[str], timeout_s: float) -> None:
        if self._process is None:
            self._process = self._start()
            self._await_answer(IMPORT_TIMEOUT_S)
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended: `_await_answer` says why
            print(json.dumps(words), file=self._process.stdin, flush=True)
        self._await_answer(timeout_s)

    def _start(self) -> subprocess.Popen[str]:
        environment = {name: os.environ[name] for name in KEPT if name in os.environ}
        environment |= {"PYTHONPATH": str(self._site), "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
        with self._log.open("a", encoding="utf-8") as log:
            process = subprocess.Popen(
                [sys.executable, "-P", str(SCRIPT)],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        os.sched_setaffinity(process.pid, self._cpus)
        return process

    def _await_answer(self, timeout_s: float) -> None:
        """A line says that all is well; what ends, or says nothing, is replaced at the next run."""
        assert self._process is not None and self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], timeout_s)
        if ready and self._process.stdout.readline():
            return
        process, self._process = self._process, None
        try:
            code = process.wait(END_TIMEOUT_S if ready else 0)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        said = self._log.read_text(encoding="utf-8", errors="replace")[-1500:].strip()
        why = f"it ended ({code})" if ready else f"it did not end within {timeout_s:g} s"
        raise ClientFailed(f"vllm bench serve: {why}:\n{said}")
