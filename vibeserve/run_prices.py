"""Decides by which prices a run counts: a copy of its own, made when it starts, that its user may mend at any time."""

from __future__ import annotations

from pathlib import Path

from population.errors import ConfigError
from vibeserve.agents.clis.registry import CLIS
from vibeserve.agents.ensemble import members
from vibeserve.agents.options import AgentOptions
from vibeserve.agents.prices import SHIPPED, Price, Prices, how_to_add, prices_toml, read_prices
from vibeserve.agents.roles import EVALUATOR, JUDGE, played

PRICES_FILE = "prices.toml"
"""In a run's folder."""
_COST_NOTHING = frozenset({None, "scripted", "replay"})
"""Providers without a model."""
_SAYS_ITSELF = frozenset({"claude"})
"""Coding CLIs that tell what they have cost, as long as they talk to their own provider."""


def run_prices(run_dir: Path) -> dict[str, Price]:
    """The prices that a run counts by; one that was started without agents has none of its own.

    Raises:
        ConfigError: its table is malformed.
    """
    own = run_dir / PRICES_FILE
    return read_prices(own if own.is_file() else SHIPPED)


def prices_of(file: str | None, over: Prices | None = None) -> dict[str, Price]:
    """What `file` says, on top of what is known (`over`; None: the table that VibeServe comes with).

    Raises:
        ConfigError: the file cannot be read, or is malformed.
    """
    own = {} if file is None else read_prices(Path(file).expanduser())
    return {**(read_prices(SHIPPED) if over is None else over), **own}


def keep_prices(run_dir: Path, file: str | None, over: Prices | None = None) -> None:
    """Write the run's copy; as `prices_of`."""
    (run_dir / PRICES_FILE).write_text(prices_toml(prices_of(file, over)), encoding="utf-8")


def require_priced(options: AgentOptions, prices: Prices, dollars: float | None) -> None:
    """A budget in dollars needs to know what everybody costs who will be asked.

    Raises:
        ConfigError: somebody has no price.
    """
    if dollars is None:
        return
    problems = []
    for who, asked in _paid(options):
        price = None if asked.model is None else prices.get(asked.model)
        if asked.model is None:
            problems.append(f"budget.dollars: expected the name of {who}'s model, to know its price; got none")
        elif price is None:
            what = f"expected to know what '{asked.model}' costs ({who}), but no price is known"
            problems.append(f"budget.dollars: {what}; {how_to_add(asked.model)}")
        elif asked.provider in CLIS and price.up_to_input_tokens is not None:
            most = f"the price of '{asked.model}' holds for requests of up to {price.up_to_input_tokens:,} tokens"
            problems.append(
                f"budget.dollars: {most}, and {asked.provider} ({who}) does not tell how long they were; give it a "
                "price without up_to_input_tokens: -s agents.prices=FILE"
            )
    if problems:
        raise ConfigError(problems)


def _paid(options: AgentOptions) -> list[tuple[str, AgentOptions]]:
    """(Who, with which options) of everybody who may be asked for something that costs, and does not say how much."""
    found = [("[agents]" if not options.models else f"agents.models '{m.name}'", m.options) for m in members(options)]
    for name in (JUDGE, EVALUATOR):
        player = played(options, getattr(options.roles, name))
        found += [(f"agents.roles.{name}", player)] if player is not None else []
    return [(who, asked) for who, asked in found if asked.provider not in _COST_NOTHING and not says_itself(asked)]


def says_itself(options: AgentOptions) -> bool:
    """Whether no price is needed, because who is asked tells what it has cost."""
    return options.provider in _SAYS_ITSELF and options.base_url is None
