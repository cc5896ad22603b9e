"""How fast the dashboard is on a run of 10,000 children: first reading, every page's data, and every page in a browser.

`python -m benchmarks.dashboard.ten_thousand [--children 10000] [--repeats 5] [--output FILE]`

The run is fabricated: a seed and children of earlier children, a fifth of them rejected, the others scored with three
objectives and 60 metrics of two repeats. *After growth* is the first answer after one more child has ended, when
everything has to be computed again; *again* is the same question without a change. In the browser (headless chromium,
pictures drawn by its software renderer) a page counts from the click until it says that it is complete.
"""

from __future__ import annotations

import argparse
import http.client
import json
import math
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from benchmarks.chaos.kills import replace_section
from population.candidate import Operator, Proposal, candidate_id
from population.disk import Disk
from population.evaluation import Evaluation, Rejected, Scored, Stage
from population.events import Ended, MutationDone, Proposed, RunStarted
from population.genome import Genome
from population.ledger import Ledger
from population.objectives import Direction, Objective
from tests.vibeserve.browser import Browser, chromium

_MARK = "<!-- dashboard -->"
_OBJECTIVES = (
    Objective(name="output_throughput", direction=Direction.MAX, unit="tok/s"),
    Objective(name="median_ttft_ms", direction=Direction.MIN, unit="ms"),
    Objective(name="median_tpot_ms", direction=Direction.MIN, unit="ms"),
)
_OTHERS = {f"{metric}_{i}_ms@{load}": (1.5, 2.5) for metric in "abcde" for i in range(6) for load in ("high", "low")}
_VIEWS = (
    "overview",
    "front",
    "progress",
    "lineage",
    "candidates?sort=output_throughput",
    "slots",
    "failures",
    "operators",
)
_PAGES = ("front", "progress", "lineage", "candidates", "slots", "failures", "operators", "candidate/c000042")


class _Unsynced(Disk):
    """Writing the ledger is not what is measured."""

    def sync(self, fd: int) -> None:
        pass


class Writer:
    """A run that can grow."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        self._ledger = Ledger.open(folder / "ledger", disk=_Unsynced())
        self._ledger.append(RunStarted(run=folder.name, seed=1, objectives=_OBJECTIVES))
        self._rng = np.random.default_rng(1)
        self._logs: dict[int, np.ndarray[tuple[int, ...], np.dtype[np.float64]]] = {}
        self._number = 0

    def grow(self) -> str:
        """One more child, ended."""
        number, self._number = self._number, self._number + 1
        recent = list(islice(reversed(self._logs), 50))
        parent = int(self._rng.choice(recent)) if recent else None
        operator = Operator.SEED if parent is None else Operator.RECIPE if number % 3 else Operator.TUNE
        parents = () if parent is None else (candidate_id(parent),)
        recipe = f"recipe-{number % 17}" if operator is Operator.RECIPE else None
        self._ledger.append(
            Proposed(proposal=Proposal(number=number, operator=operator, parents=parents, recipe=recipe))
        )
        sha = f"{number + 1:040x}"
        self._ledger.append(MutationDone(number=number, commit=sha, tree=sha, genome=Genome(), elapsed_s=0.001))
        self._ledger.append(Ended(number=number, evaluation=self._evaluation(number, parent), elapsed_s=0.01))
        return candidate_id(number)

    def _evaluation(self, number: int, parent: int | None) -> Evaluation:
        if parent is not None and self._rng.random() < 0.2:
            stage = (Stage.AUDIT, Stage.BOOT, Stage.CHECKER)[number % 3]
            return Rejected(
                stage=stage, reason=f"gap {number / 1000:.3f} above 0.05 at token {number}", evidence="e" * 500
            )
        start = np.log([100.0, 200.0, 30.0]) if parent is None else self._logs[parent]
        step = self._rng.normal([0.0003, -0.0003, -0.0002], 0.05)
        self._logs[number] = start + step
        values = {o.name: float(math.exp(log)) for o, log in zip(_OBJECTIVES, self._logs[number], strict=True)}
        noise = np.exp(self._rng.normal(0, 0.02, (3, 2)))
        own = {name: (value * noise[i, 0], value * noise[i, 1]) for i, (name, value) in enumerate(values.items())}
        return Scored(samples={**_OTHERS, **{name: tuple(map(float, pair)) for name, pair in own.items()}})

    def close(self) -> None:
        self._ledger.close()


@dataclass(frozen=True)
class Client:
    """Asks the dashboard as a browser would."""

    address: str
    cookie: str

    @classmethod
    def enter(cls, url: str) -> Client:
        address, _, query = url.removeprefix("http://").partition("/")
        connection = http.client.HTTPConnection(address, timeout=600)
        connection.request("GET", f"/{query}")
        cookie = connection.getresponse().headers["set-cookie"].partition(";")[0]
        connection.close()
        return cls(address, cookie)

    def ask(self, path: str) -> tuple[float, int]:
        """Seconds and bytes."""
        connection = http.client.HTTPConnection(self.address, timeout=600)
        began = time.perf_counter()
        connection.request("GET", path, headers={"cookie": self.cookie})
        response = connection.getresponse()
        size = len(response.read())
        taken = time.perf_counter() - began
        connection.close()
        assert response.status == 200, (path, response.status)
        return taken, size


def _median(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):.3f} | {min(seconds):.3f} to {max(seconds):.3f}"


def _timed(work: Callable[[], object], repeats: int) -> str:
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return _median(seconds)


def data_rows(client: Client, writer: Writer, repeats: int) -> list[str]:
    """Every view: after growth, again, and how many bytes."""
    rows = []
    for view in _VIEWS:
        path = f"/api/run/{writer.folder.name}/{view}"
        fresh, kept, size = [], [], 0
        for _ in range(repeats):
            writer.grow()
            client.ask(f"/api/run/{writer.folder.name}/candidate?id=c000000")  # takes in the new records
            taken, size = client.ask(path)
            fresh.append(taken)
            kept.append(client.ask(path)[0])
        rows.append(
            f"| {view.partition('?')[0]} | {_median(fresh)} | {statistics.median(kept):.3f} | {size / 1e3:,.0f} |"
        )
    return rows


def page_rows(url: str, writer: Writer, repeats: int) -> list[str]:
    """Every page in a browser, and how long a new child takes to appear."""
    rows = []
    with Browser() as browser:
        browser.window(1280)
        browser.open(url)
        ready = "document.documentElement.dataset.page === 'ready'"
        for page in _PAGES:
            place = json.dumps(f"/run/{writer.folder.name}/{page}")

            def visit(place: str = place) -> None:
                browser.js("document.documentElement.dataset.page = 'loading'")
                browser.js(f"history.pushState(null, '', {place}); dispatchEvent(new PopStateEvent('popstate'))")
                browser.until(ready)

            visit()
            rows.append(f"| {page.partition('/')[0]} | {_timed(visit, repeats)} |")
        browser.open(f"{url.partition('/?')[0]}/run/{writer.folder.name}/candidates")
        seen = []
        for _ in range(repeats):
            began = time.perf_counter()
            name = writer.grow()
            browser.until(f"document.body.innerText.includes('{name}')")
            seen.append(time.perf_counter() - began)
        rows.append(f"| candidates: from the ledger's record until it can be read | {_median(seen)} |")
        wrong = [text for text in browser.complaints if "/diff?" not in text]  # the run has no repository
        assert not wrong, wrong
    return rows


def measure(folder: Path, children: int, repeats: int) -> str:
    """The tables."""
    writer = Writer(folder / "20260101-000000-many")
    for _ in range(children):
        writer.grow()
    size = sum(path.stat().st_size for path in (writer.folder / "ledger").glob("*.jsonl"))
    command = (sys.executable, "-m", "vibeserve", "dashboard", str(writer.folder), "--port", "0", "--json")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        began = time.perf_counter()
        url = json.loads(process.stdout.readline())["url"]
        up = time.perf_counter() - began
        client = Client.enter(url)
        first, _ = client.ask("/api/runs")
        head = (
            f"{children:,} children, {size / 1e6:.0f} MB of ledger, {repeats} repeats; medians and ranges in seconds.\n"
        )
        lines = [
            head,
            f"The address is printed after {up:.1f} s, the ledger read {first:.1f} s after the first question.\n",
            "| data of | after growth | range | again | kB |\n|---|---|---|---|---|",
            *data_rows(client, writer, repeats),
        ]
        if chromium():
            lines += [
                "\n| page in a browser | complete after | range |\n|---|---|---|",
                *page_rows(url, writer, repeats),
            ]
        return "\n".join(lines)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)
        writer.close()


def main() -> None:
    """Print, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--children", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vibeserve-dashboard-") as folder:
        text = measure(Path(folder), given.children, given.repeats)
    print(text)
    if given.output is not None:
        replace_section(given.output, _MARK, text)


if __name__ == "__main__":
    main()
