"""A deployed candidate runs, passes its checker and is described without VibeServe."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from evaluators.fingerprint import snapshot
from evaluators.load.workload import Load, Slo
from evaluators.target import load_target
from population.candidate import Operator, Proposal
from population.events import Ended, FinalMeasured, MutationDone, Proposed
from population.genome import Genome
from tests.vibeserve.fabricated import FabricatedRun, scored, small_run
from tests.vibeserve.recorded import TOY
from tests.vibeserve.test_cli import free_port, until_healthy
from vibeserve.cli import app
from vibeserve.deployment.pinning import pins
from vibeserve.deployment.text import bench_lines
from vibeserve.layers import CHECKOUT

DEADLINE_S = 60.0
TINY = CHECKOUT / "examples" / "tiny-llama"


def finished_run(tmp_path: Path, target: Path) -> Path:
    """A run whose candidate 1 is the target's seed, with everything that a run leaves."""
    run = FabricatedRun.create(tmp_path / "runs", f"{target.name}-run")
    run.child(0, scored(100, 50), Operator.SEED)
    commit = run.repository.commit_tree(target / "seed", parents=[run.commits["c000000"]], message="it", number=1)
    run.append(Proposed(proposal=Proposal(number=1, operator=Operator.RECIPE, parents=("c000000",), recipe="kv")))
    run.append(MutationDone(number=1, commit=commit.sha, tree=commit.tree, genome=Genome()))
    run.append(Ended(number=1, evaluation=scored(200, 40, **{"p99_ttft_ms@low": 90.0})))
    run.append(FinalMeasured(subject="c000001", evaluation=scored(190, 41)))
    run.close()
    snapshot(load_target(target), run.folder / "target")
    (run.folder / "claims").mkdir()
    gains = {"output_throughput": {"verdict": "better", "claimed": 1.8}}
    claim = {"candidate": "c000001", "against": "seed", "pairs": 10, "claim": True, "gains": gains}
    (run.folder / "claims" / "1.json").write_text(json.dumps(claim))
    return run.folder


def deploy(run_dir: Path, folder: Path) -> dict[str, Any]:
    result = CliRunner().invoke(app, ["deploy", "1", str(folder), "--run", str(run_dir), "--json"])
    assert result.exit_code == 0, result.output
    value: dict[str, Any] = json.loads(result.stdout)
    return value


def outside(**more: str) -> dict[str, str]:
    """An environment that knows nothing of the checkout."""
    return {"PATH": os.environ["PATH"], "HOME": "/nonexistent", **more}


def own_environment(folder: Path) -> Path:
    """As after the README's `python -m venv env`; what was started with it is told in the file that is returned."""
    used, python = folder / "used", folder / "env" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\necho "$1" >> "{used}"\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return used


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """serve.sh, ready to answer."""
    port = free_port()
    with subprocess.Popen([str(folder / "serve.sh")], cwd="/", env=outside(PORT=str(port))) as child:
        try:
            yield until_healthy(child, port, DEADLINE_S)
        finally:
            child.kill()


@pytest.mark.parametrize("target", [TOY, TINY], ids=lambda path: path.name)
def test_it_boots_and_passes_its_checker_outside_vibeserve(tmp_path: Path, target: Path) -> None:
    deploy(finished_run(tmp_path, target), tmp_path / "deployed")
    folder = (tmp_path / "deployed").rename(tmp_path / "shipped to another place")
    used = own_environment(folder)
    with serving(folder) as url:
        check = subprocess.run(
            [folder / "check.sh"], cwd="/", env=outside(URL=url), capture_output=True, text=True, timeout=DEADLINE_S
        )
    assert check.returncode == 0, check.stdout + check.stderr
    assert (folder / "check.json").is_file()
    assert used.read_text().splitlines()[-2:] == ["server.py", "accuracy_checker/checker.py"]
    assert "Imported" not in (folder / "requirements-check.txt").read_text(), "the checker needs no VibeServe"


def test_bench_sh_measures_it_under_the_loads_of_the_search(tmp_path: Path) -> None:
    folder, programs = tmp_path / "deployed", tmp_path / "bin"
    deploy(finished_run(tmp_path, TOY), folder)
    programs.mkdir()
    command = f'#!/bin/sh\nPYTHONPATH={CHECKOUT} exec {sys.executable} -m vibeserve "$@"\n'
    vllm = f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n'
    for name, text in (("vibeserve", command), ("vllm", vllm)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    env = outside(PATH=f"{programs}:{os.environ['PATH']}", REPEATS="1", TOKENIZER="/tokenizer")
    with serving(folder) as url:
        done = subprocess.run(
            [folder / "bench.sh"], cwd="/", env={**env, "URL": url}, capture_output=True, text=True, timeout=DEADLINE_S
        )
    assert done.returncode == 0, done.stdout + done.stderr
    measured = json.loads((folder / "bench" / "vibeserve.json").read_text())
    assert measured["metrics"]["output_throughput@high"]["value"] > 0
    assert [line.split()[0] for line in done.stdout.splitlines()[-3:]] == [
        "metric@load",
        "output_throughput@high",
        "median_ttft_ms@low",
    ], "what the search measured stands beside it"
    low, high = (tmp_path / "asked").read_text().splitlines()
    assert "--request-rate 20" in low and "--random-input-len 8" in low and '{"input": 0.25, "output": 0}' in low
    assert "--max-concurrency 6" in high and "--request-rate" not in high


def test_bench_sh_fails_where_nothing_can_measure(tmp_path: Path) -> None:
    folder = tmp_path / "deployed"
    deploy(finished_run(tmp_path, TOY), folder)
    done = subprocess.run([folder / "bench.sh"], env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True)
    assert (done.returncode, "it needs `vibeserve`" in done.stderr) == (1, True), done.stderr
    assert "it needs vllm" in done.stderr and done.stderr.endswith("nothing was measured\n")


def test_manifests_say_what_the_target_says(tmp_path: Path) -> None:
    gpu = tmp_path / "gpu"
    snapshot(load_target(TOY), gpu)
    settings = gpu / "target.toml"
    resources = '[resources]\ncpus = 4\nnum_gpus = 2\naccelerator_type = "H200"'
    settings.write_text(settings.read_text().replace("[resources]\ncpus = 1", resources))
    folder = tmp_path / "deployed"
    made = deploy(finished_run(tmp_path, gpu), folder)
    deployment, service, policy = yaml.safe_load_all((folder / "kubernetes.yaml").read_text())
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["image"] == made["image"] == "toy:c000001"
    assert container["resources"] == {"requests": {"cpu": "4"}, "limits": {"nvidia.com/gpu": "2"}}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"] == {"path": "/health", "port": "http"}
    start = container["startupProbe"]
    assert start["failureThreshold"] * start["periodSeconds"] >= 30, "10 s to be ready, 20 s to build the artifacts"
    assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in pod["volumes"]}
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert labels == deployment["spec"]["selector"]["matchLabels"] == service["spec"]["selector"]
    assert policy["spec"]["egress"] == []
    assert "# Measured on H200. Pin it" in (folder / "kubernetes.yaml").read_text()
    compose = yaml.safe_load((folder / "compose.yaml").read_text())["services"]["server"]
    assert compose["deploy"]["resources"]["reservations"]["devices"][0]["count"] == 2
    (application,) = yaml.safe_load((folder / "ray_serve.yaml").read_text())["applications"]
    options = application["deployments"][0]["ray_actor_options"]
    assert options == {"num_cpus": 4, "num_gpus": 2, "accelerator_type": "H200"}
    assert application["runtime_env"]["env_vars"]["PYTHONPATH"] == str(folder)
    assert "{{" not in "".join(f.read_text() for f in folder.iterdir() if f.is_file() and f.suffix != ".py")
    assert "gcc" in (folder / "Dockerfile").read_text()


def test_the_evidence_and_the_readme_say_what_is_known(tmp_path: Path) -> None:
    folder = tmp_path / "deployed"
    deploy(finished_run(tmp_path, TOY), folder)
    evidence = folder / "evidence"
    measured = json.loads((evidence / "measurements.json").read_text(), parse_constant=pytest.fail)
    assert measured["objectives"]["output_throughput"]["value"] == pytest.approx(200)
    assert measured["held_out"]["output_throughput"]["value"] == pytest.approx(190)
    assert measured["metrics"]["p99_ttft_ms@low"]["value"] == pytest.approx(90)
    verdicts = json.loads((evidence / "verdicts.json").read_text())
    assert [e["verdict"] for e in verdicts["evaluations"]] == ["scored", "scored"]
    assert verdicts["evaluations"][0]["audit"] == {"max_gap": 0.01}
    assert json.loads((evidence / "fingerprint.json").read_text())["lineage"] == ["c000001", "c000000"]
    assert "+++ b/engine.py" in (evidence / "changes.diff").read_text()
    assert (evidence / "claims" / "1.json").is_file()
    readme = (folder / "README.md").read_text()
    for part in (
        "| output_throughput | 200 tok/s",
        "190 tok/s",
        "Verified against the seed in 10 pairs: output_throughput: better, 1.80×",
        "When the specialisation stops being valid",
        "| low | 20 requests/s | 6–10 | 6 |",
        "longest request | 18 tokens",
    ):
        assert part in readme, part
    target = load_target(folder)
    assert target.loads, "with `vibeserve judge . server` everything can be judged again"


def test_the_environment_is_pinned_with_what_it_needs_in_turn(tmp_path: Path) -> None:
    (tmp_path / "local.py").write_text("import os\n")
    (tmp_path / "server.py").write_text(
        "import numpy as np\nimport local\nfrom . import sibling\n\n"
        "def late():\n    import aiohttp.web\n    import no_such_thing\n"
    )
    (tmp_path / "broken.py").write_text("import (\n")
    found = pins([tmp_path])
    names = {line.partition("==")[0].lower() for line in found.requirements}
    assert {"numpy", "aiohttp", "yarl", "multidict"} <= names
    assert found.unknown == ("no_such_thing",)
    assert all("==" in line for line in found.requirements)
    assert found.python == ".".join(map(str, sys.version_info[:3]))


def test_the_ray_serve_application_starts_the_server_and_passes_streams_on(tmp_path: Path) -> None:
    folder = tmp_path / "deployed"
    deploy(finished_run(tmp_path, TOY), folder)
    spec = importlib.util.spec_from_file_location("ray_serve_app", folder / "ray_serve_app.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sent = asyncio.run(_through(module.proxy))
    assert [m["type"] for m in sent["lifespan"]] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    start, *parts = sent["http"]
    body = b"".join(part.get("body", b"") for part in parts)
    assert (start["status"], body.count(b"data: "), body.endswith(b"data: [DONE]\n\n")) == (200, 6, True), body
    assert (parts[-1].get("more_body", False), not module.proxy.alive()) == (False, True)


async def _through(proxy: Any) -> dict[str, list[dict[str, Any]]]:
    """One streamed completion between startup and shutdown."""
    sent: dict[str, list[dict[str, Any]]] = {"lifespan": [], "http": []}
    life: asyncio.Queue[dict[str, str]] = asyncio.Queue()
    started = asyncio.Event()

    async def tell(message: dict[str, Any]) -> None:
        sent["lifespan"].append(message)
        started.set()

    async def answer(message: dict[str, Any]) -> None:
        sent["http"].append(message)

    async def ask() -> dict[str, Any]:
        wanted = {
            "model": "toy", "prompt": [10, 11], "max_tokens": 4, "stream": True, "temperature": 0, "ignore_eos": True,
            "stream_options": {"include_usage": True}, "return_token_ids": True,
        }  # fmt: skip
        return {"type": "http.request", "body": json.dumps(wanted).encode(), "more_body": False}

    await life.put({"type": "lifespan.startup"})
    task = asyncio.create_task(proxy({"type": "lifespan"}, life.get, tell))
    await asyncio.wait_for(started.wait(), DEADLINE_S)
    headers = [(b"content-type", b"application/json"), (b"host", b"elsewhere")]
    scope = {"type": "http", "method": "POST", "path": "/v1/completions", "query_string": b"", "headers": headers}
    await asyncio.wait_for(proxy(scope, ask, answer), DEADLINE_S)
    await life.put({"type": "lifespan.shutdown"})
    await asyncio.wait_for(task, DEADLINE_S)
    return sent


def test_only_what_was_proven_is_deployed(tmp_path: Path) -> None:
    run_dir = small_run(tmp_path)
    snapshot(load_target(TOY), run_dir / "target")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    for args, said in (
        (["2", str(tmp_path / "new")], "proven accurate"),
        (["1", str(tmp_path / "full")], "expected an empty folder"),
        (["77", str(tmp_path / "new")], "has no child"),
    ):
        result = CliRunner().invoke(app, ["deploy", *args, "--run", str(run_dir)])
        assert (result.exit_code, said in result.stderr) == (2, True), result.stderr
    assert not (tmp_path / "new").exists()


def test_loads_that_vllm_cannot_run_are_said_to_be_so() -> None:
    rising = Load(name="rising", kind="max-rate", window_s=1.0, slo=Slo(ttft_ms=100))
    talk = Load(name="talk", kind="closed", concurrency=2, num_requests=4, turns=3)
    burst = Load(name="burst", rate_per_s=math.inf, num_requests=64, input_tokens=(10, 30), burstiness=0.5)
    lines = bench_lines(replace(load_target(TOY), loads=(rising, talk, burst)))["THEIRS"]
    assert "load rising searches the highest rate" in lines and "load talk is a conversation" in lines
    assert lines.count("vllm bench serve --base-url") == 1
    assert "--request-rate inf --burstiness 0.5 --num-prompts 64" in lines
    assert subprocess.run(["sh", "-n"], input=f"if true; then\n{lines}\nfi\n", text=True).returncode == 0
