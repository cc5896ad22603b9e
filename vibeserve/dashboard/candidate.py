"""Decides what the page of one child shows: how it came to be, what it changed, what was measured, how to get it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from population.errors import UsageError, VibeServeError
from population.evaluation import Evaluation, Rejected, Scored
from population.events import Ended, FinalMeasured, Remeasured
from population.repository import Repository
from vibeserve.dashboard.measures import point, unit_of
from vibeserve.dashboard.spending import Prices, gpus_per_evaluation
from vibeserve.dossier import Dossier, dossier_json, dossier_of
from vibeserve.follower import Followed
from vibeserve.front_rows import SEED
from vibeserve.runs import Reference, candidate_files

MOST_LINES = 5000
MOST_FILE_BYTES = 1_000_000
MOST_DIFF_BYTES = 400_000
_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[@-Z\\-_])")


def candidate_page(run: Followed, name: str, prices: Prices) -> dict[str, Any]:
    """Everything but diff and files, which are asked for when they are looked at.

    Raises:
        UsageError: no such child.
    """
    found = dossier_of(Reference(run_dir=run.run_dir, candidate=name), run.state)
    archive = run.state.archive
    child = archive.children.get(found.proposal.number)
    scored = name in archive.scored
    gpus = gpus_per_evaluation(run)
    leased_s = sum(event.elapsed_s for _, _, event in _measurements(run, name))
    return {
        **dossier_json(found),
        "revision": run.revision,
        "goal": found.proposal.goal,
        "front": name in archive.front,
        "loads": _by_load(archive.metrics(name)) if name in archive.candidates else [],
        "evaluations": _verdicts(run, name),
        "cost_s": child.cost_s if child else None,
        "leased_s": leased_s,
        "gpu_hours": leased_s * gpus / 3600 if gpus else None,
        "dollars": prices.gpu_hour * leased_s * gpus / 3600 if gpus and prices.gpu_hour is not None else None,
        "gpus": gpus,
        "children": [c.proposal.id for c in archive.children.values() if name in c.proposal.parents][:200],
        "files": [{"key": key, "name": path.name, "bytes": _size(path)} for key, path in _files(run, name)],
        "against": _against(run, found),
        "commands": _commands(run, found),
        "scored": scored,
    }


def diff(run: Followed, name: str, other: str) -> dict[str, Any]:
    """What a child changed against a candidate or `baseline:NAME`.

    Raises:
        UsageError: one of them is no commit.
        VibeServeError: git cannot show it.
    """
    repository = Repository.open(run.run_dir / "population.git")
    commits = run.state.commits
    if name not in commits:
        raise UsageError(f"{name} never became a commit, so there is nothing to compare")
    kind, _, baseline = other.partition(":")
    if kind == "baseline":
        base = repository.baseline(baseline)
    elif other in commits:
        base = commits[other]
    else:
        raise UsageError(f"no commit '{other}' in {run.name}")
    text = repository.diff(base, commits[name])
    return {"against": other, "diff": text[:MOST_DIFF_BYTES], "cut": len(text) > MOST_DIFF_BYTES}


def file_text(run: Followed, name: str, key: str, file: str) -> dict[str, Any]:
    """The last lines of a kept file.

    Raises:
        UsageError: no such file is kept.
    """
    for owner, path in _files(run, name):
        if (owner, path.name) == (key, file):
            with suppress(OSError):  # the run was deleted a moment ago
                return {"key": key, "name": file, "text": _ending(path)}
    raise UsageError(f"no file '{file}' is kept of {name} under {key}")


def _ending(path: Path) -> str:
    with path.open("rb") as handle:
        handle.seek(max(0, _size(path) - MOST_FILE_BYTES))
        text = handle.read(MOST_FILE_BYTES).decode("utf-8", errors="replace")
    return "\n".join(_ANSI.sub("", text).splitlines()[-MOST_LINES:])


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _measurements(run: Followed, name: str) -> list[tuple[str, str, Any]]:
    """(key, what, event) of every evaluation of a child, in order."""
    found: list[tuple[str, str, Any]] = []
    for event in run.events:
        if isinstance(event, Remeasured) and event.candidate == name:
            found.append((f"r{event.index:06d}", "measured again", event))
        elif isinstance(event, FinalMeasured) and event.subject == name:
            found.append((f"f-{name}-{event.round}", f"{event.trace} trace, round {event.round + 1}", event))
        elif event.kind == "ended" and event.number == int(name[1:]):
            found.append((name, "search", event))
    return found


def _verdicts(run: Followed, name: str) -> list[dict[str, Any]]:
    return [
        {"key": key, "what": what, "elapsed_s": event.elapsed_s, "place": _said(event), **_verdict(event.evaluation)}
        for key, what, event in _measurements(run, name)
    ]


def _said(event: Ended | Remeasured | FinalMeasured) -> str | None:
    return None if event.place is None else str(event.place)


def _verdict(evaluation: Evaluation | None) -> Mapping[str, Any]:
    if evaluation is None:
        return {"verdict": "no result", "reason": "the machine failed too often", "evidence": "", "tier": None}
    common = {"tier": evaluation.tier, "gaps": evaluation.gaps, "stage_s": dict(evaluation.stage_s)}
    if isinstance(evaluation, Rejected):
        evidence = _ANSI.sub("", evaluation.evidence)
        return {
            "verdict": f"rejected at {evaluation.stage}",
            "reason": evaluation.reason,
            "evidence": evidence,
            **common,
        }
    assert isinstance(evaluation, Scored)
    return {
        "verdict": "scored",
        "reason": "",
        "evidence": "",
        "flags": evaluation.flags,
        "audit": dict(evaluation.audit),
        "measured_by": evaluation.measured_by,
        **common,
    }


def _by_load(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row per metric, one value per load; objectives over several loads have a load of their own."""
    rows: dict[str, dict[str, Any]] = {}
    for key, estimate in sorted(metrics.items()):
        metric, _, load = key.partition("@")
        row = rows.setdefault(metric, {"metric": metric, "unit": unit_of(metric), "values": {}})
        row["values"][load or "all loads"] = point(estimate)
    return list(rows.values())


def _files(run: Followed, name: str) -> list[tuple[str, Path]]:
    """Kept files by key; a link that leads out of what is kept of children is none of them."""
    keys = dict.fromkeys([name, *(key for key, _, _ in _measurements(run, name))])
    kept = (run.run_dir / "children").resolve()
    found = [(key, path) for key in keys for path in candidate_files(run.run_dir, key)]
    return [(key, path) for key, path in found if path.resolve().is_relative_to(kept)]


def _against(run: Followed, found: Dossier) -> list[dict[str, str]]:
    """What a diff can be taken against: parents, ancestors, the seed, the target's baselines."""
    if found.commit is None:
        return []
    commits = run.state.commits
    names = [*found.proposal.parents, SEED, *found.lineage[1:]]
    parents = found.proposal.parents
    choices = [
        {"value": name, "label": f"{name} ({'parent' if name in parents else 'seed' if name == SEED else 'ancestor'})"}
        for name in dict.fromkeys(names)
        if name in commits and name != found.id
    ]
    return choices + [{"value": f"baseline:{b}", "label": f"baseline {b}"} for b in _baselines(run)]


def _baselines(run: Followed) -> Sequence[str]:
    candidates = run.state.archive.candidates
    subjects = dict.fromkeys(subject for subject, _ in run.state.finals if subject not in candidates)
    try:
        repository = Repository.open(run.run_dir / "population.git")
        return [name for name in subjects if _has_baseline(repository, name)]
    except VibeServeError:
        return []


def _has_baseline(repository: Repository, name: str) -> bool:
    try:
        return bool(repository.baseline(name))
    except VibeServeError:
        return False


def _commands(run: Followed, found: Dossier) -> list[dict[str, str]]:
    """Ready to paste into a shell."""
    folder, name = shlex.quote(str(run.run_dir.absolute())), found.id
    git = f"git -C {folder}/population.git"
    commands = [{"what": "Everything known, in a terminal", "command": f"vibeserve show {name} --run {folder}"}]
    if found.commit is not None:
        checkout = f"mkdir {name} && {git} archive {found.commit} | tar -x -C {name}"
        commands += [
            {
                "what": "Check out its files",
                "command": checkout,
            },
            {"what": "A folder that runs by itself", "command": f"vibeserve export {name} my-server --run {folder}"},
        ]
    if found.metrics:
        verify = f"vibeserve verify {name} --against seed --run {folder}"
        deploy = f"vibeserve deploy {name} my-server --run {folder}"
        commands += [
            {"what": "Measure it anew, in pairs against the seed", "command": verify},
            {"what": "All that production needs: environment, container, manifests, evidence", "command": deploy},
        ]
    return commands
