"""Decides what `vibeserve verify` measures: two servers of a run, in fresh pairs, on its machines."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from evaluators.target import load_target
from population.errors import UsageError
from population.ledger import read_events
from population.replay import State
from population.repository import Repository
from vibeserve.chains import Chains
from vibeserve.claims import Claim, Subject, claim_json, measure_claim
from vibeserve.hosts import executor_for, isolation, terms_for
from vibeserve.layers import load_run_config
from vibeserve.rules import Rules
from vibeserve.run_folder import require_same
from vibeserve.wiring import kit_of, rules_of


def verify(
    run_dir: Path,
    candidate: str,
    against: str,
    pairs: int,
    progress: Callable[[str], None],
    overrides: Sequence[str] = (),
) -> Claim:
    """Measure `candidate` against another candidate or a baseline in fresh pairs; the claim is kept in claims/.

    Raises:
        UsageError: the run has no such candidate or baseline.
        RunError: a side was rejected while it was measured.
    """
    config, target = load_run_config(run_dir, overrides), load_target(run_dir / "target")
    state = State.replay(read_events(run_dir / "ledger"))
    require_same(state, run_dir, config, target)
    repository = Repository.open(run_dir / "population.git")
    rules = rules_of(run_dir, config, target, repository)
    kit = kit_of(config, run_dir, repository, rules, state)
    sides = tuple(_side(name, state, rules, repository) for name in (candidate, against))
    executor = executor_for(config, kit, target, replace(terms_for(config, run_dir, kit, progress), alone=True))
    try:
        for line in isolation(config, target, kit, state):
            progress(line)
        claim = measure_claim(
            (sides[0], sides[1]), executor, target.objectives, rules.trace_seed("held-out"), pairs, progress
        )
    finally:
        executor.close()
    folder = run_dir / "claims"
    folder.mkdir(exist_ok=True)
    name = f"{candidate}-{against}-{time.strftime('%Y%m%d-%H%M%S')}.json"
    (folder / name).write_text(json.dumps(claim_json(claim), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return claim


def _side(name: str, state: State, rules: Rules, repository: Repository) -> Subject:
    chains = Chains(repository, rules.root.commit)
    if name in state.archive.candidates:
        return Subject(
            name=name,
            commit=state.archive.candidates[name].commit,
            chain=chains.to(state.archive, (name,)),
        )
    if name in rules.baselines:
        commit = rules.baselines[name].commit
        return Subject(name=name, commit=commit, chain=chains.then((), commit))
    known = ", ".join(rules.baselines) or "none"
    raise UsageError(f"expected a candidate of the run (c000012) or a baseline ({known}), got '{name}'")
