"""Decides what all evaluations of one target on one machine share: read, built, measured before the first."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from evaluators.artifacts import artifacts_folder
from evaluators.roofline import Roof, roof
from evaluators.target import Target, load_target
from population.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A target on this machine."""

    target: Target
    artifacts: Path
    vocab: tuple[str, ...]
    roof: Roof


def prepare(folder: Path, cache: Path, cpus: tuple[int, ...], gpus: tuple[str, ...] = ()) -> Prepared:
    """Read the target, build its artifacts and measure its roofline, as far as `cache` has them not yet.

    `cpus` and `gpus`: those of the lease, on which its commands run.

    Raises:
        ConfigError: with every defect of the target.
        InfrastructureError: one of its commands failed.
    """
    target = load_target(folder)
    artifacts = artifacts_folder(target, cache, cpus, gpus)
    allowed = roof(target, artifacts, cache, cpus, gpus)
    return Prepared(target=target, artifacts=artifacts, vocab=_vocabulary(target, artifacts), roof=allowed)


def _vocabulary(target: Target, artifacts: Path) -> tuple[str, ...]:
    try:
        return target.vocabulary(artifacts) or ()
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(
            f"{target.folder / 'target.toml'}: [model] 'vocab': expected a JSON list of strings in "
            f"{target.model.vocab}, which [artifacts] 'command' should have built: {error}"
        ) from error
