"""`vibeserve compare`: what it says of fronts that are known, what it refuses, and in which formats it answers."""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from evaluators.hardware import cpu_model, hardware, machine
from population.errors import ConfigError, RunError, UsageError
from population.objectives import Direction, Objective
from tests.vibeserve.browser import Browser
from tests.vibeserve.comparable import FINGERPRINT, HIGH_FRONT, LOW_FRONT, TARGET, bench_file, run_of
from tests.vibeserve.fabricated import OBJECTIVES
from vibeserve.cli import app
from vibeserve.comparing.comparison import Comparison
from vibeserve.comparing.contenders import Selection
from vibeserve.comparing.line_up import line_up
from vibeserve.comparing.page import page_data, to_page
from vibeserve.comparing.text import UNFAIR, headline

RATES = {"downloadThroughput": 0, "uploadThroughput": 0}
LOW, HIGH = "20260101-000000-low", "20260101-000001-high"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("RAY_ADDRESS", "VIBESERVE_RUNS_DIR", "VIBESERVE_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A runs folder with two runs, of which one is better by a factor of two throughout."""
    runs_dir = tmp_path_factory.mktemp("runs")
    run_of(runs_dir, LOW, LOW_FRONT)
    run_of(runs_dir, HIGH, HIGH_FRONT, seed=8, options="[search]\nfrontier_bias = 0.9\n")
    return runs_dir


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five runs at each of two settings; those of the second are better by 1.5."""
    runs_dir = tmp_path_factory.mktemp("swept")
    for bias, factor in ((0.3, 1.0), (0.9, 1.5)):
        for seed in range(1, 6):
            wobble = factor * (1 + 0.02 * seed)
            front = [(throughput * wobble, ttft / wobble) for throughput, ttft in LOW_FRONT]
            options = f"[search]\nfrontier_bias = {bias}\n"
            run_of(runs_dir, f"20260102-00000{seed}-b{bias}-s{seed}", front, seed=seed, options=options)
    return runs_dir


def compared(
    runs_dir: Path, *names: str, baselines: tuple[str, ...] = (), force: bool = False, **chosen: Any
) -> Comparison:
    return line_up(names, baselines, Selection(**chosen), runs_dir, force)


def invoke(*args: str | Path) -> Result:
    return CliRunner().invoke(app, [str(arg) for arg in args])


# --- what is said -----------------------------------------------------------------------------------------------------


def test_a_front_that_is_twice_as_good_is_found_to_be(ground: Path) -> None:
    found = compared(ground, LOW, HIGH)
    a, b = found.entries
    assert (a.key, b.key) == ("A", "B")
    difference = found.differences[0]
    assert difference.verdict == "better"
    assert difference.epsilon.value == pytest.approx(0.667, rel=0.05), "45 ms must be worsened to 30 to be covered"
    assert difference.epsilon_back.value == pytest.approx(2.0, rel=0.05)
    for objective in found.objectives:
        gain = b.best[objective.name].gain
        assert gain is not None
        assert gain.low < 2.0 < gain.high
        assert gain.high / gain.low < 1.2
    assert found.coverage[1][0].value == 1.0 and found.coverage[0][1].value == 0.0
    assert a.on_union == 0 and b.on_union == 2
    assert all(gain.low < gain.value < gain.high for gain in b.contributions.values())
    assert sum(gain.value for gain in b.contributions.values()) == pytest.approx(b.indicators["contribution"].value)
    volume = b.indicators["hypervolume"]
    assert volume.low < volume.value < volume.high
    assert re.match(r"B is better than A: hypervolume 0\.8\d\d against 0\.3\d\d \(\+0\.5", headline(found))
    assert "B covers all of A's front; A covers 0 % of B's front and misses some member by 2.0" in headline(found)
    assert found.config == {"search.frontier_bias": {"A": "0.7", "B": "0.9"}}
    assert (a.setting, b.setting) == ("frontier_bias=0.7", "frontier_bias=0.9")
    assert set(found.points) == {"seed", "kv"}
    assert found.points["seed"].estimates["output_throughput"].n == 12, "both runs measured the same seed"
    assert found.reference["output_throughput"] < 100 < found.ideal["output_throughput"]


def test_a_front_against_itself_shows_no_difference(ground: Path, tmp_path: Path) -> None:
    run_of(tmp_path, "20260101-000000-one", LOW_FRONT, seed=1)
    run_of(tmp_path, "20260101-000000-two", LOW_FRONT, seed=2)
    found = compared(tmp_path, "one", "two")
    assert found.differences[0].verdict == "no difference shown"
    assert headline(found).startswith("No difference shown between B and A")
    assert found.config == {}
    assert [setting.keys for setting in found.settings] == [("A", "B")]
    assert repr(compared(tmp_path, "one", "two")) == repr(found), "the same runs always compare with the same result"


def test_other_objectives_can_be_chosen(ground: Path) -> None:
    found = compared(ground, LOW, HIGH, objectives=("output_throughput", "p99_ttft_ms@low"))
    assert [str(o.direction) for o in found.objectives] == ["max", "min"]
    assert found.entries[1].best["p99_ttft_ms@low"].value.value == pytest.approx(30, rel=0.1)
    with pytest.raises(UsageError, match="at least two objectives"):
        compared(ground, LOW, HIGH, objectives=("median_ttft_ms",))
    with pytest.raises(UsageError, match=r"tpot was not measured in .*p99_ttft_ms@low"):
        compared(ground, LOW, HIGH, objectives=("tpot",))


def test_the_held_out_trace_in_place_of_the_search(ground: Path) -> None:
    found = compared(ground, LOW, HIGH, held_out=True)
    assert [m.id for m in found.entries[0].contender.members] == ["c000001"]
    assert found.entries[0].contender.members[0].estimates["median_ttft_ms"].n == 3
    assert any("left out: c000002" in caveat for caveat in found.caveats)


def test_settings_with_enough_seeds_are_tested(swept: Path) -> None:
    found = compared(swept, *(run.name for run in sorted(swept.iterdir())))
    assert [(s.label, len(s.keys)) for s in found.settings] == [("frontier_bias=0.3", 5), ("frontier_bias=0.9", 5)]
    test = found.rank_sums[0]
    assert (test.effect, test.verdict) == (0.0, "worse")
    assert test.p == pytest.approx(2 / 252)
    assert "better beyond the luck of seeds (p = 0.0079 after Holm, A = 1.00, large)" in headline(found)
    attained = page_data(found)["attainment"]
    assert len(attained) == 1
    assert set(attained[0]["surfaces"]) == {"frontier_bias=0.3", "frontier_bias=0.9"}
    areas = attained[0]["differences"][0]["areas"]
    assert areas and all(-1 <= area[4] < 0 for area in areas), "nowhere do more runs of the first setting attain"


# --- fair or refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ("reference", "target (reference/)"),
        ("checker", "accuracy checker"),
        ("benchmark", "benchmark (benchmark/)"),
        ("vibeserve", "VibeServe version"),
    ],
)
def test_runs_that_were_not_measured_alike_are_refused(ground: Path, tmp_path: Path, part: str, words: str) -> None:
    other = run_of(tmp_path, "20260101-000009-other", LOW_FRONT, fingerprint={part: "9" * 64})
    with pytest.raises(RunError, match=re.escape(words)) as refused:
        compared(ground, LOW, str(other))
    assert "999999999999, not" in str(refused.value) and "--force" in str(refused.value)
    found = compared(ground, LOW, str(other), force=True)
    assert words in found.forced[0]
    assert UNFAIR in to_page(found)


def test_runs_with_other_objectives_are_compared_on_those_of_the_first_by_force(ground: Path, tmp_path: Path) -> None:
    tail = Objective(name="p99_ttft_ms", direction=Direction.MIN, unit="ms", loads=("low",))
    print_of = {"objectives": "9" * 64}
    more = run_of(tmp_path, "20260101-000009-a", HIGH_FRONT, fingerprint=print_of, objectives=(*OBJECTIVES, tail))
    with pytest.raises(RunError, match="objectives"):
        compared(ground, LOW, str(more))
    found = compared(ground, LOW, str(more), force=True)
    assert [o.name for o in found.objectives] == [o.name for o in OBJECTIVES]
    assert found.forced and found.differences[0].verdict == "better"
    others = run_of(tmp_path, "20260101-000008-b", HIGH_FRONT, fingerprint=print_of, objectives=(OBJECTIVES[0], tail))
    with pytest.raises(UsageError, match="median_ttft_ms was not measured in"):
        compared(ground, LOW, str(others), force=True)


def test_a_refusal_names_the_keys_of_the_workload(ground: Path, tmp_path: Path) -> None:
    target = TARGET.replace("rate_per_s = 20", "rate_per_s = 40")
    other = run_of(tmp_path, "20260101-000009-other", LOW_FRONT, fingerprint={"settings": "9" * 64}, target=target)
    with pytest.raises(RunError, match=r"load\.low\.rate_per_s is 40, not 20"):
        compared(ground, LOW, str(other))


def test_other_hardware_and_other_objectives_are_refused(
    ground: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.vibeserve.comparable.HARDWARE", "2 × Intel Xeon, 1 × NVIDIA H200")
    other = run_of(tmp_path, "20260101-000009-other", LOW_FRONT)
    with pytest.raises(RunError, match=r"hardware: 2 × Intel Xeon, 1 × NVIDIA H200, not 2 × AMD EPYC"):
        compared(ground, LOW, str(other))
    monkeypatch.setattr("tests.vibeserve.comparable.HARDWARE", "")
    unknown = run_of(tmp_path, "20260101-000008-unknown", LOW_FRONT)
    assert any("hardware is not on record" in caveat for caveat in compared(ground, LOW, str(unknown)).caveats)


def test_weaker_reasons_for_doubt_are_said_and_do_not_refuse(ground: Path, tmp_path: Path) -> None:
    other = run_of(
        tmp_path, "20260101-000009-going", LOW_FRONT, fingerprint={"evaluation.trace_seed": "2"}, stopped="interrupted"
    )
    caveats = " ".join(compared(ground, LOW, str(other)).caveats)
    assert "arrival times and lengths were drawn differently" in caveats
    assert "20260101-000009-going (stopped)" in caveats


def test_a_run_whose_config_is_lost_has_no_differences_to_tell(ground: Path, tmp_path: Path) -> None:
    other = run_of(tmp_path, "20260101-000009-lost", LOW_FRONT)
    (other / "run.toml").unlink()
    found = compared(ground, LOW, str(other))
    assert found.config == {} and any("its config cannot be read" in caveat for caveat in found.caveats)


def test_one_front_is_not_enough(ground: Path) -> None:
    with pytest.raises(UsageError, match="at least two fronts to compare, got 1"):
        compared(ground, LOW, LOW)
    empty = invoke("compare", "nothing", "--runs-dir", ground)
    assert empty.exit_code == UsageError.exit_code


# --- baselines --------------------------------------------------------------------------------------------------------


def test_a_server_that_was_benched_is_a_point_and_several_are_a_front(ground: Path, tmp_path: Path) -> None:
    point = bench_file(tmp_path / "vllm.json", 450, 25)
    found = compared(ground, LOW, HIGH, baselines=(str(point),))
    entry = found.entry("C")
    assert (entry.contender.name, str(entry.contender.kind)) == ("vllm", "baseline")
    assert entry.on_union == 1
    assert found.config.keys() == {"search.frontier_bias"}, "a baseline has no config"
    more = bench_file(tmp_path / "slower.json", 300, 8)
    both = compared(ground, LOW, baselines=(f"sglang={point}", f"sglang={more}"))
    assert [len(e.contender.members) for e in both.entries] == [2, 2]
    assert both.entry("B").contender.name == "sglang"
    run = compared(ground, LOW, baselines=(HIGH,))
    assert run.entry("B").contender.kind == "baseline"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"backend": "vllm"}, "who measured"),
        ({"vibeserve": "0.0.1"}, "VibeServe version"),
        ({"hardware": "8 × Intel Xeon"}, "hardware: 8 × Intel Xeon, not 2 × AMD EPYC"),
        ({"workload": []}, "its loads are not on record"),
        ({"workload": [{"name": "low", "rate_per_s": 99.0}]}, "load low: "),
    ],
)
def test_a_baseline_that_was_measured_otherwise_is_refused(
    ground: Path, tmp_path: Path, changes: dict[str, object], words: str
) -> None:
    point = bench_file(tmp_path / "vllm.json", 450, 25, **changes)
    with pytest.raises(RunError, match=re.escape(words)):
        compared(ground, LOW, HIGH, baselines=(str(point),))
    assert compared(ground, LOW, HIGH, baselines=(str(point),), force=True).forced


def test_a_file_that_is_no_measurement_is_explained(ground: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text("{}")
    with pytest.raises(ConfigError, match="with 'samples' in it"):
        compared(ground, LOW, baselines=(str(path),))
    bench_file(path, 450, 25, samples={"output_throughput@high": [1.0]})
    with pytest.raises(UsageError, match="median_ttft_ms@low, which the benchmark did not report"):
        compared(ground, LOW, baselines=(str(path),))
    sound = {"output_throughput@high": [1.0], "median_ttft_ms@low": [1.0]}
    for wrong in ([True], ["1"], [-1.0], [[1.0]], "1", {"a": 1}, 1):
        bench_file(path, 450, 25, samples=sound | {"median_ttft_ms@low": wrong})
        with pytest.raises(ConfigError, match=r"samples.*(a list of numbers|must be a)"):
            compared(ground, LOW, baselines=(str(path),))
    path.write_text(json.dumps({"samples": sound | {"median_ttft_ms@low": [math.nan]}}))
    with pytest.raises(ConfigError, match="NaN is not a number"):
        compared(ground, LOW, baselines=(str(path),))
    bench_file(path, 450, 25, workload=7, flags="x", samples=sound | {"median_ttft_ms@low": [None]})
    lost = compared(ground, LOW, baselines=(str(path),), force=True)
    assert lost.entry("B").on_union == 0 and lost.differences[0].epsilon.value == math.inf, "an infinite latency"
    assert "misses some member by ∞×" in headline(lost)
    with pytest.raises(UsageError, match="is given twice"):
        compared(ground, LOW, baselines=(f"x={path}", f"x={path}"), force=True)
    with pytest.raises(UsageError, match="neither a file nor a run"):
        compared(ground, LOW, baselines=("absent.json",))


def test_hardware_has_a_name() -> None:
    assert hardware(2) == f"2 × {cpu_model()}"
    assert hardware(2, ("0", "1")).startswith(f"2 × {cpu_model()}, 2 × ")
    assert machine().partition(" × ")[2].startswith(cpu_model())


# --- formats ----------------------------------------------------------------------------------------------------------


def test_every_format_says_the_same(ground: Path, tmp_path: Path) -> None:
    arguments = ("compare", LOW, HIGH, "--runs-dir", ground)
    table, plain = invoke(*arguments), invoke(*arguments, "--format", "md")
    assert table.exit_code == plain.exit_code == 0, table.output
    assert "B is better than A" in table.stdout and "B is better than A" in plain.stdout
    assert "| search.frontier_bias | 0.7 | 0.9 |" in plain.stdout
    assert "Reference point (1): output_throughput" in table.stdout
    value = json.loads(invoke(*arguments, "--json").stdout, parse_constant=pytest.fail)
    assert value["fair"] is True
    assert value["differences"][0]["verdict"] == "better"
    assert value["fronts"]["B"]["indicators"]["hypervolume"].keys() == {"value", "low", "high"}
    assert value["fronts"]["B"]["members"][0]["metrics"]["median_ttft_ms"]["n"] == 6
    again = invoke(*arguments, "--format", "json", "-o", "out.json")
    assert json.loads((tmp_path / "out.json").read_text()) == value, again.output
    page = invoke(*arguments, "--format", "html")
    assert (tmp_path / "comparison.html").stat().st_size > 1_000_000, page.output


def test_the_page_asks_the_network_for_nothing_and_escapes_what_it_shows(ground: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "20260101-000009-evil"
    shutil.copytree(ground / LOW, run_dir)
    point = bench_file(tmp_path / "p.json", 450, 25, url="</script><img src=x onerror=alert(1)>")
    found = compared(tmp_path, str(run_dir), baselines=(f"<i>={point}",))
    page = to_page(found)
    ours = re.sub(r"<script>/\*\*.*?</script>", "", page, flags=re.DOTALL)
    assert len(ours) < 200_000, "only plotly's script is large"
    assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", ours)
    assert "<img" not in ours and "<i>" not in ours
    assert "default-src 'none'" in page
    assert FINGERPRINT["vibeserve"] in ours


@pytest.mark.browser
def test_the_page_opens_without_a_network(swept: Path, ground: Path, tmp_path: Path) -> None:
    sweep, pair = tmp_path / "sweep.html", tmp_path / "pair.html"
    sweep.write_text(to_page(compared(swept, *(run.name for run in sorted(swept.iterdir())))), encoding="utf-8")
    pair.write_text(to_page(compared(ground, LOW, HIGH)), encoding="utf-8")
    with Browser() as browser:
        browser.send("Network.emulateNetworkConditions", offline=True, latency=0, **RATES)
        for width, dark in ((1280, False), (1280, True), (390, False)):
            browser.window(width, dark=dark)
            text = browser.open(sweep.as_uri())
            assert "Attainment over seeds" in text and "frontier_bias=0.9" in text and "Rank-sum tests" in text
            for plot in ("front", "volumes", "surfaces", "difference"):
                assert browser.js(f"document.querySelectorAll('#{plot} .scatterlayer .trace').length") > 0, plot
            assert browser.js("document.documentElement.scrollWidth") <= width, "nothing is wider than the window"
        assert browser.js("document.querySelectorAll('#front .scatterlayer .trace').length") == 10 * 2 + 2
        text = browser.open(pair.as_uri())
        assert "B is better than A" in text and "Attainment over seeds" not in text
        browser.js("document.getElementById('log').click()")
        assert browser.js("document.getElementById('front').layout.xaxis.type") != "log"
    assert browser.complaints == []
