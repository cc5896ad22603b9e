"""The comparison's script: turns that cancel drift, a table that says what was measured, and a whole run in small."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from llama import BENCHMARKS, CHECKOUT, TOY


@pytest.fixture(scope="module")
def compare() -> ModuleType:
    sys.path[:0] = [str(BENCHMARKS), str(CHECKOUT)]
    spec = importlib.util.spec_from_file_location("llama_compare", BENCHMARKS / "compare.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(server: str, row: str, **metrics: float) -> dict[str, object]:
    return {"client": "vibeserve", "server": server, "row": row, "completed": 40, "failed": 0, **metrics}


def latencies(scale: float) -> dict[str, float]:
    names = ("median_ttft_ms", "p99_ttft_ms", "median_tpot_ms", "p99_tpot_ms", "output_throughput")
    return dict(zip(names, (18 * scale, 22 * scale, 5 * scale, 5.1 * scale, 972.0), strict=True))


def test_servers_take_turns(compare: ModuleType) -> None:
    assert compare.order(["a", "b"], 3) == ["a", "b", "b", "a", "a", "b"]
    assert compare.order(["a"], 2) == ["a", "a"]


def test_the_table(compare: ModuleType) -> None:
    runs = [run("ours", "64x128r8", **latencies(s)) for s in (0.4, 0.41, 0.39)]
    runs += [run("vllm", "64x128r8", **latencies(s)) for s in (1.0, 1.02, 0.98)]
    runs += [run("ours", "max", output_throughput=31_000.0), run("vllm", "max", output_throughput=21_000.0)]
    text = compare.markdown(runs, "vibeserve")
    (line,) = [line for line in text.splitlines() if line.startswith("| 64x128r8 ")]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[1:4] == ["3 : 3", "972", "7.2 / 8.8"]
    assert cells[7].startswith("2.50 (")
    assert cells[9] == "≤ 8 met, ≤ 4.2 met"
    assert "≥ 30,000 met" in text
    missed = compare.markdown([run("ours", "64x128r8", **latencies(1.0))], "vibeserve")
    assert "≤ 8 missed, ≤ 4.2 missed" in missed
    assert compare.markdown(runs, "vllm bench serve") == ""


def test_rows_are_chosen_by_name_or_beginning() -> None:
    from rows import chosen  # type: ignore[import-not-found]

    assert [row.name for row in chosen("64x128r8,max")] == ["64x128r8", "max"]
    assert len(chosen("64x")) == len(chosen("1024x")) == 4
    assert len(chosen(None)) == 9
    with pytest.raises(ValueError, match="expected rows among 64x128r8"):
        chosen("65x")


def test_a_whole_run_in_small(compare: ModuleType, artifacts: Path, tmp_path: Path) -> None:
    """A server that computes nothing: measured, and found out by the audit (or not scored, without PyTorch)."""
    command = [
        sys.executable, BENCHMARKS / "compare.py", "--output", tmp_path / "out", "--server", TOY,
        "--artifacts", artifacts,
        "--rows", "64x128r8", "--repeats", "2", "--seconds", "0.5", "--prompt-ids", "96", "2031",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 1, done.stderr
    runs = [json.loads(line) for line in (tmp_path / "out" / "runs.jsonl").read_text().splitlines()]
    assert [(r["server"], r["row"], r["completed"], r["failed"]) for r in runs] == [("ours", "64x128r8", 16, 0)] * 2
    table = (tmp_path / "out" / "table.md").read_text()
    assert "| 64x128r8 | 2 : 0 |" in table
    assert "Problem: audit of ours" in table
    assert "the checker failed" not in table


PRETENDER = '''
"""Serves like the toy, and benches by writing down what it was asked for."""
import json, pathlib, runpy, sys

words = sys.argv[1:]
option = {name: value for name, value in zip(words, words[1:], strict=False) if name.startswith("--")}
if words[0] == "serve":
    assert option["--load-format"] == "dummy" and "--no-enable-prefix-caching" in words, words
    assert option["--gpu-memory-utilization"] == "0.4" and option["--served-model-name"] == "llama-3.1-8b", words
    sys.argv = ["server.py", "--port", option["--port"], "--artifacts", words[1]]
    runpy.run_path(TOY, run_name="__main__")
else:
    assert words[:2] == ["bench", "serve"] and option["--request-rate"] == "8", words
    found = {"median_ttft_ms": 9.0, "p99_ttft_ms": 10.0, "median_tpot_ms": 4.0, "p99_tpot_ms": 5.0}
    found |= {"output_throughput": 900.0, "completed": int(option["--num-prompts"]), "failed": 0, "duration": 1.0}
    pathlib.Path(option["--result-dir"], option["--result-filename"]).write_text(json.dumps(found))
'''


def test_two_servers_and_two_clients_interleaved(artifacts: Path, tmp_path: Path) -> None:
    package = tmp_path / "site" / "vllm" / "entrypoints" / "cli"
    package.mkdir(parents=True)
    (package / "main.py").write_text(PRETENDER.replace("TOY", repr(str(TOY / "server.py"))), encoding="utf-8")
    command = [
        sys.executable, BENCHMARKS / "compare.py", "--output", tmp_path / "out", "--server", TOY, "--memory", "0.4",
        "--artifacts", artifacts, "--rows", "64x128r8", "--repeats", "2", "--seconds", "0.5",
        "--prompt-ids", "96", "2031", "--vllm", tmp_path / "site", "--vllm-client",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    runs = [json.loads(line) for line in (tmp_path / "out" / "runs.jsonl").read_text().splitlines()]
    turns = ["ours", "vllm", "vllm", "ours"]
    assert [r["server"] for r in runs if r["client"] == "vibeserve"] == turns, done.stdout + done.stderr
    assert [r["server"] for r in runs if r["client"] == "vllm bench serve"] == turns
    assert all((r["completed"], r["failed"]) == (16, 0) for r in runs)
    table = (tmp_path / "out" / "table.md").read_text()
    assert "Client: vllm bench serve" in table
    assert table.count("| 64x128r8 | 2 : 2 |") == 2
    assert table.count("Problem: ") == table.count("Problem: audit of ours"), "dummy weights cannot be audited"
