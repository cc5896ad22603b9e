"""Decides how a tree of the corpus is tried: through the real pipeline, with witnesses, on a target of its own."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from evaluators.evaluator import EvaluationTask, Lease
from evaluators.inspection.inspector import RULE_IDS
from evaluators.isolation import facts, why_not_a
from evaluators.judge import static_check
from evaluators.pipeline import LocalEvaluator
from evaluators.preparation import prepare
from evaluators.sandbox import PlainSandbox, Sandbox, clean_environment
from evaluators.server import ServerCommand, ServerUnderTest
from population.archive import NOISY
from population.errors import InfrastructureError
from population.evaluation import Evaluation, Rejected
from tests.cheats.corpus import Outcome, Tree
from tests.cheats.witness import Sibling, Witness
from tests.cheats.workshop import make_target, make_tree

_TRIALS = 8
_SILENCE = "got no verified token in its window"


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """Under which rules a tree is tried."""

    blind: bool = False
    """Every rule of the diff inspection is switched off."""
    allow: tuple[str, ...] = ()
    """Rules of the diff inspection that are switched off."""
    settings: tuple[tuple[str, str], ...] = ()
    """Lines of target.toml → what stands there instead."""
    config: Path | None = None
    """Another model than the corpus's own; None: that one."""
    plain: bool = False
    """In tier C, whatever the machine gives."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What became of one tree."""

    evaluation: Evaluation
    effects: tuple[str, ...]
    """What the witnesses saw and should not have."""

    @property
    def disturbed(self) -> bool:
        """Whether the machine may have made it: others used the CPUs, or stalled everything for a whole window."""
        if isinstance(self.evaluation, Rejected):
            return _SILENCE in self.evaluation.reason
        return NOISY in self.evaluation.flags

    def problems(self, expected: Outcome) -> list[str]:
        """Where this is not the outcome that was expected; effects included."""
        found = list(self.effects)
        if isinstance(self.evaluation, Rejected):
            return found + _rejection_problems(self.evaluation, expected)
        if expected.stages:
            found.append(f"expected a rejection at {', '.join(expected.stages)}, got a score")
        for metric, least in expected.at_least.items():
            value = self.evaluation.samples[metric][0]
            found += [f"{metric}: expected at least {least:g}, got {value:g}"] if value < least else []
        return found


@dataclass(slots=True, kw_only=True)
class Ground:
    """A place to try trees. One per process; `root` is the caller's to remove."""

    root: Path
    sandbox: Sandbox | None
    """None: what `LocalEvaluator` takes by itself."""
    sibling: Sibling
    words: Mapping[str, str] = field(default_factory=dict)
    """Further words that fixtures may use as @NAME@."""
    _targets: dict[Conditions, Path] = field(init=False, default_factory=dict)
    _numbers: itertools.count[int] = field(init=False, default_factory=lambda: itertools.count(1))

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    def target(self, conditions: Conditions) -> Path:
        """The target for these conditions, with everything built that its evaluations share."""
        if conditions not in self._targets:
            self.root.mkdir(parents=True, exist_ok=True)
            rules = RULE_IDS if conditions.blind else conditions.allow
            folder = make_target(
                self.root / f"target{len(self._targets)}", rules, conditions.settings, conditions.config
            )
            prepare(folder, self.cache, lease_cpus())
            self._targets[conditions] = folder
        return self._targets[conditions]

    def try_out(self, tree: Tree, conditions: Conditions | None = None, content_seed: int | None = None) -> Trial:
        """Make, evaluate and remove one tree."""
        conditions = conditions or Conditions()
        target, number = self.target(conditions), next(self._numbers)
        folder = self.root / f"trial{number}"
        scratch, output = folder / "scratch", folder / "output"
        scratch.mkdir(parents=True)
        witness = Witness(self.sibling, (target, self.cache), folder / "outside")
        task = EvaluationTask(
            candidate=f"c{number:06d}",
            workspace=make_tree(folder / "workspace", tree, {**self.words, **witness.words()}),
            target=target,
            trace_seed=7,
            content_seed=number if content_seed is None else content_seed,
            output=output,
        )
        sandbox = PlainSandbox() if conditions.plain else self.sandbox
        evaluator = LocalEvaluator(sandbox, cache=self.cache, noise_retries=0)
        evaluation = evaluator.evaluate(task, Lease(cpus=lease_cpus(), scratch=scratch), lambda _: None)
        shutil.rmtree(scratch, ignore_errors=True)
        effects = tuple(witness.problems(evaluation, output))
        shutil.rmtree(folder, ignore_errors=True)
        return Trial(evaluation=evaluation, effects=effects)

    def problems(self, tree: Tree, expected: Outcome, conditions: Conditions | None = None) -> list[str]:
        """Where a tree does not end as expected; tried again, as by a driver, where the machine disturbed the trial."""
        for _ in range(_TRIALS - 1):
            try:
                trial = self.try_out(tree, conditions)
            except InfrastructureError:
                continue
            if not (found := trial.problems(expected)) or not trial.disturbed:
                return found
        return self.try_out(tree, conditions).problems(expected)

    def inspect(self, tree: Tree) -> Rejected | None:
        """What the static checks alone say of a tree."""
        folder = self.root / f"inspected{next(self._numbers)}"
        self.root.mkdir(parents=True, exist_ok=True)
        try:
            words = dict.fromkeys(("MARK", "SECRET", "OUTSIDE", "SIBLING_FOLDER", "TARGET"), "/elsewhere")
            numbers = dict.fromkeys(("SIBLING_PID", "HARNESS_PID", "PROXY_PORT"), "4711")
            return static_check(make_tree(folder, tree, {**words, **numbers}))
        finally:
            shutil.rmtree(folder)


@contextmanager
def proving_ground(root: Path) -> Iterator[Ground]:
    """A ground in `root`, with a sibling and an honest server elsewhere.

    In tier A where there is one; in tier C, for what needs no containment, where there is none.
    """
    root.chmod(0o755)  # candidates run as another user
    isolated = why_not_a(facts()) is None
    with Sibling(root / "sibling") as sibling, elsewhere(root / "elsewhere") as port:
        yield Ground(
            root=root / "range",
            sandbox=None if isolated else PlainSandbox(),
            sibling=sibling,
            words={"PROXY_PORT": str(port)},
        )


@contextmanager
def elsewhere(root: Path) -> Iterator[int]:
    """The port of an honest server on the host's loopback, which no candidate may use."""
    root.mkdir(parents=True)
    ready = prepare(make_target(root / "target"), root / "cache", lease_cpus())
    command = ServerCommand(
        table=ready.target.server,
        workspace=make_tree(root / "workspace", Tree(name="honest"), {}),
        log=root / "server.log",
        env=clean_environment(root / "home", extra=ready.target.server.env),
        placeholders={"python": sys.executable, "artifacts": str(ready.artifacts)},
    )
    with ServerUnderTest(command, PlainSandbox()) as server:
        rejected = server.start()
        assert rejected is None, rejected
        yield int(server.url.rpartition(":")[2])


def lease_cpus() -> tuple[int, ...]:
    """Two CPUs, or the one there is."""
    return tuple(sorted(os.sched_getaffinity(0)))[:2]


def _rejection_problems(rejected: Rejected, expected: Outcome) -> list[str]:
    said = f"{rejected.stage}: {rejected.reason}\n{rejected.evidence}"
    if not expected.stages:
        return [f"expected a score, got a rejection at {said}"]
    if rejected.stage not in expected.stages:
        return [f"expected a rejection at {', '.join(expected.stages)}, got one at {said}"]
    if not re.search(expected.says, said):
        return [f"expected a rejection that says {expected.says!r}, got {said}"]
    return []
