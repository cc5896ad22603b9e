"""What requests have cost: by the table, by what a provider says itself, or unknown; never 0 for want of a price."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from population.errors import ConfigError
from population.spending import Spending, Usage
from vibeserve.agents.prices import SHIPPED, Bill, Price, bill, prices_toml, read_prices, total
from vibeserve.run_prices import prices_of

PRICES = {
    "m": Price(input=2.0, cached_input=0.2, cache_write=2.5, output=10.0),
    "short": Price(input=1.0, output=4.0, up_to_input_tokens=1000),
}
USAGE = Usage(input_tokens=1000, cached_tokens=600, cache_write_tokens=100, output_tokens=50)


def spent(model: str, *usages: Usage | None) -> Spending:
    found = Spending(role="implementer", model=model)
    for usage in usages:
        found = found.with_answer(usage)
    return found


def test_every_kind_of_token_has_its_price() -> None:
    found = bill(spent("m", USAGE), PRICES)
    assert found.known
    assert found.dollars == pytest.approx((300 * 2.0 + 600 * 0.2 + 100 * 2.5 + 50 * 10.0) / 1e6)
    plain = bill(spent("short", USAGE), PRICES)
    assert plain.dollars == pytest.approx((1000 * 1.0 + 50 * 4.0) / 1e6), "a part without a price costs as other input"


def test_a_model_without_a_price_is_unknown_and_says_so_in_a_sum() -> None:
    alone, nothing = bill(spent("other", USAGE), PRICES), bill(spent("other"), PRICES)
    assert alone.text() == "unknown" and not alone.known
    assert alone.why_unknown == ("no price for model 'other'",)
    assert nothing == Bill(), "who was not asked costs nothing"
    both = total([spent("other", USAGE), spent("m", *[USAGE] * 1000), spent("other", USAGE)], PRICES)
    assert both.text() == "$1.47 + unknown"
    assert both.why_unknown == ("no price for model 'other'",)


def test_an_answer_that_broke_off_is_unknown_and_guessed_for_budgets_alone() -> None:
    found = bill(spent("m", USAGE, USAGE, None), PRICES)
    one = bill(spent("m", USAGE), PRICES).dollars
    assert found.dollars == pytest.approx(2 * one) and found.guess == pytest.approx(one)
    assert not found.known and "broke off" in found.why_unknown[0]
    assert bill(spent("m", None), PRICES).text() == "unknown"


def test_beyond_the_length_that_a_price_holds_for_it_is_unknown() -> None:
    usage = Usage(input_tokens=900, output_tokens=1)
    assert bill(spent("short", usage, usage), PRICES).known, "no request was longer than 1,000 tokens"
    longer = bill(spent("short", usage, Usage(input_tokens=1001)), PRICES)
    assert longer.why_unknown == ("no price for requests to 'short' that read more than 1,000 tokens",)
    unsaid = replace(spent("short", usage, usage), longest_input_tokens=0)
    assert not bill(unsaid, PRICES).known, "a sum that does not tell the longest may hide a longer one"


def test_what_a_provider_says_itself_wins_over_the_table() -> None:
    said = replace(spent("other", USAGE), dollars=0.05)
    assert bill(said, PRICES) == Bill(dollars=0.05)
    assert said.dollars is not None and (said + said).dollars == 0.1


def test_the_shipped_table_names_a_source_for_every_price() -> None:
    found = read_prices(SHIPPED)
    assert found
    for name, price in found.items():
        assert price.source.startswith("https://") and "2026-" in price.source, name
        assert price.cached_input is not None and price.cached_input < price.input < price.output, name


def test_a_table_of_ones_own_extends_and_replaces(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text('[model."my/model 1"]\ninput = 0\noutput = 0\n[model.claude-opus-5]\ninput = 1.5\noutput = 2\n')
    found = prices_of(str(mine))
    assert found["my/model 1"] == Price(input=0.0, output=0.0)
    assert found["claude-opus-5"] == Price(input=1.5, output=2.0)
    assert set(read_prices(SHIPPED)) < set(found)
    again = tmp_path / "again.toml"
    again.write_text(prices_toml(found))
    assert read_prices(again) == found


def test_every_defect_of_a_table_is_told(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text("[model.a]\ninput = -1\noutput = 1\n[model.b]\ninput = 1\noutptu = 2\n")
    with pytest.raises(ConfigError) as caught:
        read_prices(path)
    told = "\n".join(caught.value.problems)
    assert "model.a.input" in told and "model.b.output" in told and "model.b.outptu" in told
    with pytest.raises(ConfigError, match="cannot be read"):
        read_prices(tmp_path / "none.toml")
