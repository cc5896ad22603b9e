"""Decides what is handed over with a candidate as evidence: what was measured, judged and changed, and how."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from population.candidate import candidate_id
from population.evaluation import Evaluation, Rejected, Scored
from population.replay import State
from population.repository import Repository
from vibeserve import __version__
from vibeserve.benching.values import estimates_json
from vibeserve.claims import read_claims
from vibeserve.deployment.pinning import Pins
from vibeserve.dossier import Dossier
from vibeserve.lifecycle import RunState
from vibeserve.plain import plain
from vibeserve.summary import metrics_json, summary_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One candidate of one run, read once."""

    run_dir: Path
    state: State
    found: Dossier

    @property
    def evaluations(self) -> tuple[Evaluation, ...]:
        """The first one, re-measurements and finals, in this order."""
        finals = [e.evaluation for (subject, _), e in sorted(self.state.finals.items()) if subject == self.found.id]
        return (*self.state.archive.evaluations(self.found.id), *finals)

    @property
    def hardware(self) -> tuple[str, ...]:
        """What it was measured on, as far as the records say."""
        seen = [e.hardware for e in self.evaluations if isinstance(e, Scored) and e.hardware]
        return tuple(dict.fromkeys(seen))


def write_evidence(case: Case, folder: Path, pinned: Pins) -> None:
    """Fill `folder`, which must not exist.

    Raises:
        OSError: it cannot be written.
    """
    folder.mkdir()
    _write(folder / "measurements.json", _measurements(case))
    _write(folder / "verdicts.json", _verdicts(case))
    _write(folder / "fingerprint.json", _fingerprint(case, pinned))
    repository = Repository.open(case.run_dir / "population.git")
    seed = case.state.archive.candidates.get(candidate_id(0))
    if seed is not None and case.found.commit is not None:
        changes = repository.diff(seed.commit, case.found.commit)
        (folder / "changes.diff").write_text(changes, encoding="utf-8", errors="replace")
    for source in (case.run_dir / "children" / case.found.id,):
        if source.is_dir():
            shutil.copytree(source, folder / "first-evaluation")
    for claim, _ in claims(case).items():
        (folder / "claims").mkdir(exist_ok=True)
        shutil.copy2(claim, folder / "claims" / claim.name)


def claims(case: Case) -> Mapping[Path, dict[str, Any]]:
    """The claims of this candidate that `vibeserve verify` has left in the run."""
    found = read_claims(case.run_dir)
    return {path: content for path, content in found.items() if content["candidate"] == case.found.id}


def _measurements(case: Case) -> dict[str, Any]:
    summary = summary_of(case.run_dir, case.state, RunState.FINISHED)
    held_out = summary.held_out.get(case.found.id)
    return {
        "candidate": case.found.id,
        "run": case.found.run,
        "hardware": list(case.hardware),
        "objectives": metrics_json(case.found.metrics),
        "gains_over_seed": {m.name: m.gain for m in case.found.metrics},
        "metrics": estimates_json(case.found.others),
        "held_out": metrics_json(held_out.metrics) if held_out else None,
        "samples": [dict(e.samples) for e in case.evaluations if isinstance(e, Scored)],
        "flags": list(case.found.flags),
    }


def _verdicts(case: Case) -> dict[str, Any]:
    return {
        "candidate": case.found.id,
        "verdict": case.found.verdict,
        "isolation_tier": case.found.tier,
        "isolation_gaps": list(case.found.gaps),
        "evaluations": [_verdict(evaluation) for evaluation in case.evaluations],
    }


def _verdict(evaluation: Evaluation) -> dict[str, Any]:
    shared = {"verdict": evaluation.kind, "tier": evaluation.tier, "stage_s": dict(evaluation.stage_s)}
    if isinstance(evaluation, Rejected):
        return {**shared, "stage": str(evaluation.stage), "reason": evaluation.reason}
    return {**shared, "audit": dict(evaluation.audit), "flags": list(evaluation.flags)}


def _fingerprint(case: Case, pinned: Pins) -> dict[str, Any]:
    started, found = case.state.started, case.found
    return {
        "run": found.run,
        "candidate": found.id,
        "commit": found.commit,
        "lineage": list(found.lineage),
        "components": dict(found.components),
        "knobs": dict(found.knobs),
        "rng_seed": started.seed if started else None,
        "fingerprint": dict(started.fingerprint) if started else {},
        "vibeserve": __version__,
        "python": pinned.python,
        "requirements": list(pinned.requirements),
    }


def _write(path: Path, value: object) -> None:
    path.write_text(json.dumps(plain(value), indent=1, allow_nan=False, ensure_ascii=False) + "\n", encoding="utf-8")
