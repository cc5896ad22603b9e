"""What surrounds an evaluation: who gets which CPUs, and which GPUs the target's commands see."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from evaluators.evaluator import EvaluationTask, Lease
from evaluators.preparation import prepare
from evaluators.roofline import Roof
from evaluators.sandbox import PlainSandbox
from evaluators.site import Site
from evaluators.target import Target, load_target

SHOW_GPUS = (
    "import argparse, json, os, pathlib\np = argparse.ArgumentParser(); p.add_argument('--output')\n"
    "gpus = os.environ['CUDA_VISIBLE_DEVICES'].split(',')\n"
    "found = {'request_throughput': 1 + len([gpu for gpu in gpus if gpu])}\n"
    "pathlib.Path(p.parse_args().output).write_text(json.dumps(found))\n"
)


def site(target: Target, task: EvaluationTask, cpus: tuple[int, ...], folder: Path) -> Site:
    lease = Lease(cpus=cpus, scratch=folder)
    return Site(
        task=task, lease=lease, target=target, artifacts=folder, vocab=(), roof=Roof(), sandbox=PlainSandbox(),
        scratch=folder, noise_retries=0, output=folder / "output", compiled=folder / "compiled",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("cpus", "client_cpus", "of_server", "of_client"),
    [
        (6, 2, (0, 1, 2, 3), (4, 5)),
        (3, 1, (0, 1), (2,)),
        (2, 4, (0,), (1,)),
        (1, 1, (0,), (0,)),
    ],
)
def test_server_and_client_share_the_cpus_of_the_lease(
    toy: Path,
    task: EvaluationTask,
    tmp_path: Path,
    cpus: int,
    client_cpus: int,
    of_server: tuple[int, ...],
    of_client: tuple[int, ...],
) -> None:
    target = load_target(toy)
    target = replace(target, resources=replace(target.resources, client_cpus=client_cpus))
    made = site(target, task, tuple(range(cpus)), tmp_path)
    assert made.client(None).cpus == of_client
    assert made.server(None)._command.cpus == of_server


def test_the_roofline_is_measured_on_the_gpus_of_the_lease(toy: Path, tmp_path: Path) -> None:
    (toy / "roofline.py").write_text(SHOW_GPUS)
    with (toy / "target.toml").open("a") as settings:
        settings.write('\n[roofline]\ncommand = ["{python}", "roofline.py", "--output", "{output}"]\n')
    for gpus in [(), ("0",), ("1", "3")]:
        assert prepare(toy, tmp_path, (), gpus).roof.best["request_throughput"] == 1 + len(gpus)


class Confining(PlainSandbox):
    tier = "A"


@pytest.mark.parametrize(
    ("first_party", "sandbox", "trusted"),
    [(True, PlainSandbox(), True), (False, PlainSandbox(), False), (True, Confining(), False)],
)
def test_only_our_own_trees_where_they_run_unconfined_keep_anything_between_boots(
    toy: Path, task: EvaluationTask, tmp_path: Path, first_party: bool, sandbox: PlainSandbox, trusted: bool
) -> None:
    task = replace(task, first_party=first_party)
    made = replace(site(load_target(toy), task, (0,), tmp_path), sandbox=sandbox)
    assert made.restarts is not trusted
    caches = {made.server(None)._command.env[f"{name}_DIR"] for name in ("TRITON_CACHE", "TORCHINDUCTOR_CACHE")}
    kept = made.compiled if trusted else made.home
    assert all(Path(folder).is_relative_to(kept) for folder in caches)
