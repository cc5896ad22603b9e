"""Budgets of tokens and dollars end a search whose children are written by a model, and a resume keeps them."""

from __future__ import annotations

from pathlib import Path

import pytest

from population.errors import ConfigError
from population.ledger import read_events
from population.replay import State
from tests.agents.endpoint import KEY, serving
from tests.agents.test_search import PARTS, Improver, options
from tests.agents.wire import READ, WRITTEN, Chat
from tests.vibeserve.recorded import toy_config
from vibeserve.agents.options import AgentOptions, ModelOptions, RoleOptions, RolesOptions
from vibeserve.agents.prices import Price, read_prices
from vibeserve.display import SilentDisplay
from vibeserve.run_prices import PRICES_FILE, require_priced
from vibeserve.wiring import RunResult, resume, run

pytestmark = pytest.mark.tier("A")
CHILD = 3 * (READ + WRITTEN)
"""Tokens of one child: `Improver` needs three answers."""
PRICES = "[model.a-model]\ninput = 1000.0\noutput = 1000.0\n"
ALONE = RolesOptions(judge=RoleOptions(enabled=False), evaluator=RoleOptions(enabled=False))
DOLLARS = CHILD * 1000 / 1e6
"""Of one child."""


@pytest.fixture(autouse=True)
def ground(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("A_KEY", KEY)


@pytest.fixture
def prices(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(PRICES)
    return path


class Listener(SilentDisplay):
    """Keeps what is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def event(self, text: str) -> None:
        self.lines.append(text)


def started(tmp_path: Path, *more: str, display: SilentDisplay | None = None) -> RunResult:
    wire = Chat()
    with serving(Improver(wire), repeat=True) as endpoint:
        config = toy_config(tmp_path / "runs", *options(wire, endpoint, "budget.children=20", *more))
        return run(config, display or SilentDisplay(), PARTS)


def resumed(run_dir: Path, *more: str) -> RunResult:
    wire = Chat()
    with serving(Improver(wire), repeat=True) as endpoint:
        return resume(run_dir, (f"agents.base_url={wire.base_url(endpoint.url)}", *more), SilentDisplay(), PARTS)


def children_of(run_dir: Path) -> int:
    return len(State.replay(read_events(run_dir / "ledger")).archive.children) - 1


def test_tokens_end_the_search_before_a_child_that_would_go_beyond(tmp_path: Path) -> None:
    listener = Listener()
    result = started(tmp_path, f"budget.tokens={int(3.5 * CHILD)}", display=listener)
    assert result.stopped_because == "budget: tokens"
    assert children_of(result.run_dir) == 3
    assert [line for line in listener.lines if "of a budget is used: tokens" in line] == [
        f"86% of a budget is used: tokens {3 * CHILD}/{int(3.5 * CHILD):,}"
    ]
    assert resumed(result.run_dir).stopped_because == "budget: tokens"
    assert children_of(result.run_dir) == 3, "a resume has what is left, and that is not enough"
    assert resumed(result.run_dir, f"budget.tokens={5 * CHILD}").stopped_because == "budget: tokens"
    assert children_of(result.run_dir) == 5


def test_dollars_end_the_search_and_the_run_keeps_its_prices(tmp_path: Path, prices: Path) -> None:
    result = started(tmp_path, f"budget.dollars={2.5 * DOLLARS}", f"agents.prices={prices}")
    assert result.stopped_because == "budget: dollars"
    assert children_of(result.run_dir) == 2
    prices.write_text(PRICES.replace("1000.0", "1.0"))
    assert read_prices(result.run_dir / PRICES_FILE)["a-model"].input == 1000.0
    assert resumed(result.run_dir).stopped_because == "budget: dollars"
    assert children_of(result.run_dir) == 2, "a table that was edited later changes nothing of what a run counts by"
    resumed(result.run_dir, f"agents.prices={prices}", "budget.children=4")
    assert children_of(result.run_dir) == 4, "unless the resume asks for it"
    assert read_prices(result.run_dir / PRICES_FILE)["a-model"].input == 1.0


def test_dollars_without_a_price_are_refused_before_anything_begins(tmp_path: Path, prices: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        started(tmp_path, "budget.dollars=1")
    (problem,) = caught.value.problems
    assert "'a-model'" in problem and '[model."a-model"]' in problem and "agents.prices=FILE" in problem
    assert not list((tmp_path / "runs").glob("*"))
    run_dir = started(tmp_path, "budget.children=1").run_dir
    with pytest.raises(ConfigError, match="no price is known"):
        resumed(run_dir, "budget.dollars=1")
    assert resumed(run_dir, "budget.dollars=1", "budget.children=2", f"agents.prices={prices}")
    assert children_of(run_dir) == 2


def test_everybody_who_is_asked_needs_a_price(tmp_path: Path, prices: Path) -> None:
    judge = ("agents.roles.judge.enabled=true", "agents.roles.judge.model=a-judge")
    with pytest.raises(ConfigError, match=r"'a-judge' costs \(agents\.roles\.judge\)"):
        started(tmp_path, "budget.dollars=1", f"agents.prices={prices}", *judge)


def test_who_says_what_it_costs_needs_no_price_and_who_hides_lengths_another_one() -> None:
    require_priced(AgentOptions(provider="claude", model="x", roles=ALONE), {}, 1.0)
    with pytest.raises(ConfigError, match="no price is known"):
        require_priced(AgentOptions(provider="claude", model="x", base_url="http://here", roles=ALONE), {}, 1.0)
    bounded = {"x": Price(input=1.0, output=1.0, up_to_input_tokens=100)}
    with pytest.raises(ConfigError, match=r"codex .* does not tell how long they were"):
        require_priced(AgentOptions(provider="codex", model="x", roles=ALONE), bounded, 1.0)
    require_priced(AgentOptions(provider="codex", model="x", roles=ALONE), bounded, None)
    require_priced(AgentOptions(provider="openai", model="x", roles=ALONE), bounded, 1.0)
    require_priced(AgentOptions(provider="scripted"), {}, 1.0)
    two = AgentOptions(provider="openai", models=(ModelOptions(model="x"), ModelOptions(model="y")), roles=ALONE)
    with pytest.raises(ConfigError, match=r"'y' costs \(agents\.models 'y'\)"):
        require_priced(two, bounded, 1.0)


def test_dollars_that_can_no_longer_be_counted_end_the_search(tmp_path: Path, prices: Path) -> None:
    prices.write_text(f"{PRICES}up_to_input_tokens = {READ - 1}\n")
    result = started(tmp_path, "budget.dollars=1000", f"agents.prices={prices}")
    assert result.stopped_because.startswith("budget: dollars cannot be counted, no price for requests to 'a-model'")
    assert children_of(result.run_dir) == 1


def test_a_budget_of_gpu_hours_and_children_still_holds_beside(tmp_path: Path) -> None:
    result = started(tmp_path, f"budget.tokens={100 * CHILD}", "budget.children=2")
    assert (result.stopped_because, children_of(result.run_dir)) == ("budget: children", 2)
