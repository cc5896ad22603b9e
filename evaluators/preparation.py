"""Decides what all evaluations of one target on one machine share: read, built, measured before the first."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from evaluators.artifacts import artifacts_folder
from evaluators.roofline import Roof, roof
from evaluators.target import Target, load_target


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A target on this machine."""

    target: Target
    artifacts: Path
    vocab: tuple[str, ...]
    roof: Roof


def prepare(folder: Path, cache: Path, cpus: tuple[int, ...]) -> Prepared:
    """Read the target, build its artifacts and measure its roofline, as far as `cache` has them not yet.

    Raises:
        ConfigError: with every defect of the target.
        InfrastructureError: one of its commands failed.
    """
    target = load_target(folder)
    artifacts = artifacts_folder(target, cache, cpus)
    allowed = roof(target, artifacts, cache, cpus)
    return Prepared(target=target, artifacts=artifacts, vocab=target.vocabulary() or (), roof=allowed)
