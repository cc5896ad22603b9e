"""Decides what a candidate looks like outside its run: its files, a script that starts it, and what it measured."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluators.target import Target, load_target
from population.archive import Archive
from population.errors import InfrastructureError, UsageError
from population.repository import Repository
from vibeserve.front_rows import candidate_row
from vibeserve.runs import Reference, read_run, require_target
from vibeserve.wording import gain, number

PORT = 8000
"""Where a server answers unless it is told otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """Where a server was written, and how it is started."""

    candidate: str
    commit: str
    folder: Path
    command: str
    url: str


def export_candidate(reference: Reference, folder: Path) -> Exported:
    """Write the candidate's tree to `folder`/server, what builds its artifacts to `folder`/reference, and `serve.sh`.

    Raises:
        UsageError: no such candidate, or the folder is not empty.
        ConfigError: the target's snapshot is malformed.
        InfrastructureError: the folder cannot be written.
    """
    _, state = read_run(reference.run_dir)
    archive = state.archive
    found = archive.candidates.get(reference.candidate)
    if found is None:
        raise UsageError(f"{reference.run_dir.name} has no commit for {reference.candidate}; see `vibeserve front`")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder}: expected an empty folder or none, found files; choose another")
    target = load_target(require_target(reference.run_dir))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        Repository.open(reference.run_dir / "population.git").export(found.commit, folder / "server")
        shutil.copytree(target.folder / "reference", folder / "reference")
        _write_script(folder, target)
        (folder / "README.md").write_text(_readme(reference, archive, target), encoding="utf-8")
    except OSError as error:
        raise InfrastructureError(f"{folder}: cannot be written: {error.strerror or error}") from error
    command = shlex.quote(str(folder.absolute() / "serve.sh"))
    url = f"http://127.0.0.1:{PORT}"
    return Exported(candidate=found.id, commit=found.commit, folder=folder, command=command, url=url)


def _readme(reference: Reference, archive: Archive, target: Target) -> str:
    metrics = candidate_row(archive, reference.candidate).metrics if reference.candidate in archive.scored else ()
    rows = [
        f"| {m.name} | {number(m.value)} {m.unit or ''} | {number(m.low)} – {number(m.high)} | {m.n} | {gain(m.gain)} |"
        for m in metrics
    ]
    return _README.format(
        name=target.name,
        run=reference.run_dir.name,
        candidate=reference.candidate,
        commit=archive.candidates[reference.candidate].commit,
        port=PORT,
        model=target.model.name,
        rows="\n".join(rows) or "| not measured | | | | |",
    )


def _write_script(folder: Path, target: Target) -> None:
    lines = [_SCRIPT_HEAD.format(port=PORT, python=find_python())]
    lines += [f"export {name}={shlex.quote(value)}" for name, value in target.server.env.items()]
    if target.artifacts is not None:
        build = shell_command(target.artifacts.command, artifacts="ARTIFACTS.new")
        lines.append(f'[ -d "$ARTIFACTS" ] || {{ {build} && mv "$ARTIFACTS.new" "$ARTIFACTS"; }}')
    lines += ['cd "$HERE/server"', f"exec {shell_command(target.server.command)}"]
    script = folder / "serve.sh"
    script.write_text("\n".join(lines) + "\n", encoding="utf-8")
    script.chmod(0o755)


def shell_command(command: Sequence[str], **variables: str) -> str:
    """A target's command in double quotes, with its placeholders as variables: `{url}` as `$URL` for url="URL"."""
    names = {"python": "PYTHON", "host": "HOST", "port": "PORT", "artifacts": "ARTIFACTS", **variables}
    parts = []
    for part in command:
        for special in '\\"$`':
            part = part.replace(special, f"\\{special}")
        for name, variable in names.items():
            part = part.replace(f"{{{name}}}", f"${variable}")
        parts.append(f'"{part}"')
    return " ".join(parts)


def find_python() -> str:
    """A shell word: `$PYTHON`, the folder's own environment, the interpreter that wrote it, or any other one."""
    here = shlex.quote(sys.executable)
    return f'"${{PYTHON:-$(command -v "$HERE/env/bin/python" || command -v {here} || command -v python3)}}"'


_SCRIPT_HEAD = """#!/bin/sh
# Starts the server. Set HOST, PORT, PYTHON or ARTIFACTS to change where and with what.
set -eu
HERE="$(cd "$(dirname "$0")" && pwd)"
HOST="${{HOST:-127.0.0.1}}"
PORT="${{PORT:-{port}}}"
PYTHON={python}
ARTIFACTS="${{ARTIFACTS:-$HERE/artifacts}}"
cd "$HERE\""""

_README = """# {name}: {candidate}

An OpenAI-compatible server that VibeServe evolved in run `{run}`, commit `{commit}`.

    ./serve.sh                      # PORT=8001 ./serve.sh for another port; needs what the server imports (see server/)
    curl http://127.0.0.1:{port}/health

It serves the model `{model}` on `/v1/completions`, streaming or not:

    from openai import OpenAI
    client = OpenAI(base_url="http://127.0.0.1:{port}/v1", api_key="none")
    print(client.completions.create(model="{model}", prompt=[100, 101, 102], max_tokens=16).choices[0].text)

    vibeserve bench http://127.0.0.1:{port} --model {model} --rate 4 --num-prompts 40

Measured during the search (95 % interval, n repeats; a selection, not a claim: `vibeserve verify` makes claims):

| metric | value | interval | n | gain over the seed |
|---|---|---|---|---|
{rows}
"""
