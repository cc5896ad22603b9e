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
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(server: str, row: str, pair: int = 0, **metrics: float) -> dict[str, object]:
    return {"client": "vibeserve", "server": server, "row": row, "pair": pair, "completed": 40, "failed": 0, **metrics}


def latencies(scale: float) -> dict[str, float]:
    names = ("median_ttft_ms", "p99_ttft_ms", "median_tpot_ms", "p99_tpot_ms", "output_throughput")
    return dict(zip(names, (18 * scale, 22 * scale, 5 * scale, 5.1 * scale, 972.0), strict=True))


def cells(text: str, row: str) -> list[list[str]]:
    """Of each table that has the row."""
    lines = [line for line in text.splitlines() if line.startswith(f"| {row} ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_servers_take_turns(compare: ModuleType) -> None:
    assert compare.order(["a", "b"], 3) == ["a", "b", "b", "a", "a", "b"]
    assert compare.order(["a"], 2) == ["a", "a"]


def test_the_table(compare: ModuleType) -> None:
    runs = [run("ours", "64x128r8", n, **latencies(s)) for n, s in enumerate((0.4, 0.41, 0.39))]
    runs += [run("vllm", "64x128r8", n, **latencies(s)) for n, s in enumerate((1.0, 1.02, 0.98))]
    runs += [run("ours", "max", output_throughput=31_000.0), run("vllm", "max", output_throughput=21_000.0)]
    text = compare.markdown(runs, "vibeserve")
    ttft, tpot, throughput = cells(text, "64x128r8")
    assert ttft[1:4] == ["3 : 3", "7.2", "18"]
    assert ttft[4].startswith("2.50 (")
    assert ttft[5:9] == ["≤ 8 met", "3.49: 49%", "8.8", "22"]
    assert ttft[9].startswith("2.50 (")
    assert tpot[2] == "2" and tpot[5] == "≤ 4.2 met"
    assert throughput[2:4] == ["972", "972"] and throughput[7:9] == ["100.0%", "100.0%"]
    assert cells(text, "max")[0][5:7] == ["≥ 30,000 met", "35,928: 86%"]
    missed = cells(compare.markdown([run("ours", "64x128r8", **latencies(1.0))], "vibeserve"), "64x128r8")
    assert [line[5] for line in missed[:2]] == ["≤ 8 missed", "≤ 4.2 missed"]
    assert compare.markdown(runs, "vllm bench serve") == ""


def test_only_runs_of_one_pair_are_compared(compare: ModuleType) -> None:
    """One of ours failed: its partner is left out, and the others keep theirs."""
    runs = [run("ours", "64x128r8", n, **latencies(s)) for n, s in ((1, 0.5), (2, 1.0))]
    runs += [run("vllm", "64x128r8", n, **latencies(s)) for n, s in ((0, 99.0), (1, 1.0), (2, 2.0))]
    assert cells(compare.markdown(runs, "vibeserve"), "64x128r8")[0][4] == "2.00 (2.00–2.00)"


def test_floors_are_those_of_the_hardware() -> None:
    import floors  # type: ignore[import-not-found]
    from rows import ROWS  # type: ignore[import-not-found]

    found = {row.name: (floors.ttft_ms(row), floors.tpot_ms(row)) for row in ROWS}
    assert found["64x128r8"] == pytest.approx((3.49, 3.50), abs=0.01)
    assert found["1024x128r4"] == pytest.approx((18.4, 3.78), abs=0.05)
    assert found["1024x128r8"][1] > found["1024x128r4"][1]
    more = max(ROWS, key=lambda row: row.rate_per_s)
    assert floors.tokens_per_s(more) == pytest.approx(35_900, rel=0.01)


def test_rows_are_chosen_by_name_or_beginning() -> None:
    from rows import chosen

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
    assert [(r["server"], r["row"], r["completed"], r["failed"]) for r in runs] == [("ours", "64x128r8", 24, 0)] * 2
    table = (tmp_path / "out" / "table.md").read_text()
    assert "| 64x128r8 | 2 : 0 |" in table
    assert "Problem: audit of ours" in table
    assert "the checker failed" not in table


PRETENDER = '''
"""Serves like the toy, and benches by writing down what it was asked for."""
import json, os, pathlib, runpy, sys

def main():
    words = sys.argv[1:]
    option = {name: value for name, value in zip(words, words[1:], strict=False) if name.startswith("--")}
    if words[0] == "serve":
        assert option["--load-format"] == "dummy" and "--no-enable-prefix-caching" in words, words
        assert option["--gpu-memory-utilization"] == "0.4" and option["--served-model-name"] == "llama-3.1-8b", words
        sys.argv = ["server.py", "--port", option["--port"], "--artifacts", words[1]]
        runpy.run_path(TOY, run_name="__main__")
        return
    assert words[:2] == ["bench", "serve"] and option["--request-rate"] == "8", words
    print("to be kept away from the answers")
    found = {"median_ttft_ms": 9.0, "p99_ttft_ms": 10.0, "median_tpot_ms": 4.0, "p99_tpot_ms": 5.0, "duration": 1.0}
    found |= {"output_throughput": float(os.getpid()), "completed": int(option["--num-prompts"]), "failed": 0}
    pathlib.Path(option["--result-dir"], option["--result-filename"]).write_text(json.dumps(found))
    marker = pathlib.Path(option["--result-dir"], "fail-once")
    if marker.exists():
        marker.unlink()
        sys.exit("out of luck")

if __name__ == "__main__":
    main()
'''


def test_two_servers_and_two_clients_interleaved(artifacts: Path, tmp_path: Path) -> None:
    package = tmp_path / "site" / "vllm" / "entrypoints" / "cli"
    package.mkdir(parents=True)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "fail-once").touch()
    (package / "main.py").write_text(PRETENDER.replace("TOY", repr(str(TOY / "server.py"))), encoding="utf-8")
    command = [
        sys.executable, BENCHMARKS / "compare.py", "--output", tmp_path / "out", "--server", TOY, "--memory", "0.4",
        "--artifacts", artifacts, "--rows", "64x128r8", "--repeats", "2", "--seconds", "0.5",
        "--prompt-ids", "96", "2031", "--vllm", tmp_path / "site", "--client", "both",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    runs = [json.loads(line) for line in (tmp_path / "out" / "runs.jsonl").read_text().splitlines()]
    turns = ["ours", "vllm", "vllm", "ours"]
    assert [r["server"] for r in runs if r["client"] == "vibeserve"] == turns, done.stdout + done.stderr
    theirs = [r for r in runs if r["client"] == "vllm bench serve"]
    assert [r["server"] for r in theirs] == turns[1:], "the client that broke off has no result"
    assert len({r["output_throughput"] for r in theirs}) == 1, "one process for all runs"
    assert all((r["completed"], r["failed"]) == (24, 0) for r in runs)
    assert runs[0]["pair"] == runs[1]["pair"] != runs[2]["pair"] == runs[3]["pair"]
    table = (tmp_path / "out" / "table.md").read_text()
    assert "Client: vllm bench serve" in table
    assert table.count("| 64x128r8 | 2 : 2 |") == 3
    assert table.count("| 64x128r8 | 1 : 2 |") == 3
    assert "Problem: vllm bench serve, ours, 64x128r8: vllm bench serve: it ended (1)" in table
    assert "out of luck" in table
    assert table.count("Problem: audit of vllm") == 0, "dummy weights cannot be audited"
