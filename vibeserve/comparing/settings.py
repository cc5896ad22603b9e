"""Decides which runs are of one setting, and what sets settings apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from vibeserve.comparing.contenders import Contender, Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """The runs of one configuration: they differ in their seeds."""

    label: str
    keys: tuple[str, ...]
    """Entries."""
    median_hypervolume: float
    hypervolumes: tuple[float, ...]


def config_differences(contenders: Mapping[str, Contender]) -> dict[str, dict[str, str]]:
    """Option → entry → value, of the options in which runs differ; `absent` where a run has no such option."""
    runs = {key: it for key, it in contenders.items() if it.kind is Kind.RUN and it.setting}
    names = dict.fromkeys(name for contender in runs.values() for name in contender.setting)
    table = {name: {key: it.setting.get(name, "absent") for key, it in runs.items()} for name in names}
    return {name: row for name, row in table.items() if len(set(row.values())) > 1}


def label_of(config: Mapping[str, Mapping[str, str]], key: str) -> str:
    """`frontier_bias=0.3, racing=False`; whole keys where their last parts are the same."""
    last = [name.rpartition(".")[2] for name in config]
    shown = {name: short if last.count(short) == 1 else name for name, short in zip(config, last, strict=True)}
    return ", ".join(f"{shown[name]}={row[key]}" for name, row in config.items() if key in row)


def settings_of(runs: Sequence[tuple[str, str, float]]) -> tuple[Setting, ...]:
    """Groups of the runs (key, label, hypervolume) by label, in the order of their first; none if all are alone."""
    groups: dict[str, dict[str, float]] = {}
    for key, label, hypervolume in runs:
        groups.setdefault(label, {})[key] = hypervolume
    if all(len(group) < 2 for group in groups.values()):
        return ()
    return tuple(
        Setting(
            label=label or "the same setting",
            keys=tuple(group),
            median_hypervolume=median(group.values()),
            hypervolumes=tuple(group.values()),
        )
        for label, group in groups.items()
    )
