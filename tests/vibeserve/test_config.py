"""The config tree: layers, origins, every defect at once, and the written forms."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path

import pytest

from population.errors import ConfigError, RunError, UsageError
from population.recipe import Recipe
from search.baselines import BarrierPolicy, Nsga2Policy, RandomPolicy
from search.evolve import EvolveConfig, EvolvePolicy
from vibeserve.agents.options import AgentOptions, ModelOptions
from vibeserve.config import Config
from vibeserve.config_text import options, reference, to_toml
from vibeserve.layers import CHECKOUT, Sources, config_keys, key_lines, load_config, load_run_config, preset_names
from vibeserve.search_config import COUNTS, SHARES
from vibeserve.sections import dataclass_of


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("VIBESERVE_RUNS_DIR", raising=False)


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_defaults_are_those_of_the_search() -> None:
    assert Config().search.build({}).config == EvolveConfig()  # type: ignore[attr-defined]


def test_later_layers_win_and_origins_are_kept(tmp_path: Path) -> None:
    first = write(tmp_path / "first.toml", "[budget]\nchildren = 30\nwall_time_s = 60\n")
    second = write(tmp_path / "second.toml", "# comment\n\n[search]\nfrontier_bias = 0.5\n[budget]\nchildren = 40\n")
    config = load_config(
        Sources(
            preset="quickstart",
            files=[first, second],
            overrides=["search.frontier_bias=0.9", "search.surrogate.decay=2"],
            flags={"seed": (3, "--seed")},
        )
    )
    assert (config.budget.children, config.budget.wall_time_s, config.seed) == (40, 60, 3)
    assert config.search.build({}).config.frontier_bias == 0.9  # type: ignore[attr-defined]
    assert config.origins["budget.children"] == f"{second}:6"
    assert config.origins["budget.wall_time_s"] == f"{first}:3"
    assert config.origins["search.frontier_bias"] == "-s"
    assert config.origins["name"] == "preset quickstart"
    assert config.origins["seed"] == "--seed"
    origins = {option.key: option.origin for option in options(config)}
    assert origins["evaluation.racing"] == "default"


def test_every_defect_is_reported_at_once_with_file_and_line(tmp_path: Path) -> None:
    path = write(
        tmp_path / "run.toml",
        'targt = "x"\n[search]\nfrontier_bais = 0.3\ntemperature = "hot"\n\n[budget]\nchildren = true\n[foo]\na = 1\n',
    )
    with pytest.raises(ConfigError) as caught:
        load_config(Sources(files=[path], overrides=["search.mergee=1", "seed=-1", "novalue", "search=3"]))
    assert list(caught.value.problems) == [
        f"{path}:1: unknown key 'targt'; did you mean 'target'?",
        f"{path}:3: unknown key 'search.frontier_bais'; did you mean 'search.frontier_bias'?",
        f"{path}:8: unknown key 'foo'; docs/config.md lists every key",
        "-s: unknown key 'search.mergee'; did you mean 'search.operators.merge'?",
        "-s novalue: expected key=value, e.g. -s search.frontier_bias=0.9",
        "-s: expected a table [search], got 3",
        "-s: seed: expected greater than or equal to 0, got -1",
        f"{path}:4: search.temperature: expected a valid number, got 'hot'",
        f"{path}:7: budget.children: expected a valid integer, got True",
    ]
    assert caught.value.exit_code == 3


def test_broken_and_missing_files(tmp_path: Path) -> None:
    broken = write(tmp_path / "broken.toml", "[search\n")
    with pytest.raises(ConfigError) as caught:
        load_config(Sources(files=[broken, tmp_path / "absent.toml"]))
    assert [str(broken) in caught.value.problems[0], "not valid TOML" in caught.value.problems[0]] == [True, True]
    assert "cannot be read" in caught.value.problems[1]


@pytest.mark.parametrize(
    "override",
    ["search.frontier_bias=1.1", "search.population_size=0", "search.gap_bias=-0.1", "budget.wall_time_s=inf"],
)
def test_values_out_of_range_are_refused(override: str) -> None:
    with pytest.raises(ConfigError, match=override.partition("=")[0]):
        load_config(Sources(overrides=[override]))


def test_an_unknown_preset_names_the_known_ones() -> None:
    with pytest.raises(UsageError, match="quickstart"):
        load_config(Sources(preset="qick"))


@pytest.mark.parametrize("name", preset_names())
def test_presets_are_valid_and_find_the_checkout_from_anywhere(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = load_config(Sources(preset=name))
    assert config.target is not None
    assert config.target.is_relative_to(CHECKOUT)
    assert config.runs_dir == tmp_path / "runs"


def test_none_unsets(tmp_path: Path) -> None:
    config = load_config(Sources(preset="quickstart", overrides=["budget.wall_time_s=none", "budget.children=none"]))
    assert (config.budget.wall_time_s, config.budget.children) == (None, None)
    write(tmp_path / "run.toml", to_toml(config))
    assert load_run_config(tmp_path).budget.children is None, "an unset value must not become the default on resume"


def test_run_toml_holds_everything_and_reads_back(tmp_path: Path) -> None:
    config = load_config(
        Sources(preset="quickstart", overrides=["cluster.labels.zone=a", "search.operators.merge=false"])
    )
    config = config.replace("seed", 11, "drawn")
    text = to_toml(config)
    flat = tomllib.loads(text)
    assert flat["seed"] == 11
    assert "seed = 11  # drawn" in text
    write(tmp_path / "run.toml", text)
    again = load_run_config(tmp_path, ["budget.children=50"])
    changed = config.model_copy(
        update={"budget": config.budget.model_copy(update={"children": 50}), "runs_dir": tmp_path.parent}
    )
    assert again.model_dump() == changed.model_dump()
    assert again.origins["budget.children"] == "-s"
    assert again.origins["budget.wall_time_s"].startswith("run.toml:")


def test_environment_is_a_layer_and_is_not_written_into_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    config = load_config(Sources())
    assert config.cluster.address == "10.0.0.1:6379"
    assert config.origins["cluster.address"] == "env RAY_ADDRESS"
    write(tmp_path / "run.toml", to_toml(config))
    monkeypatch.delenv("RAY_ADDRESS")
    assert load_run_config(tmp_path).cluster.address is None, "the next machine has its own address"


def test_a_folder_without_run_toml_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"run\.toml"):
        load_run_config(tmp_path)


def test_policies_are_built_from_the_table() -> None:
    def built(*overrides: str) -> object:
        return load_config(Sources(overrides=overrides)).search.build(dict[str, Recipe]())

    assert isinstance(built(), EvolvePolicy)
    assert isinstance(built("search.policy=random"), RandomPolicy)
    assert isinstance(built("search.policy=nsga2", "search.nsga2.population_size=5"), Nsga2Policy)
    barrier = built("search.barrier=true", "search.generation_size=3")
    assert isinstance(barrier, BarrierPolicy)
    assert barrier.generation_size == 3
    evolve = built("search.operators.merge=false")
    assert isinstance(evolve, EvolvePolicy)
    assert [str(operator) for operator in evolve.config.moves.operators] == ["recipe", "tune"]


def test_every_option_of_the_search_can_be_set() -> None:
    keys = set(config_keys())
    for field in dataclasses.fields(EvolveConfig):
        assert any(key == f"search.{field.name}" or key.startswith(f"search.{field.name}.") for key in keys)
    names = {key.rpartition(".")[2] for key in keys}
    assert names >= SHARES | COUNTS, "a bound names an option that does not exist"


def test_every_key_is_documented_and_the_reference_is_up_to_date() -> None:
    text = reference()
    undocumented = [line for line in text.splitlines() if line.startswith("| `") and line.endswith("|  |")]
    assert undocumented == []
    committed = (CHECKOUT / "docs" / "config.md").read_text(encoding="utf-8")
    assert committed == text, "run: python -m vibeserve.config_text docs/config.md"


def test_key_lines_follow_tables_and_dotted_keys() -> None:
    lines = key_lines('a = 1\n# b = 2\n[t.u]\nc = "x = y"\nd.e = 3\n[[list]]\nf = 1\n')
    assert lines == {"a": 1, "t.u": 3, "t.u.c": 4, "t.u.d.e": 5, "list": 6, "list.f": 7}


def test_an_array_of_tables_is_read_written_and_checked(tmp_path: Path) -> None:
    text = '[agents]\nprovider = "openai"\n[[agents.models]]\nmodel = "a"\n[[agents.models]]\nmodel = "b"\nshare = 2\n'
    config = load_config(Sources(files=[write(tmp_path / "my.toml", text)]))
    rows = dataclass_of(AgentOptions, config.agents).models
    assert rows == (ModelOptions(model="a"), ModelOptions(model="b", share=2.0))
    write(tmp_path / "run.toml", to_toml(config))
    assert load_run_config(tmp_path).agents.models == config.agents.models  # type: ignore[attr-defined]
    (shown,) = (option.value for option in options(config) if option.key == "agents.models")
    assert shown == [{"model": "a", "share": 1.0}, {"model": "b", "share": 2.0}], "plain, for --dry-run --json"
    with pytest.raises(ConfigError) as caught:
        load_config(Sources(overrides=['agents.models=[{model="a"}, {modle="b", share=-1}]']))
    assert list(caught.value.problems) == [
        "-s: agents.models.1.share: expected greater than or equal to 0, got -1",
        "-s: agents.models.1.modle: unknown key, got 'b'",
    ]
