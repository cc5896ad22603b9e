"""The files that start a cluster: valid by Ray's own check, guarded by a token, in step with each other and docs."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter

from tests.cluster.kuberay_schema import Manifest, RayCluster
from vibeserve.layers import CHECKOUT

KUBERAY = CHECKOUT / "deploy" / "kuberay"
RUN_OR_RESUME = CHECKOUT / "deploy" / "run-or-resume.sh"
LAUNCHERS = [CHECKOUT / "cluster.yaml", CHECKOUT / "deploy" / "on-premises.yaml"]


@pytest.fixture(params=LAUNCHERS, ids=lambda path: str(path.name))
def launcher(request: pytest.FixtureRequest) -> dict[str, Any]:
    """A config of Ray's cluster launcher, as Ray itself completes and checks it."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(yaml.safe_load(request.param.read_text(encoding="utf-8")))
    validate_config(prepared)
    return dict(prepared)


def test_a_launcher_config_that_ray_would_refuse_does_not_pass() -> None:
    from jsonschema import ValidationError
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = yaml.safe_load(LAUNCHERS[0].read_text(encoding="utf-8"))
    config["available_node_types"]["h100"]["resources"]["GPU"] = "eight"
    with pytest.raises(ValidationError, match="eight"):
        validate_config(prepare_config(config))


def test_the_launcher_guards_its_cluster_and_measures_on_workers_alone(launcher: dict[str, Any]) -> None:
    (head,) = [line for line in launcher["head_start_ray_commands"] if "ray start" in line]
    (worker,) = [line for line in launcher["worker_start_ray_commands"] if "ray start" in line]
    for start in (head, worker):
        assert "set -a; RAY_AUTH_MODE=token;" in start
    assert {"--head", "--num-cpus=0", "--num-gpus=0", "--dashboard-host=127.0.0.1"} <= set(head.split())
    assert int(re.findall(r"RAY_JOB_STOP_WAIT_TIME_S=(\d+)", head)[0]) > 300
    assert "VIBESERVE_RUNS_DIR=" in head
    assert launcher["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert launcher["idle_timeout_minutes"] >= 30
    for command in launcher["head_start_ray_commands"] + launcher["worker_start_ray_commands"]:
        subprocess.run(["bash", "-n", "-c", command], check=True)


def test_nodes_install_what_the_project_names(launcher: dict[str, Any]) -> None:
    """Nothing is listed twice: the nodes read pyproject.toml, and the extra for GPUs is one of it."""
    assert launcher["file_mounts"]["~/vibeserve/pyproject.toml"] == "pyproject.toml"
    assert any("-r ~/vibeserve/pyproject.toml" in line for line in launcher["setup_commands"])
    (extra,) = re.findall(r"--extra (\w+)", " ".join(launcher["worker_setup_commands"]))
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert extra in project["optional-dependencies"]


def test_gpu_nodes_of_aws_say_what_they_are() -> None:
    config = yaml.safe_load(LAUNCHERS[0].read_text(encoding="utf-8"))
    nodes = config["available_node_types"]
    assert nodes[config["head_node_type"]]["resources"] == {"CPU": 0, "GPU": 0}
    gpus = {name: node for name, node in nodes.items() if name != config["head_node_type"]}
    assert {node["node_config"]["InstanceType"] for node in gpus.values()} == {"p5.48xlarge", "p5en.48xlarge"}
    for name, node in gpus.items():
        assert node["labels"] == {"ray.io/accelerator-type": name.upper()}
        assert node["resources"]["GPU"] == 8
        assert node["min_workers"] == node["max_workers"]  # the search itself adds no machine that somebody pays for


def manifest(name: str) -> Any:
    return TypeAdapter(Manifest).validate_python(yaml.safe_load((KUBERAY / name).read_text(encoding="utf-8")))


def test_the_kubernetes_cluster_is_guarded_and_measures_on_workers_alone() -> None:
    cluster: RayCluster = manifest("raycluster.yaml")
    head = cluster.spec.headGroupSpec
    assert (head.rayStartParams["num-cpus"], head.rayStartParams["num-gpus"]) == ("0", "0")
    (container,) = head.template.spec.containers
    environment = {variable.name: variable.value for variable in container.env}
    assert int(environment["RAY_JOB_STOP_WAIT_TIME_S"]) > 300
    runs = Path(environment["VIBESERVE_RUNS_DIR"])
    assert any(runs.is_relative_to(mount.mountPath) for mount in container.volumeMounts)
    for group in cluster.spec.workerGroupSpecs:
        assert group.minReplicas <= group.replicas <= group.maxReplicas
        (worker,) = group.template.spec.containers
        assert worker.resources.requests == worker.resources.limits  # CPUs of its own
        assert int(worker.resources.limits.gpu) == 8
        assert worker.image == container.image
        assert (worker.securityContext is None) == group.template.spec.hostUsers  # procMount wants a user namespace
        for pod in (group.template.spec, head.template.spec):
            mounted = {mount.name for mount in pod.containers[0].volumeMounts}
            assert mounted == {volume.name for volume in pod.volumes}


def test_the_kubernetes_objects_fit_together() -> None:
    cluster, job, claim = manifest("raycluster.yaml"), manifest("rayjob.yaml"), manifest("storage.yaml")
    claims = [v.persistentVolumeClaim for v in cluster.spec.headGroupSpec.template.spec.volumes]
    assert [volume.claimName for volume in claims] == [claim.metadata.name]
    assert job.spec.clusterSelector == {"ray.io/cluster": cluster.metadata.name}
    dockerfile = (KUBERAY / "Dockerfile").read_text(encoding="utf-8")
    runtime_env = yaml.safe_load(job.spec.runtimeEnvYAML)
    assert runtime_env == {"working_dir": re.findall(r"^WORKDIR (\S+)$", dockerfile, re.MULTILINE)[0]}
    script = job.spec.entrypoint.split()[1]
    assert CHECKOUT / script == RUN_OR_RESUME


def test_the_kubernetes_cluster_runs_the_ray_that_the_project_wants() -> None:
    from packaging.requirements import Requirement

    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (ray,) = [wanted for wanted in map(Requirement, project["dependencies"]) if wanted.name == "ray"]
    assert ray.specifier.contains(manifest("raycluster.yaml").spec.rayVersion)


@pytest.mark.parametrize(
    ("name", "path", "value"),
    [
        ("raycluster.yaml", ("spec", "authOption"), {"mode": "token"}),
        ("raycluster.yaml", ("spec", "authOptions", "mode"), "disabled"),
        ("raycluster.yaml", ("spec", "headGroupSpec", "rayStartParams", "num-cpus"), 0),
        ("raycluster.yaml", ("spec", "headGroupSpec", "template", "spec", "volume"), []),
        ("rayjob.yaml", ("spec", "entryPoint"), "true"),
        ("storage.yaml", ("spec", "accessModes"), ["ReadWriteAll"]),
    ],
)
def test_a_manifest_with_a_slip_does_not_pass(name: str, path: tuple[str, ...], value: object) -> None:
    data = yaml.safe_load((KUBERAY / name).read_text(encoding="utf-8"))
    part = data
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    with pytest.raises(ValueError, match=path[-1]):
        TypeAdapter(Manifest).validate_python(data)


# --- the page that leads through them ---------------------------------------------------------------------------------


def test_the_page_names_files_that_exist() -> None:
    page = (CHECKOUT / "docs" / "cluster.md").read_text(encoding="utf-8")
    named = set(re.findall(r"(?<![\w/.~])((?:deploy|docs|examples|tests)/[\w./-]*[\w/]|cluster\.yaml)", page))
    assert named >= {"cluster.yaml", "deploy/on-premises.yaml", "deploy/kuberay/raycluster.yaml"}
    assert [name for name in sorted(named) if not (CHECKOUT / name).exists()] == []
    linked = re.findall(r"\]\((?!https?:)([^)#]+)", page)
    assert [link for link in linked if not (CHECKOUT / "docs" / link).exists()] == []


def test_the_config_on_the_page_is_one() -> None:
    from vibeserve.layers import Sources, load_config

    page = (CHECKOUT / "docs" / "cluster.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    assert blocks
    for block in blocks:
        with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
            file.write(block)
            file.flush()
            load_config(Sources(files=[Path(file.name)]))
    for env in re.findall(r"--runtime-env-json '(.*?)'", page):
        assert json.loads(env).keys() == {"env_vars"}
