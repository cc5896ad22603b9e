"""Decides what `run --dry-run` shows: every option with its origin, and the resources wanted and present."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vibeserve.commands.output import console, print_json

if TYPE_CHECKING:
    from vibeserve.config import Config


def show_dry_run(config: Config, as_json: bool) -> None:
    """Check target and config, and show both without starting anything.

    Raises:
        ConfigError: with every defect of the target.
    """
    from rich.table import Table

    from evaluators.node import nvidia_gpus
    from evaluators.target import load_target
    from vibeserve.config_text import options
    from vibeserve.lease import allowed_cpus

    assert config.target is not None
    target = load_target(config.target)
    wanted = {"cpus": target.resources.cpus, "gpus": target.resources.num_gpus}
    present = {"cpus": len(allowed_cpus()), "gpus": len(nvidia_gpus())}
    where = config.cluster.address or "this machine"
    if as_json:
        rows = {o.key: {"value": o.value, "origin": o.origin} for o in options(config)}
        return print_json({"config": rows, "resources": {"where": where, "wanted": wanted, "present": present}})
    table = Table(box=None, pad_edge=False)
    for name in ("key", "value", "origin"):
        table.add_column(name, overflow="fold")
    for option in options(config):
        style = "dim" if option.origin == "default" else None
        table.add_row(option.key, "none" if option.value is None else str(option.value), option.origin, style=style)
    screen = console(as_json)
    screen.print(table)
    screen.print(f"Target {target.name}: objectives {', '.join(target.objectives.names)}")
    screen.print(
        f"One evaluation wants {wanted['cpus']} CPUs and {wanted['gpus']} GPUs ({where}; present on this machine:"
        f" {present['cpus']} CPUs, {present['gpus']} GPUs)",
        soft_wrap=True,
    )
