"""Decides what the driver of a Ray job must not have: its runs in the folder of the job, keys in what Ray tells others.

`ray job submit` copies the checkout into a folder that does not stay, and stores a job's `runtime_env` and metadata in
plain text: everybody who may list jobs reads them, and they remain in the logs of the head node.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from population.errors import ConfigError
from vibeserve.config import ray_job_config

_SECRET_NAME = re.compile(r"(?:^|_)(?:API_?)?(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)$", re.IGNORECASE)
_SECRET_VALUE = re.compile(r"^(?:sk-|hf_|gh[opsu]_|github_pat_|glpat-|xox[abp]-|AKIA|AIza)\w")


def require_fit(runs_dir: Path) -> None:
    """Outside a job, nothing is required.

    Raises:
        ConfigError: the job carries what looks like a key, or `runs_dir` would be lost with it.
    """
    text = ray_job_config()
    if text is None:
        return
    job = _table(json.loads(text))
    environment = _table(job.get("runtime_env"))
    problems = [*_keys("runtime_env", environment.get("env_vars")), *_keys("metadata", job.get("metadata"))]
    if environment.get("working_dir") and runs_dir.resolve().is_relative_to(Path.cwd().resolve()):
        problems.append(
            f"runs_dir: expected a folder that outlives the job, got {runs_dir}, which is in Ray's copy of the "
            "checkout and may be deleted when the job has ended; name one on storage that stays: by --runs-dir "
            "/shared/runs, by runs_dir in the config file, or by VIBESERVE_RUNS_DIR in the environment of the head node"
        )
    if problems:
        raise ConfigError(problems)


def looks_secret(name: str, value: str) -> bool:
    """Whether an environment variable seems to hold a key itself, and not the path of a file with one."""
    if not value or value.startswith(("/", "~", "./")):
        return False
    return bool(_SECRET_NAME.search(name) or _SECRET_VALUE.match(value))


def _keys(where: str, values: object) -> Iterator[str]:
    """A sentence for each; never with the value."""
    for name, value in _table(values).items():
        if looks_secret(name, str(value)):
            yield (
                f"{where}: {name} looks like a key, and `ray job list` and the logs of the head node show a job's "
                f"{where} in plain text. Take the key to be known and revoke it; submit the job without it, and set "
                f"{name} in the environment of `ray start` on the nodes (docs/cluster.md, Secrets)"
            )


def _table(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}
