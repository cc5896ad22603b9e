"""The report: what it says, and that nothing in it leaves the file or runs."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from typer.testing import CliRunner

from population.candidate import Operator
from population.evaluation import Rejected, Stage
from population.statistics import Estimate
from tests.vibeserve.browser import Browser
from tests.vibeserve.fabricated import FabricatedRun, scored, small_run
from vibeserve.cli import app
from vibeserve.narrative import markdown, page
from vibeserve.narrative.lessons import ideas, path_to, steps
from vibeserve.narrative.material import gather
from vibeserve.narrative.scatter import Axis, Point, scatter
from vibeserve.narrative.story import tell
from vibeserve.runs import read_run


class Outline(HTMLParser):
    """Tags and addresses of a page; fails on what is not closed."""

    VOID = frozenset(("meta", "br", "path", "circle"))

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.addresses: list[str] = []
        self.ids: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        known = dict(attrs)
        self.addresses += [value for name in ("href", "src", "data") if (value := known.get(name))]
        if name := known.get("id"):
            self.ids.add(name)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def outline(text: str) -> Outline:
    found = Outline()
    found.feed(text)
    found.close()
    assert not found.open
    return found


def test_ideas_have_the_gains_of_the_children_that_tried_them(tmp_path: Path) -> None:
    archive = read_run(small_run(tmp_path))[1].archive
    found = {idea.name: idea for idea in ideas(archive)}
    assert set(found) == {"kv-cache", "slow", "tune server.batch", "recipe"}
    cache = found["kv-cache"]
    assert cache.gains["output_throughput"].value == pytest.approx(23.05, rel=1e-3)
    assert cache.gains["median_ttft_ms"].value == pytest.approx(50 / 40.5, rel=1e-2)
    assert (cache.tried, cache.scored, set(cache.members)) == (1, 1, {"c000001", "c000003"}), "c000003 is built on it"
    assert dict(found["recipe"].rejected) == {"audit": 1, "dedupe": 1}
    assert next(idea.name for idea in ideas(archive)) == "kv-cache"
    assert path_to(archive, "c000003") == ("c000000", "c000001", "c000003")


def test_gains_of_a_path_multiply_to_the_whole(tmp_path: Path) -> None:
    archive = read_run(small_run(tmp_path))[1].archive
    first, second = steps(archive)["c000001"], steps(archive)["c000003"]
    product = first.gains["median_ttft_ms"].value * second.gains["median_ttft_ms"].value
    assert product == pytest.approx(5.0)
    assert second.gains["output_throughput"].value < 1, "it gave throughput for latency"
    assert second.gains["output_throughput"].low < second.gains["output_throughput"].value


def test_the_report_is_one_file_without_scripts_or_addresses(tmp_path: Path) -> None:
    folder = small_run(tmp_path)
    result = CliRunner().invoke(app, ["report", str(folder), "--json"])
    assert result.exit_code == 0, result.output
    text = (folder / "report.html").read_text()
    found = outline(text)
    assert not {"script", "img", "link", "iframe", "object"} & found.tags
    assert all(address.startswith("#") and address[1:] in found.ids for address in found.addresses)
    assert not re.search(r"https?://|@import|url\(", text)
    for part in ("c000001", "What was learned", "kv-cache", "baseline", "23.0×", "vibeserve verify", "+value = 2"):
        assert part in text
    assert text.count("<svg") == 1
    written = (folder / "report.md").read_text()
    for part in ("## The front", "| kv-cache | 1 | 1 |", "```diff", "+value = 2", "tier C", "none was used"):
        assert part in written


def test_what_a_candidate_wrote_stays_text(tmp_path: Path) -> None:
    run = FabricatedRun.create(tmp_path, "hostile")
    run.child(0, scored(100, 50), Operator.SEED)
    run.child(1, scored(300, 20), parents=("c000000",), recipe="<script>alert(1)</script>|\x1b[31m")
    run.close()
    document = tell(gather(run.folder))
    text = page.render(document)
    assert "script" not in outline(text).tags
    assert "&lt;script&gt;" in text and "\x1b" not in text
    assert "Content-Security-Policy" in text and "default-src 'none'" in text
    assert "<script>" not in re.sub(r"```.*?```", "", markdown.render(document), flags=re.DOTALL)


def test_a_young_run_and_one_of_failures_have_reports(tmp_path: Path) -> None:
    run = FabricatedRun.create(tmp_path, "young")
    assert "No candidate was scored yet" in page.render(tell(gather(run.folder)))
    run.child(0, scored(100, 50), Operator.SEED)
    assert "No child has ended yet" in page.render(tell(gather(run.folder)))
    run.child(1, Rejected(stage=Stage.BOOT, reason="no"), parents=("c000000",), recipe="broken")
    run.close()
    written = markdown.render(tell(gather(run.folder)))
    assert "| broken | 1 | 0 | – | – | – | boot 1 |" in written


def test_labels_of_a_plot_never_overlap() -> None:
    points = [
        Point(label=f"c{i:06d}", kind="front", x=Estimate(value=100 + i % 5, low=90, high=120, n=2),
              y=Estimate(value=50 + i // 5, low=40, high=60, n=2))
        for i in range(25)
    ]  # fmt: skip
    svg = scatter(points, Axis(name="a", unit="ms", better="min"), Axis(name="b", unit=None, better="max"))
    places = [(float(x), float(y)) for x, y in re.findall(r'class="name" x="([\d.]+)" y="([\d.]+)"', svg)]
    wide = 7 * 7.2
    assert places
    for i, (x, y) in enumerate(places):
        assert all(abs(x - u) >= wide or abs(y - v) >= 14 for u, v in places[i + 1 :])
    assert svg.count("<title>") == 25, "what has no room for a name has a tooltip"
    assert scatter([], Axis(name="a", unit=None, better="min"), Axis(name="b", unit=None, better="min")) == ""


def test_claims_stand_beside_the_front(tmp_path: Path) -> None:
    folder = small_run(tmp_path)
    gains = {
        "output_throughput": {"value": 21.0, "low": 19.5, "high": None, "n": 10, "verdict": "better", "claimed": 19.5}
    }
    claim = {"candidate": "c000001", "against": "c000000", "pairs": 10, "claim": True, "gains": gains}
    (folder / "claims").mkdir()
    (folder / "claims" / "1.json").write_text(json.dumps(claim))
    (folder / "claims" / "2.json").write_text('{"candidate": "c0')
    row = "| c000001 against the seed | output_throughput | better | 19.5× | 21.0×, 19.5× – ∞ | 10 |"
    assert row in markdown.render(tell(gather(folder)))


@pytest.mark.browser
def test_a_browser_without_network_shows_all_of_the_report(tmp_path: Path) -> None:
    folder = small_run(tmp_path)
    assert CliRunner().invoke(app, ["report", str(folder)]).exit_code == 0
    with Browser() as browser:
        browser.send(
            "Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=0, uploadThroughput=0
        )
        grounds = set()
        for width, dark in ((1280, False), (1280, True), (390, False)):
            browser.window(width, dark=dark)
            browser.send("Page.navigate", url=(folder / "report.html").as_uri())
            browser.until("location.protocol === 'file:' && document.readyState === 'complete'")
            assert browser.js("document.documentElement.scrollWidth") == width, "tables scroll, the page does not"
            grounds.add(browser.js("getComputedStyle(document.body).backgroundColor"))
        text = browser.text()
        assert browser.js("performance.getEntriesByType('resource').length") == 0
        assert browser.complaints == []
    for part in (
        "What was asked",
        "The front",
        "What was learned",
        "Cost",
        "How to reproduce it",
        "Limits",
        "kv-cache",
    ):
        assert part in text
    assert len(grounds) == 2, "light and dark"


def test_every_step_is_told_once(tmp_path: Path) -> None:
    written = markdown.render(tell(gather(small_run(tmp_path))))
    later = written.partition("How c000003 came to be")[2].partition("What these steps changed")[0]
    assert "| c000001 | from the seed on, as above for c000001 | 23.0×" in later
    assert "| c000003 | server.batch=4 |" in later and "| together | over c000000 |" in later


def test_a_run_folder_with_spaces_can_be_copied_from_the_instructions(tmp_path: Path) -> None:
    folder = small_run(tmp_path / "my runs")
    written = markdown.render(tell(gather(folder)))
    assert f"vibeserve verify c000001 --against seed --pairs 10 --run '{folder}'" in written
