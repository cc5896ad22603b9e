"""Decides what a candidate needs in production, without VibeServe: its tree, environment, manifests and evidence."""

from __future__ import annotations

import json
import math
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from evaluators.target import Target, load_target
from evaluators.target_schema import ResourcesTable
from population.errors import InfrastructureError, UsageError
from vibeserve.deployment.evidence import Case, write_evidence
from vibeserve.deployment.pinning import Pins, pins
from vibeserve.deployment.text import bench_lines, readme_words
from vibeserve.dossier import dossier
from vibeserve.export import PORT, export_candidate, find_python, shell_command
from vibeserve.runs import Reference, read_run, require_target

TEMPLATES = Path(__file__).resolve().parents[1] / "templates" / "deploy"
_LAYOUT = ("OBJECTIVE.md", "objectives.toml", "target.toml", "accuracy_checker", "benchmark")
"""Parts of the target that go with the server, beside `reference`: what checks and measures it again."""
_SCRIPTS = ("check.sh", "bench.sh")


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployed:
    """Where everything was written, and what the writer should know."""

    candidate: str
    commit: str
    folder: Path
    image: str
    files: tuple[str, ...]
    warnings: tuple[str, ...]


def deploy(reference: Reference, folder: Path, image: str | None = None) -> Deployed:
    """Write a folder that builds, starts, checks and measures the candidate anywhere.

    Raises:
        UsageError: no such candidate, it was rejected, or the folder is not empty.
        ConfigError: the target's snapshot is malformed.
        InfrastructureError: the folder cannot be written.
    """
    found = dossier(reference)
    if not found.verdict.startswith("scored"):
        raise UsageError(f"{found.id} was {found.verdict}: only a server that was proven accurate is deployed")
    target = load_target(require_target(reference.run_dir))
    exported = export_candidate(reference, folder)
    case = Case(run_dir=reference.run_dir, state=read_run(reference.run_dir)[1], found=found)
    name = image or f"{_kube_name(target.name)}:{found.id}"
    try:
        for part in _LAYOUT:
            _copy(target.folder / part, folder / part)
        serving = pins([folder / "server", folder / "reference"])
        own_benchmark = ("benchmark",) if target.benchmark.command is not None else ()
        checking = pins([folder / part for part in ("accuracy_checker", "reference", *own_benchmark)])
        (folder / "requirements.txt").write_text(serving.text(), encoding="utf-8")
        (folder / "requirements-check.txt").write_text(checking.text(), encoding="utf-8")
        (folder / ".python-version").write_text(serving.python + "\n", encoding="utf-8")
        write_evidence(case, folder / "evidence", serving)
        words = _words(case, target, serving, folder, name) | readme_words(case, target, serving)
        _fill_templates(folder, words)
        _write_settings(folder, target)
    except OSError as error:
        raise InfrastructureError(f"{folder}: cannot be written: {error.strerror or error}") from error
    return Deployed(
        candidate=found.id,
        commit=exported.commit,
        folder=folder,
        image=name,
        files=tuple(sorted(path.name for path in folder.iterdir())),
        warnings=_warnings(case, serving),
    )


def start_s(target: Target) -> int:
    """Seconds that a first start may take: building the artifacts, and becoming ready."""
    built = target.artifacts.timeout_s if target.artifacts else 0.0
    return math.ceil(target.server.ready_timeout_s + built)


def grace_s(target: Target) -> int:
    """Seconds between asking the server to end and ending it."""
    return math.ceil(target.server.stop_grace_s) + 5


def _words(case: Case, target: Target, pinned: Pins, folder: Path, image: str) -> dict[str, str]:
    """What the templates leave open, but for the README's own words."""
    return {
        "NAME": target.name, "CANDIDATE": case.found.id, "RUN": case.found.run, "COMMIT": case.found.commit or "",
        "IMAGE": image, "KUBE_NAME": _kube_name(target.name), "PORT": str(PORT), "MODEL": target.model.name,
        "PYTHON": pinned.python, "PYTHON_MINOR": ".".join(pinned.python.split(".")[:2]),
        "FIND_PYTHON": find_python(), "READY_PATH": target.server.ready_path,
        "START_S": str(start_s(target)), "START_FAILURES": str(math.ceil(start_s(target) / 5) + 1),
        "GRACE_S": str(grace_s(target)), "FOLDER": str(folder.absolute()),
        "COMMAND": shell_command(target.accuracy.command, url="URL", output="OUTPUT"),
        **_resource_words(target.resources),
        **bench_lines(target),
    }  # fmt: skip


def _resource_words(resources: ResourcesTable) -> dict[str, str]:
    """What the server was measured with, as Kubernetes, Ray and Compose spell it."""
    cpus, gpus, kind = resources.cpus, resources.num_gpus, resources.accelerator_type
    actor, limits, compose = f"num_cpus: {cpus}, num_gpus: {gpus}", f'cpu: "{cpus}"', f'    cpus: "{cpus}"\n'
    compiler = nodes = ""
    if gpus:
        limits = f'nvidia.com/gpu: "{gpus}"'
        compose = (
            "    shm_size: 8gb\n    deploy:\n      resources:\n        reservations:\n          devices:\n"
            f"            - {{driver: nvidia, count: {gpus}, capabilities: [gpu]}}\n"
        )
        # Triton and torch.compile call a compiler when the server starts.
        install = "apt-get install -y --no-install-recommends gcc libc6-dev"
        compiler = f"RUN apt-get update && {install} && rm -rf /var/lib/apt/lists/*\n"
    if kind:
        actor += f", accelerator_type: {json.dumps(kind)}"
        nodes = f"      # Measured on {kind}. Pin it, e.g.: nodeSelector: {{nvidia.com/gpu.product: NVIDIA-{kind}}}\n"
    return {
        "CPUS": str(cpus), "LIMITS": limits, "ACTOR": actor, "COMPOSE_RESOURCES": compose, "APT": compiler,
        "NODES": nodes,
    }  # fmt: skip


def _fill_templates(folder: Path, words: dict[str, str]) -> None:
    for template in sorted(path for path in TEMPLATES.iterdir() if path.is_file()):
        text = template.read_text(encoding="utf-8")
        place = folder / (".dockerignore" if template.name == "dockerignore" else template.name)
        if template.suffix != ".py":
            text = re.sub(r"\{\{([A-Z_]+)\}\}", lambda match: words[match[1]], text)
        place.write_text(text, encoding="utf-8")
        if template.name in _SCRIPTS:
            place.chmod(0o755)


def _write_settings(folder: Path, target: Target) -> None:
    settings = {"ready_path": target.server.ready_path, "start_s": start_s(target), "grace_s": grace_s(target)}
    (folder / "deployment.json").write_text(json.dumps(settings) + "\n", encoding="utf-8")


def _copy(source: Path, destination: Path) -> None:
    ignored = shutil.ignore_patterns("__pycache__", "*.pyc", ".git")
    if source.is_dir():
        shutil.copytree(source, destination, ignore=ignored)
    elif source.is_file():
        shutil.copy2(source, destination)


def _warnings(case: Case, pinned: Pins) -> tuple[str, ...]:
    found = []
    if pinned.unknown:
        found.append(f"imports that no installed package provides: {', '.join(pinned.unknown)}; see requirements.txt")
    if not case.hardware:
        found.append("the run did not record its hardware; name it in README.md yourself")
    if not any(subject == case.found.id for subject, _ in case.state.finals):
        found.append("it was not measured on the held-out trace; `vibeserve verify` measures it afresh")
    if case.found.gaps:
        found.append(
            f"it was measured under isolation tier {case.found.tier}, which left open: {'; '.join(case.found.gaps)}"
        )
    return tuple(found)


def _kube_name(name: str) -> str:
    """A DNS label."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:50] or "server"
