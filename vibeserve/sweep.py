"""Decides what a sweep is: a grid of settings times seeds, one run each, and where each of them is."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from population.errors import UsageError

_WORD = re.compile(r"[^A-Za-z0-9.-]+")


class Status(StrEnum):
    """Where a planned run is."""

    PENDING = "pending"
    STARTED = "started"
    """Begun; finished, killed or going on, as its own ledger says."""
    FINISHED = "finished"
    FAILED = "failed"
    """It could not go on; `error` says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """One run of a sweep."""

    name: str
    """Last part of its folder's name, unique within the sweep."""
    setting: Mapping[str, str]
    """Config key → value in TOML syntax, of the keys that vary."""
    seed: int
    status: Status = Status.PENDING
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """What was asked for, and how far it has come."""

    target: str | None
    preset: str | None
    files: tuple[str, ...]
    """Config files, absolute."""
    constants: tuple[str, ...]
    """`-s` overrides that all runs share."""
    varied: Mapping[str, tuple[str, ...]]
    runs: tuple[Planned, ...]

    def overrides(self, planned: Planned) -> tuple[str, ...]:
        """The `-s` options of one of its runs."""
        return (*self.constants, *(f"{key}={value}" for key, value in planned.setting.items()))

    def with_run(self, changed: Planned) -> Sweep:
        """The same with one run replaced by its name."""
        return replace(self, runs=tuple(changed if run.name == changed.name else run for run in self.runs))


def plan(
    target: Path | None,
    preset: str | None,
    files: Sequence[Path],
    overrides: Sequence[str],
    seeds: Sequence[int],
) -> Sweep:
    """The grid: every combination of the values, each with every seed; seed by seed, so that drift hits all settings.

    `overrides` are `key=value` or `key=value,value,…`; a comma inside brackets, braces or quotes does not separate.

    Raises:
        UsageError: nothing varies and there is one seed, or a key is given twice.
    """
    constants: list[str] = []
    varied: dict[str, tuple[str, ...]] = {}
    for text in overrides:
        key, equals, raw = text.partition("=")
        values = split_values(raw)
        if not equals or not all(values):
            raise UsageError(f"-s {text}: expected key=value,value,…, e.g. -s search.frontier_bias=0.3,0.7")
        if key.strip() in varied or any(key.strip() == c.partition("=")[0] for c in constants):
            raise UsageError(f"-s {key.strip()} is given twice; give all its values at once, with commas between")
        if len(values) > 1:
            varied[key.strip()] = tuple(dict.fromkeys(values))
        else:
            constants.append(f"{key.strip()}={raw.strip()}")
    if not varied and len(seeds) < 2:
        raise UsageError("expected something to vary, e.g. -s search.frontier_bias=0.3,0.5,0.7, or --seeds 3")
    fixed = {constant.partition("=")[0] for constant in constants}
    for key in ("seed", "name", "runs_dir"):
        if key in varied or key in fixed:
            raise UsageError(f"-s {key}: a sweep sets this itself; see --seeds, --first-seed, --name, --runs-dir")
    if "evaluation.trace_seed" not in fixed | set(varied):
        constants.append(f"evaluation.trace_seed={seeds[0]}")  # the same arrivals and lengths for every run
    settings = [dict(zip(varied, values, strict=True)) for values in itertools.product(*varied.values())]
    runs = [Planned(name=_name(setting, seed), setting=setting, seed=seed) for seed in seeds for setting in settings]
    if len({run.name for run in runs}) < len(runs):
        runs = [replace(run, name=f"{place:03d}-s{run.seed}") for place, run in enumerate(runs)]
    return Sweep(
        target=None if target is None else str(target.absolute() if target.exists() else target),
        preset=preset,
        files=tuple(str(file.absolute()) for file in files),
        constants=tuple(constants),
        varied=varied,
        runs=tuple(runs),
    )


def split_values(raw: str) -> list[str]:
    """The parts between commas that are not inside brackets, braces or quotes."""
    parts, depth, quote, part = [], 0, "", ""
    for letter in raw:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        elif letter in "[{":
            depth += 1
        elif letter in "]}":
            depth -= 1
        if letter == "," and depth == 0 and not quote:
            parts.append(part.strip())
            part = ""
        else:
            part += letter
    return [*parts, part.strip()]


def _name(setting: Mapping[str, str], seed: int) -> str:
    """`frontier_bias-0.3-s1`."""
    words = [f"{key.rpartition('.')[2]}-{value}" for key, value in setting.items()]
    return "-".join([*(_WORD.sub("_", word).strip("_") for word in words), f"s{seed}"])


def unfinished(sweep: Sweep) -> Iterator[str]:
    """One sentence per run that failed, and one for all that are still to come."""
    for run in sweep.runs:
        if run.status is Status.FAILED:
            first, more, _ = run.error.partition("\n")
            yield f"{run.name} failed: {first}{' …' if more else ''}"
    left = sum(run.status in (Status.PENDING, Status.STARTED) for run in sweep.runs)
    if left:
        yield f"{left} of {len(sweep.runs)} runs are not finished; `vibeserve sweep --resume` goes on with them"
