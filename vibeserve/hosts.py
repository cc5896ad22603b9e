"""Decides on which machines a run's work is done, and how well they confine it."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from evaluators.target import Target
from population.errors import VibeServeError
from population.ledger import read_events
from population.replay import State
from vibeserve import tiers
from vibeserve.cluster.terms import Terms
from vibeserve.config import Config
from vibeserve.executor import Executor
from vibeserve.same_hardware import Surveyed, choose, recorded
from vibeserve.workshop import Kit, Workshop

if TYPE_CHECKING:
    from vibeserve.cluster.selectors import Demand


def is_local(config: Config) -> bool:
    """Whether evaluations run on this machine alone."""
    return config.cluster.executor == "inline" or config.cluster.address is None


def isolation(config: Config, target: Target, kit: Kit, state: State) -> list[str]:
    """What to tell the user about the isolation on the machines that evaluate.

    Raises:
        IsolationError: all of them refuse.
    """
    look = partial(tiers.look, config.evaluation.allow_reduced_isolation, kit.first_party)
    if is_local(config):
        found = [look()]
    else:
        from vibeserve.cluster import nodes

        found = nodes.on_nodes(_demand(config, target), look)
    tiers.require(found)
    archive = state.archive
    return tiers.announcement(found, {e.tier for name in archive.scored for e in archive.evaluations(name)})


def executor_for(config: Config, kit: Kit, target: Target, terms: Terms) -> Executor:
    """
    Raises:
        InfrastructureError: no machine can hold an evaluation.
        ConfigError: the machines that can are of different hardware.
        RunError: none of them is what the run was measured on so far.
    """
    if config.cluster.executor == "inline":
        from vibeserve.inline import InlineExecutor

        here = Surveyed(
            id="", name="this machine", slots=1, fingerprint=kit.identify(None if target.resources.num_gpus else ())
        )
        stratum = choose([here], terms.before, terms.mixed)
        for note in stratum.notes:
            terms.say(note)
        return InlineExecutor(Workshop(replace(kit, hardware=stratum.expected)))
    from vibeserve.cluster.connection import connect, disconnect
    from vibeserve.cluster.placement import Placement
    from vibeserve.cluster.ray_executor import RayExecutor

    connect(config.cluster.address)
    try:
        placement = Placement(_demand(config, target), terms)
    except VibeServeError:
        disconnect()
        raise
    return RayExecutor(replace(kit, hardware=placement.hardware), placement)


def terms_for(config: Config, run_dir: Path, kit: Kit, say: Callable[[str], None]) -> Terms:
    """What this run asks of the machines; a run that goes on wants those that it was measured on so far."""
    shared = config.cluster.address is not None
    return Terms(
        limit=config.cluster.evaluate_slots,
        nodes_timeout_s=config.cluster.nodes_timeout_s,
        mixed=config.cluster.mixed_hardware,
        before=recorded(read_events(run_dir / "ledger")),
        driver=f"{run_dir.name}-{secrets.token_hex(4)}" if shared else None,
        priority=config.cluster.priority,
        identify=kit.identify,
        say=say,
    )


def _demand(config: Config, target: Target) -> Demand:
    from vibeserve.cluster.selectors import ACCELERATOR_LABEL, Demand

    kind = target.resources.accelerator_type
    labels = {**({ACCELERATOR_LABEL: kind} if kind else {}), **target.resources.labels, **config.cluster.labels}
    return Demand(cpus=target.resources.cpus, gpus=target.resources.num_gpus, labels=labels)
