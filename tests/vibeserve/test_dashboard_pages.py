"""Every page of the dashboard in a real browser: what can be read, a quiet console, nothing wider than the window."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from population.candidate import Operator
from population.evaluation import Rejected, Stage
from tests.vibeserve.browser import Browser
from tests.vibeserve.comparable import HIGH_FRONT, LOW_FRONT, run_of
from tests.vibeserve.fabricated import FabricatedRun, scored, small_run
from tests.vibeserve.test_dashboard import EVIL, Served, dashboard, hostile_run

pytestmark = pytest.mark.browser
SMALL, HOSTILE = "20260101-000000-small", "20260102-000000-hostile"
NAMELESS = """[...document.querySelectorAll('select, input, button, a, [role=img]')].filter((node) =>
    !(node.closest('label')?.textContent || node.textContent || node.getAttribute('aria-label') || '').trim()
    && !node.closest('.modebar')).map((node) => node.outerHTML.slice(0, 200))"""
"""Controls and pictures that a screen reader could not call by any name."""
READY = "document.documentElement.dataset.page === 'ready'"
PAGES = {
    "/": ("Runs", SMALL, HOSTILE, "finished"),
    f"/run/{SMALL}/front": (
        "Front", "2 members of the front", "median TTFT against output throughput", "c000001", "kv-cache",
        "2,305 tok/s", "over the seed", "95 %", "↓ better", "dominated", "seed", "baseline kv",
    ),
    f"/run/{SMALL}/front?axes=output_throughput,median_ttft_ms,median_ttft_ms@low&slo=median_ttft_ms%3C20": (
        "breaks the service level", "kept by 1 of 2 members", "median TTFT · low (ms)",
    ),
    f"/run/{SMALL}/progress": (
        "Progress", "By children", "By wall time", "search time (", "By GPU-hours",
        "Unknown: the run's target", "By dollars",
    ),
    f"/run/{SMALL}/lineage": ("Lineage", "The line to c00000", "generation (steps from the seed)", "on the line"),
    f"/run/{SMALL}/candidates": ("6 children, 1 to 6 shown", "rejected", "at audit", "the same tree as c000001"),
    f"/run/{SMALL}/candidate/c000001": (
        "c000001", "scored, on the front", "How it came to be", "Parents", "tier C", "Cost and isolation", "By load",
        "load low", "median TTFT", "max gap 0.01", "measured again", "held-out trace, round 1", "matmul", "50.0 %",
        "What it changed", "+# version 1", "vibeserve verify c000001", "git -C",
    ),
    f"/run/{SMALL}/candidate/c000002": ("rejected at audit", "max gap 1.2 above 0.5", "Evidence", "line 3"),
    f"/run/{SMALL}/slots": ("Slots", "evaluation slot", "time since the run began", "measures again", "mutation 1"),
    f"/run/{SMALL}/failures": ("By stage", "node lost", "error", "rejection", "2 of 5 children rejected"),
    f"/run/{SMALL}/operators": (
        "Operators", "tune", "Skills", "kv-cache", "What models were asked", "No language model was asked",
    ),
    "/compare": (
        "Comparison", "than A", "hypervolume ↑", "IGD+ ↓", "Best per objective", "Coverage", "95 % intervals",
        "Go on from here",
    ),
}  # fmt: skip


@dataclass
class Visit:
    """A browser that was let in."""

    browser: Browser
    served: Served

    def read(self, path: str) -> str:
        return self.browser.open(self.served.address + path)


@pytest.fixture(scope="module")
def visit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visit]:
    folder = tmp_path_factory.mktemp("runs")
    hostile = hostile_run(folder)
    with dashboard(small_run(folder), hostile.folder) as served, Browser() as browser:
        browser.open(served.url)
        yield Visit(browser, served)
    hostile.close()


@pytest.fixture(autouse=True)
def quiet_console(visit: Visit) -> Iterator[None]:
    """No page may complain, and none may have asked another server."""
    visit.browser.window(1280)
    visit.browser.complaints.clear()
    yield
    # A page that names no icon, such as a refusal, makes the browser ask for this one.
    assert [text for text in visit.browser.complaints if not text.endswith("/favicon.ico")] == []


@pytest.mark.parametrize("path", PAGES)
def test_a_page_can_be_read_on_a_screen_and_on_a_phone(visit: Visit, path: str) -> None:
    text = visit.read(path)
    for words in PAGES[path]:
        assert words in text, (words, text)
    assert visit.browser.js("document.documentElement.dataset.page") == "ready"
    assert visit.browser.js("document.querySelectorAll('h1').length") == 1
    here = visit.served.address
    asked = visit.browser.js("performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert all(name.startswith(here) for name in asked), asked
    assert visit.browser.js(NAMELESS) == []
    assert visit.browser.js("[...document.querySelectorAll('th')].every((cell) => cell.scope)")
    assert visit.browser.js("document.documentElement.scrollWidth") <= 1280
    visit.browser.window(390, dark=True)  # pictures follow the width, so wait for them
    visit.browser.until("innerWidth === 390 && document.documentElement.scrollWidth <= 390")


def test_dark_and_light_are_both_legible(visit: Visit) -> None:
    contrast = """(() => { const parse = (text) => text.match(/[\\d.]+/g).slice(0, 3).map((v) => {
        const c = v / 255; return c <= .03928 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4; });
      const light = (text) => { const [r, g, b] = parse(text); return .2126 * r + .7152 * g + .0722 * b; };
      const style = (node) => getComputedStyle(node);
      const card = light(style(document.querySelector('.card')).backgroundColor);
      return ['.card td', '.card th', 'figcaption', '.tile dt', '.card a', '.chip', '.good'].flatMap((name) => {
        const node = document.querySelector(name); if (!node) return [];
        const ink = light(style(node).color);
        return [(Math.max(ink, card) + .05) / (Math.min(ink, card) + .05)]; }); })()"""
    for dark in (False, True):
        visit.browser.window(1280, dark=dark)
        visit.read(f"/run/{SMALL}/front")
        ratios = visit.browser.js(contrast)
        assert len(ratios) == 7 and min(ratios) >= 4.5, (dark, ratios)  # WCAG 2 AA


def test_what_a_candidate_wrote_stays_text(visit: Visit) -> None:
    pages = {
        f"/run/{HOSTILE}/candidate/c000002": ("reason ", "evidence ", "log ", "brief "),
        f"/run/{HOSTILE}/candidates": ("reason ", "evil "),
        f"/run/{HOSTILE}/failures": ("reason ",),
        f"/run/{HOSTILE}/operators": ("evil ",),
        f"/run/{HOSTILE}/front": ("evil ",),
        f"/run/{HOSTILE}/lineage": ("evil ",),
    }
    for path, before in pages.items():
        text = visit.read(path)
        for words in before:
            assert words + EVIL in text, (path, words)
        assert visit.browser.js("document.querySelectorAll('img, main script, main iframe').length") == 0
        assert "owned" not in visit.browser.js("document.title")


def test_markup_in_a_picture_s_hover_text_stays_text(visit: Visit) -> None:
    visit.read(f"/run/{HOSTILE}/front")
    texts = visit.browser.js("document.querySelector('.chart').data.flatMap((trace) => trace.text ?? []).join(' ')")
    assert "&lt;img" in texts and "<img" not in texts


def test_sampled_stacks_become_a_flame_graph(visit: Visit) -> None:
    text = visit.read(f"/run/{HOSTILE}/candidate/c000002")
    assert "Flame graph" in text and "40 samples" in text
    labels = visit.browser.js("document.querySelector('.chart').data[0].labels")
    assert labels[0] == "all" and "main (server.py:1)" in labels and any("&lt;img" in label for label in labels)


def test_a_keyboard_alone_gets_everywhere(visit: Visit) -> None:
    visit.read(f"/run/{SMALL}/front")
    visit.browser.key("Tab")
    assert visit.browser.js("document.activeElement.textContent") == "Skip to the content"
    seen = []
    for _ in range(60):
        visit.browser.key("Tab")
        seen.append(visit.browser.js("document.activeElement.textContent || document.activeElement.tagName"))
        if seen[-1] == "c000001":
            break
    assert seen[-1] == "c000001" and {"Front", "Failures"} <= set(seen)
    visit.browser.key("Enter")
    visit.browser.until(
        "location.pathname.endsWith('/candidate/c000001') && document.documentElement.dataset.page === 'ready'"
    )
    assert visit.browser.js("document.activeElement.id") == "main"  # a screen reader goes on from here
    visit.browser.js("history.back()")
    visit.browser.until(f"location.pathname.endsWith('/front') && {READY}")


def test_runs_that_were_not_measured_alike_are_marked(visit: Visit, tmp_path: Path) -> None:
    low = run_of(tmp_path, "low", LOW_FRONT)
    other = run_of(tmp_path, "other", HIGH_FRONT, fingerprint={"checker": "x" * 64})
    with dashboard(low, other) as served:
        visit.browser.open(served.url)
        text = visit.browser.open(f"{served.address}/compare?runs=low,other")
        assert "NOT A FAIR COMPARISON" in text and "accuracy checker" in text and "B is better than A" in text
        visit.browser.js("[...document.querySelectorAll('label')].find((l) => l.textContent === 'other').click()")
        visit.browser.until("document.querySelector('[role=alert]').textContent.includes('at least two runs')")
        visit.browser.complaints.clear()  # the browser reports the refusal (422), as it should
        visit.browser.send("Page.navigate", url="about:blank")
    visit.browser.open(visit.served.url)


def test_axes_and_service_level_can_be_chosen_and_stay_in_the_address(visit: Visit) -> None:
    visit.read(f"/run/{SMALL}/front")
    visit.browser.js("""(() => { const level = document.querySelector('input[type=text]');
        level.value = 'median_ttft_ms<20'; level.dispatchEvent(new Event('change')); })()""")
    visit.browser.until("document.body.innerText.includes('breaks the service level')")
    assert "slo=median_ttft_ms" in visit.browser.js("location.search")
    visit.browser.js("""(() => { const level = document.querySelector('input[type=text]');
        level.value = 'fast'; level.dispatchEvent(new Event('change')); })()""")
    visit.browser.until("document.querySelector('[role=alert]').textContent.includes('expected conditions')")
    visit.browser.complaints.clear()  # the browser reports the refusal (422), as it should


def test_three_axes_can_be_seen_in_space(visit: Visit) -> None:
    axes = "output_throughput,median_ttft_ms,median_ttft_ms@low"
    assert "drag to turn" in visit.read(f"/run/{SMALL}/front?axes={axes}&look=3d")
    assert visit.browser.js("document.querySelector('.chart').data.every((trace) => trace.type === 'scatter3d')")
    assert not any("Content Security Policy" in text for text in visit.browser.complaints)
    visit.browser.complaints.clear()  # the software renderer speaks of its speed


def test_the_candidates_are_searched_and_sorted(visit: Visit) -> None:
    visit.read(f"/run/{SMALL}/candidates")
    visit.browser.js(
        "[...document.querySelectorAll('th button')].find((b) => b.textContent.startsWith('median')).click()"
    )
    visit.browser.until("document.querySelector('tbody th').textContent === 'c000003'")
    assert visit.browser.js("document.querySelector('th[aria-sort]').getAttribute('aria-sort')") == "descending"
    visit.browser.js("""(() => { const search = document.querySelector('input[type=search]');
        search.focus(); search.value = 'same tree'; search.dispatchEvent(new Event('input')); })()""")
    visit.browser.until("document.querySelectorAll('tbody tr').length === 1")


def test_a_diff_can_be_taken_against_the_seed(visit: Visit) -> None:
    visit.read(f"/run/{SMALL}/candidate/c000003")
    assert "-# version 1" in visit.browser.text()
    visit.browser.js("""(() => { const against = [...document.querySelectorAll('label')]
        .find((label) => label.textContent.startsWith('Against')).querySelector('select');
        against.value = 'c000000'; against.dispatchEvent(new Event('change')); })()""")
    visit.browser.until("document.querySelector('.diff').textContent.includes('-# version 0')")


def test_a_page_follows_its_ledger(visit: Visit, tmp_path: Path) -> None:
    run = FabricatedRun.create(tmp_path, "20260301-000000-live")
    with dashboard(run.folder) as served:
        assert "No candidate has been scored yet" in visit.browser.open(served.url)
        run.child(0, scored(100, 50), Operator.SEED)
        visit.browser.until("document.body.innerText.includes('1 member of the front')")
        run.child(1, scored(500, 20), parents=("c000000",), recipe="kv-cache")
        visit.browser.until("document.body.innerText.includes('c000001')")
        assert visit.browser.js("document.querySelector('.chart').data.length") >= 2
        visit.browser.open(f"{served.address}/run/{run.folder.name}/failures")
        run.child(2, Rejected(stage=Stage.BOOT, reason="no answer"), parents=("c000000",), recipe="broken")
        visit.browser.until("document.body.innerText.includes('no answer')")
        visit.browser.send("Page.navigate", url="about:blank")
    run.close()


def test_a_wrong_token_shows_nothing(visit: Visit) -> None:
    visit.browser.send("Network.clearBrowserCookies")
    visit.browser.send("Page.navigate", url=f"{visit.served.address}/?token=wrong")
    visit.browser.until("document.body?.innerText.startsWith('refused:')")
    assert SMALL not in visit.browser.text()
    visit.browser.complaints.clear()  # the browser reports the 403
    visit.browser.open(visit.served.url)
