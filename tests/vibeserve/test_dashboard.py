"""The dashboard over HTTP: who is let in, what its pages are told, and how small that is for 10,000 candidates."""

from __future__ import annotations

import gzip
import http.client
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest

from benchmarks.chaos.resume_time import make_ledger
from population.candidate import Operator, Proposal
from population.errors import UsageError
from population.evaluation import Place, Rejected, Scored, Stage
from population.events import Proposed, RunStarted
from population.ledger import Ledger, read_events
from population.objectives import Direction, Objective
from population.replay import State
from tests.population.strategies import child
from tests.vibeserve.comparable import HIGH_FRONT, LOW_FRONT, run_of
from tests.vibeserve.fabricated import FabricatedRun, scored, small_run
from tests.vibeserve.recorded import TOY
from vibeserve.dashboard import (
    candidate,
    children,
    course,
    failures,
    front,
    lineage,
    operators,
    overview,
    timeline,
    wire,
)
from vibeserve.dashboard.children import Query
from vibeserve.dashboard.comparison import Comparisons
from vibeserve.dashboard.course import steps
from vibeserve.dashboard.failures import pattern
from vibeserve.dashboard.idle import Span, idle
from vibeserve.dashboard.rows import rows
from vibeserve.dashboard.spending import Prices
from vibeserve.dashboard.work import Bar
from vibeserve.follower import Followed
from vibeserve.growth import hypervolume

EVIL = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
DEADLINE_S = 60.0


def hostile_run(runs_dir: Path, name: str = "20260102-000000-hostile") -> FabricatedRun:
    """Open for more; everything that a candidate can write holds markup."""
    run = FabricatedRun.create(runs_dir, name)
    run.child(0, scored(100, 50), Operator.SEED)
    run.child(1, scored(400, 30), parents=("c000000",), recipe=f"evil {EVIL}")
    run.child(
        2, Rejected(stage=Stage.CHECKER, reason=f"reason {EVIL}", evidence=f"evidence {EVIL}"), parents=("c000001",)
    )
    folder = run.folder / "children" / "c000002"
    folder.mkdir(parents=True)
    (folder / "server.log").write_text(f"log {EVIL}\n\x1b[31mred\x1b[0m\n")
    (folder / "brief.md").write_text(f"brief {EVIL}\n")
    (folder / "stacks.txt").write_text(
        f"main (server.py:1);frame {EVIL} 30\nmain (server.py:1);idle (server.py:9) 10\n"
    )
    return run


@dataclass(frozen=True)
class Served:
    """A dashboard in a process of its own, as a user starts it."""

    url: str
    process: subprocess.Popen[str]

    @property
    def address(self) -> str:
        return self.url.partition("/?")[0]

    @property
    def token(self) -> str:
        return self.url.partition("token=")[2]

    def get(
        self, path: str, headers: Mapping[str, str] | None = None, method: str = "GET"
    ) -> tuple[int, Mapping[str, str], bytes]:
        connection = http.client.HTTPConnection(self.address.removeprefix("http://"), timeout=DEADLINE_S)
        try:
            connection.request(method, path, headers=dict(headers or {}))
            response = connection.getresponse()
            return response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()
        finally:
            connection.close()

    def cookie(self) -> str:
        _, headers, _ = self.get(f"/?token={self.token}")
        return headers["set-cookie"].partition(";")[0]

    def json(self, path: str, **query: str) -> tuple[int, Any]:
        asked = f"{path}?{urlencode(query)}" if query else path
        status, _, body = self.get(asked, {"cookie": self.cookie()})
        return status, json.loads(body, parse_constant=lambda literal: pytest.fail(f"not strict JSON: {literal}"))


@contextmanager
def dashboard(*runs: Path, options: tuple[str, ...] = ()) -> Iterator[Served]:
    command = (sys.executable, "-m", "vibeserve", "dashboard", *map(str, runs), "--port", "0", "--json", *options)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        yield Served(url=json.loads(process.stdout.readline())["url"], process=process)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(DEADLINE_S)
        process.stdout.close()
    assert process.returncode == 0  # Ctrl-C is the way to end it


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("runs")
    hostile = hostile_run(folder)
    with dashboard(small_run(folder), hostile.folder) as running:
        yield running
    hostile.close()


def test_only_the_token_opens_the_door(served: Served) -> None:
    assert served.get("/")[0] == 403
    assert served.get("/?token=" + "x" * 43)[0] == 403
    assert served.get("/api/runs")[0] == 403
    assert served.get("/static/app.js")[0] == 403
    status, headers, _ = served.get(f"/run/a/front?axes=b&token={served.token}")
    assert (status, headers["location"]) == (303, "/run/a/front?axes=b")  # out of the address bar and the history
    assert "HttpOnly" in headers["set-cookie"] and "SameSite=strict" in headers["set-cookie"]
    name, _, value = headers["set-cookie"].partition(";")[0].partition("=")
    assert served.get("/", {"cookie": f"{name}={value}"})[0] == 200
    assert served.get("/", {"cookie": f"{name}={value[:-1]}"})[0] == 403
    assert served.get("/api/stream", {"cookie": f"{name}=wrong"})[0] == 403


def test_a_redirect_stays_here(served: Served) -> None:
    _, headers, _ = served.get(f"//evil.example/?token={served.token}")
    assert headers["location"] == "/evil.example/"


def test_a_name_that_was_made_to_point_here_is_refused(served: Served) -> None:
    cookie = {"cookie": served.cookie()}
    for host in ("evil.example", "evil.example:8642", "127.0.0.1.evil.example", "", "0.0.0.0", "[::1].evil"):
        assert served.get("/", {**cookie, "host": host})[0] == 403, host
    for host in ("localhost", "localhost:9000", "127.0.0.1:1", "[::1]:8642"):  # a tunnel's port is its own
        assert served.get("/", {**cookie, "host": host})[0] == 200, host


def test_every_answer_has_strict_headers_and_nothing_can_be_changed(served: Served) -> None:
    cookie = {"cookie": served.cookie()}
    for path, status in (("/", 200), ("/api/runs", 200), ("/static/app.js", 200), ("/nothing", 404)):
        found, headers, _ = served.get(path, cookie)
        assert found == status
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'self';") and "script" not in policy and "unsafe-eval" not in policy
        assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"
    assert served.get("/", headers={})[1]["content-security-policy"]
    for method in ("POST", "PUT", "DELETE"):
        assert served.get("/api/runs", cookie, method)[0] == 405


def test_files_come_from_the_package_and_the_installed_plotly_alone(served: Served) -> None:
    cookie = {"cookie": served.cookie()}
    _, headers, page = served.get("/", cookie)
    assert headers["content-type"].startswith("text/html")
    assert not re.search(rb"https?://", page)
    _, headers, packed = served.get("/static/plotly.min.js", {**cookie, "accept-encoding": "gzip"})
    assert headers["content-encoding"] == "gzip" and b"plotly.js v" in gzip.decompress(packed)[:200]
    assert served.get("/static/plotly.min.js", {**cookie, "if-none-match": headers["etag"]})[0] == 304
    for name in ("../app.py", "..%2Fapp.py", "%2Fetc%2Fpasswd", "app.py", "nothing.js"):
        assert served.get(f"/static/{name}", cookie)[0] == 404, name


def test_own_files_name_no_other_server_and_hold_no_markup_sink() -> None:
    folder = Path(front.__file__).parent / "static"
    for path in folder.iterdir():
        text = path.read_text()
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text), path.name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text), (
            path.name
        )
    page = (folder / "index.html").read_text()
    assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=|style=", page)


def test_pages_are_told_strict_json(served: Served) -> None:
    status, listed = served.json("/api/runs")
    assert status == 200 and [run["run"] for run in listed["runs"]] == [
        "20260101-000000-small",
        "20260102-000000-hostile",
    ]
    base = "/api/run/20260101-000000-small"
    for view in ("overview", "front", "progress", "lineage", "candidates", "slots", "failures", "operators"):
        assert served.json(f"{base}/{view}")[0] == 200, view
    status, found = served.json(f"{base}/candidate", id="c000002")
    assert status == 200 and found["verdict"] == "rejected at audit"
    assert found["evaluations"][0]["evidence"] == "token 17"  # without what steers a terminal
    status, text = served.json(f"{base}/file", id="c000002", key="c000002", file="server.log")
    assert status == 200 and text["text"].splitlines()[-1] == "line 3"
    status, changed = served.json(f"{base}/diff", id="c000001", against="c000000")
    assert status == 200 and "+# version 1" in changed["diff"]


@pytest.mark.parametrize(
    ("path", "query", "status", "words"),
    [
        ("/api/run/nothing/front", {}, 404, "no run"),
        ("/api/run/20260101-000000-small/nothing", {}, 404, "no such page"),
        ("/api/run/20260101-000000-small/front", {"axes": "a,b"}, 404, "no metric 'a'"),
        ("/api/run/20260101-000000-small/front", {"axes": "output_throughput"}, 404, "two or three axes"),
        ("/api/run/20260101-000000-small/front", {"slo": "fast"}, 422, "expected conditions"),
        ("/api/run/20260101-000000-small/front", {"slo": "p99_tpot_ms<1"}, 404, "was measured"),
        ("/api/run/20260101-000000-small/candidate", {"id": "c000099"}, 404, "no child c000099"),
        ("/api/run/20260101-000000-small/candidate", {"id": "../x"}, 404, "expected a candidate"),
        ("/api/run/20260101-000000-small/candidates", {"sort": "x"}, 404, "expected a sort"),
        ("/api/run/20260101-000000-small/candidates", {"page": "-1"}, 404, "page number"),
        ("/api/run/20260101-000000-small/diff", {"id": "c000005", "against": "c000000"}, 404, "never became a commit"),
        ("/api/run/20260101-000000-small/diff", {"id": "c000001", "against": "--output=x"}, 404, "no commit"),
        ("/api/run/20260101-000000-small/file", {"id": "c000002", "key": "..", "file": "run.toml"}, 404, "no file"),
        (
            "/api/run/20260101-000000-small/file",
            {"id": "c000002", "key": "c000002", "file": "../../run.toml"},
            404,
            "no file",
        ),
        ("/api/compare", {"runs": "20260101-000000-small"}, 422, "at least two runs"),
    ],
)
def test_a_question_that_makes_no_sense_is_answered_in_words(
    served: Served, path: str, query: dict[str, str], status: int, words: str
) -> None:
    found, body = served.json(path, **query)
    assert found == status and words in body["error"]


def test_a_file_that_leads_out_of_the_run_is_not_shown(tmp_path: Path) -> None:
    folder = small_run(tmp_path)
    (tmp_path / "outside").write_text("key")
    (folder / "secret").write_text("draws the prompts")
    kept = folder / "children" / "c000002"
    (kept / "leak").symlink_to(tmp_path / "outside")
    (kept / "inner").symlink_to(folder / "secret")
    (kept / "loop").symlink_to(kept / "loop")
    (folder / "children" / "c000001").symlink_to(tmp_path)
    run = followed(folder)
    for name, file in (("c000002", "leak"), ("c000002", "inner"), ("c000002", "loop"), ("c000001", "outside")):
        with pytest.raises(UsageError, match="no file"):
            candidate.file_text(run, name, name, file)
        assert file not in [found["name"] for found in candidate.candidate_page(run, name, Prices())["files"]]


def test_of_a_huge_log_the_end_is_shown_without_what_steers_a_terminal_or_turns_text_around(tmp_path: Path) -> None:
    folder = small_run(tmp_path)
    log = folder / "children" / "c000002" / "server.log"
    with log.open("wb") as handle:
        handle.truncate(3_000_000_000)
        handle.seek(0, 2)
        handle.write("\n\x1b[31mred\u202ekcab\x07 end\n".encode())
    text = wire.shown(candidate.file_text(followed(folder), "c000002", "c000002", "server.log"))["text"]
    assert text.splitlines()[-1] == "red�kcab� end" and len(text) <= candidate.MOST_FILE_BYTES
    assert wire.shown({"ev\u202eil": 1}) == {"ev�il": 1}


def test_the_stream_tells_when_a_ledger_grows_and_ends_with_the_server(tmp_path: Path) -> None:
    run = hostile_run(tmp_path)
    with dashboard(run.folder) as served:
        connection = http.client.HTTPConnection(served.address.removeprefix("http://"), timeout=DEADLINE_S)
        connection.request("GET", "/api/stream", headers={"cookie": served.cookie()})
        response = connection.getresponse()
        assert response.headers["content-type"].startswith("text/event-stream")
        first = revision(response)
        run.child(3, scored(900, 20), parents=("c000001",), recipe="more")
        assert revision(response) > first
        served.process.send_signal(signal.SIGINT)
        rest = response.read()  # to its end: the server does not wait for browsers to leave
        assert b"Traceback" not in rest
        served.process.wait(DEADLINE_S)
        connection.close()
    run.close()


def revision(response: http.client.HTTPResponse) -> int:
    while line := response.readline():
        if line.startswith(b"data: "):
            (found,) = json.loads(line[6:]).values()
            assert isinstance(found, int)
            return found
    raise AssertionError("the stream ended")


def test_the_port_and_the_runs_are_checked_before_anything_is_served(tmp_path: Path) -> None:
    folder = small_run(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = cli("dashboard", str(folder), "--port", port)
        assert done.returncode == 1 and "cannot be used" in done.stderr
    twin = small_run(tmp_path / "other")
    done = cli("dashboard", str(folder), str(twin))
    assert done.returncode == 2 and "several are called" in done.stderr
    assert cli("dashboard", "--runs-dir", str(tmp_path / "none")).returncode == 2
    assert cli("dashboard", str(folder), "--slo", "fast").returncode == 3


def cli(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = (sys.executable, "-m", "vibeserve", *arguments)
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)


# --- what the pages are told ------------------------------------------------------------------------------------------


def followed(folder: Path) -> Followed:
    run = Followed(folder)
    run.refresh()
    return run


def test_following_is_the_same_as_reading_anew(tmp_path: Path) -> None:
    writer = hostile_run(tmp_path)
    run = followed(writer.folder)
    before = run.revision
    assert run.refresh() == before
    writer.child(3, scored(900, 20), parents=("c000001",), recipe="more")
    assert run.refresh() > before
    writer.close()
    with Ledger.open(writer.folder / "ledger") as again:  # another driver: another segment
        again.append(Proposed(proposal=Proposal(number=4, operator=Operator.TUNE, parents=("c000003",))))
        run.refresh()
    fresh = State.replay(read_events(writer.folder / "ledger"))
    assert list(run.events) == list(read_events(writer.folder / "ledger"))
    assert run.state.archive.front == fresh.archive.front and run.state.pending == fresh.pending


def test_damage_is_said_and_what_was_read_stays(tmp_path: Path) -> None:
    writer = hostile_run(tmp_path)
    run = followed(writer.folder)
    front_before = run.state.archive.front
    writer.close()
    segment = max((writer.folder / "ledger").glob("*.jsonl"))
    segment.write_bytes(segment.read_bytes() + b'{"hash":"broken"}\n')
    run.refresh()
    assert run.problem is not None and "damaged" in run.problem
    assert run.state.archive.front == front_before and overview.overview(run)["problem"] == run.problem
    shutil.rmtree(writer.folder)
    run.refresh()
    assert "deleted or moved" in overview.overview(run)["problem"]


def test_the_front_shows_members_with_intervals_the_rest_grey_and_stars(tmp_path: Path) -> None:
    picture = front.front_picture(followed(small_run(tmp_path)), [], "")
    assert [axis["name"] for axis in picture["chosen"]] == ["output_throughput", "median_ttft_ms"]
    by_id = {member["id"]: member for member in picture["front"]}
    assert set(by_id) == {"c000001", "c000003"}
    value, low, high, repeats = by_id["c000001"]["point"][0]
    assert low < value < high and repeats == 4
    assert by_id["c000003"]["gains"]["median_ttft_ms"] == pytest.approx(5)
    assert picture["dominated"]["ids"] == ["c000004"] and picture["dominated"]["total"] == 1
    assert picture["seed"][0][0] == pytest.approx(100)
    assert list(picture["baselines"]) == ["kv"] and set(picture["held_out"]) == {"c000000", "c000001"}


def test_a_service_level_says_who_breaks_it_and_where_it_runs(tmp_path: Path) -> None:
    picture = front.front_picture(
        followed(small_run(tmp_path)), [], "median_ttft_ms@low<20, output_throughput@high>1000"
    )
    assert picture["level"]["broken"] == ["c000001", "c000004"]
    assert picture["level"]["unseen"] == ["median_ttft_ms@low < 20", "output_throughput@high > 1000"]
    picture = front.front_picture(followed(small_run(tmp_path / "b")), [], "median_ttft_ms<20")
    assert picture["level"]["limits"] == [{"axis": 1, "upper": True, "limit": 20.0, "text": "median_ttft_ms < 20"}]


def test_any_measured_metric_can_be_an_axis(tmp_path: Path) -> None:
    run = followed(small_run(tmp_path))
    picture = front.front_picture(run, ["p99_ttft_ms", "output_throughput@high", "median_ttft_ms"], "")
    assert [axis["unit"] for axis in picture["chosen"]] == ["ms", "tok/s", "ms"]
    assert [member["id"] for member in picture["front"]] == ["c000001"]  # the only one with a p99


def test_progress_ends_at_the_hypervolume_of_the_front(tmp_path: Path) -> None:
    run = followed(small_run(tmp_path))
    told = course.progress(run, Prices(gpu_hour=2.0))
    assert told["hypervolume"][-1] == pytest.approx(hypervolume(run.state.archive), rel=1e-4)
    assert told["children"] == sorted(told["children"]) and told["children"][-1] == 5
    assert told["gpu_hours"] is None and "cannot be read" in told["why_no_gpu_hours"]  # unknown is never 0
    assert told["dollars"] is None
    assert sum(step.gained for step in steps(run)) == pytest.approx(told["hypervolume"][-1], rel=1e-4)


def test_gpu_hours_and_dollars_follow_from_the_target_and_the_price(tmp_path: Path) -> None:
    folder = small_run(tmp_path)
    shutil.copytree(TOY, folder / "target")
    settings = folder / "target" / "target.toml"
    settings.write_text(settings.read_text().replace("[resources]", "[resources]\nnum_gpus = 2"))
    run = followed(folder)
    told = course.progress(run, Prices(gpu_hour=3.0))
    evaluations = 6 * 2.5  # what came after the last child, re-measurement and finals, is on no child's account
    assert told["gpu_hours"][-1] == pytest.approx(evaluations * 2 / 3600)
    assert told["dollars"][-1] == pytest.approx(3 * told["gpu_hours"][-1])
    told = course.progress(run, Prices())
    assert told["dollars"] is None and "--gpu-hour-dollars" in told["why_no_dollars"]
    page = candidate.candidate_page(run, "c000001", Prices(gpu_hour=3.0))
    assert page["dollars"] == pytest.approx(page["gpu_hours"] * 3) and page["gpus"] == 2


def test_the_best_line_leads_from_the_seed(tmp_path: Path) -> None:
    told = lineage.lineage(followed(small_run(tmp_path)), "median_ttft_ms")
    assert told["path"] == ["c000000", "c000001", "c000003"]
    assert told["steps"][2]["gains"]["median_ttft_ms"] == pytest.approx(4.05, rel=0.02)
    places = {node["id"]: (node["x"], node["y"]) for node in told["nodes"]}
    assert places["c000000"][0] == 0 and places["c000003"][0] == 2 and len(set(places.values())) == len(places)


def test_candidates_are_filtered_sorted_and_paged(tmp_path: Path) -> None:
    run = followed(small_run(tmp_path))
    ids = [row["id"] for row in children.children_page(run, Query(sort="median_ttft_ms"))["rows"]]
    assert ids[:4] == ["c000003", "c000001", "c000000", "c000004"]  # best first
    assert [r["id"] for r in children.children_page(run, Query(state="rejected"))["rows"]] == ["c000005", "c000002"]
    assert [r["id"] for r in children.children_page(run, Query(text="KV-cache"))["rows"]] == ["c000001"]
    assert children.children_page(run, Query(page=7))["rows"] == []


def test_failures_tell_rejections_from_errors(tmp_path: Path) -> None:
    told = failures.failures(followed(small_run(tmp_path)))
    assert (told["rejected"], told["errors"]) == (2, 1)
    assert told["groups"][0]["kind"] == "error" and told["groups"][0]["reason"] == "node lost"
    assert pattern("max gap 1.25 above 0.5 in c000012") == pattern("max gap 7 above 0.5 in c000013")


def test_operators_are_credited_with_what_their_children_added(tmp_path: Path) -> None:
    run = followed(small_run(tmp_path))
    told = operators.operators(run)
    rows = {row["name"]: row for row in told["operators"]}
    assert sum(row["gained"] for row in told["operators"]) == pytest.approx(hypervolume(run.state.archive), rel=1e-4)
    assert rows["tune"]["over_parent"]["median_ttft_ms"] == pytest.approx(4.05, rel=0.02)
    assert {row["name"] for row in told["skills"]} == {"kv-cache", "slow"}
    assert "No language model" in told["why_no_models"]


def test_slots_name_what_they_wait_for() -> None:
    lanes = [[Span(10, 20), Span(30, 40)], [Span(10, 40)], [Span(52, 60)]]
    told = idle(lanes, mutating=[Span(19, 31)], driverless=[Span(42, 50)], whole=(0, 60), seeded=20)
    assert told["busy_s"] == 58
    assert {row["reason"]: row["seconds"] for row in told["idle"]} == {
        "preparing, or waiting for the seed": 40,
        "waiting for a mutation": 10,
        "not used yet: no work for it, or not there": 24,
        "no driver was running": 24,
        "nothing left to measure": 24,
    }
    assert told["busy_share"] == pytest.approx(58 / 156)


def bar(start: float, end: float | None, place: Place | None = None) -> Bar:
    return Bar(pool="evaluate", kind="child", key="c000001", start=start, end=end, place=place)


def gpu(*numbers: str, node: str = "a") -> Place:
    return Place(node=node, gpus=numbers, cpus=(0, 1))


def drawn(*bars: Bar) -> dict[str, list[float]]:
    return {row.name: [one.start for one in row.bars] for row in rows(bars, 100, "slot")}


def test_every_gpu_has_a_row_with_its_name() -> None:
    assert drawn(bar(0, 9, gpu("10")), bar(0, 5, gpu("2")), bar(6, 9, gpu("2"))) == {"GPU 2": [0, 6], "GPU 10": [0]}
    assert drawn(bar(0, 9, gpu("0", "1"))) == {"GPU 0": [0], "GPU 1": [0]}
    assert list(drawn(bar(0, 9, gpu("0", node="b")), bar(0, 9, gpu("0")))) == ["a GPU 0", "b GPU 0"]


def test_cpus_are_a_row_per_set_unless_sets_cross() -> None:
    one, two, across = (Place(node="a", cpus=cpus) for cpus in ((0, 1), (2, 3), (1, 2)))
    assert drawn(bar(0, 9, one), bar(0, 5, two)) == {"CPUs 0–1": [0], "CPUs 2–3": [0]}
    assert drawn(bar(0, 9, one), bar(0, 5, two), bar(9, 12, across)) == {"slot 1": [0, 9], "slot 2": [0]}


def test_work_whose_place_is_not_known_is_where_it_can_be() -> None:
    """What goes on is not where something else ran after it began."""
    flying = bar(5, None)
    assert drawn(bar(0, 4, gpu("0")), bar(0, 5, gpu("1")), flying, bar(6, 8, gpu("0"))) == {
        "GPU 0": [0, 6],
        "GPU 1": [0, 5],
    }
    assert drawn(bar(0, 9), bar(1, 3), bar(4, 6)) == {"slot 1": [0], "slot 2": [1, 4]}  # a ledger without places


def test_slots_show_every_kind_of_work(tmp_path: Path) -> None:
    told = timeline.timeline(followed(small_run(tmp_path)), None)
    bars = [bar for lane in told["lanes"] for bar in lane["bars"]]
    assert {bar["kind"] for bar in bars} == {"child", "mutate", "remeasure", "final"}
    for lane in told["lanes"]:  # in one row nothing overlaps
        ends = [(bar["start"], bar["end"]) for bar in lane["bars"]]
        assert all(a[1] <= b[0] + 0.06 for a, b in pairwise(ends))


def test_several_runs_are_compared_as_on_the_command_line(tmp_path: Path) -> None:
    low, high = run_of(tmp_path, "low", LOW_FRONT), run_of(tmp_path, "high", HIGH_FRONT, seed=8)
    told = Comparisons().answer([followed(low), followed(high)])
    assert told["headlines"][0].startswith("B is better than A: hypervolume")
    assert told["fair"] and told["fronts"]["B"]["indicators"]["igd_plus"]["value"] == 0
    assert told["coverage"]["B"]["A"]["value"] == 1
    volume = told["differences"][0]["hypervolume"]
    assert volume["low"] < volume["value"] < volume["high"]
    titles = [table["title"] for table in told["tables"]]
    assert "Differences" in titles and "Best per objective" in titles
    json.dumps(wire.shown(told), allow_nan=False)
    assert Comparisons().answer([followed(low), followed(high)], held_out=True)["measurements"] == "held-out"


def test_a_comparison_is_made_once_until_a_run_grows(tmp_path: Path) -> None:
    writer = hostile_run(tmp_path)
    runs = [followed(small_run(tmp_path)), followed(writer.folder)]
    comparisons = Comparisons()
    first = comparisons.answer(runs)
    assert comparisons.answer(runs) is first
    writer.child(3, scored(9000, 1), parents=("c000001",), recipe="more")
    runs[1].refresh()
    assert comparisons.answer(runs)["fronts"]["B"]["children"] == first["fronts"]["B"]["children"] + 1
    writer.close()


def test_runs_that_were_not_measured_alike_are_compared_and_so_marked(tmp_path: Path) -> None:
    low = run_of(tmp_path, "low", LOW_FRONT)
    other = run_of(tmp_path, "other", HIGH_FRONT, fingerprint={"checker": "x" * 64})
    told = Comparisons().answer([followed(low), followed(other)])
    assert not told["fair"] and "accuracy checker" in told["forced"][0]


def test_a_run_without_a_front_is_left_out_and_other_objectives_are_refused(tmp_path: Path) -> None:
    begun = FabricatedRun.create(tmp_path, "20260105-000000-begun")
    begun.close()
    runs = [followed(small_run(tmp_path)), followed(run_of(tmp_path, "low", LOW_FRONT)), followed(begun.folder)]
    assert any("left out" in text for text in Comparisons().answer(runs)["caveats"])
    with pytest.raises(UsageError, match="at least two runs with a front, got 1 of 2"):
        Comparisons().answer([runs[0], runs[2]])
    goals = tuple(Objective(name=name, direction=Direction.MIN) for name in ("median_itl_ms", "p99_itl_ms"))
    other = tmp_path / "20260104-000000-other"
    with Ledger.open(other / "ledger") as ledger:
        ledger.append(RunStarted(run=other.name, seed=1, objectives=goals))
        for event in child(0, Scored(samples={goal.name: (1.0, 2.0) for goal in goals})):
            ledger.append(event)
    with pytest.raises(UsageError, match="was not measured"):
        Comparisons().answer([followed(other), runs[0]])


def test_a_run_that_has_only_begun_has_every_page(tmp_path: Path) -> None:
    run = FabricatedRun.create(tmp_path, "20260106-000000-begun")
    seen = followed(run.folder)
    told: list[Any] = [
        front.front_picture(seen, [], ""), course.progress(seen, Prices()), lineage.lineage(seen, ""),
        children.children_page(seen, Query()), timeline.timeline(seen, None), failures.failures(seen),
        operators.operators(seen), overview.overview(seen),
    ]  # fmt: skip
    for value in told:
        json.dumps(wire.shown(value), allow_nan=False)
    run.close()


def test_thinning_keeps_extremes_and_is_bounded() -> None:
    points = np.random.default_rng(1).lognormal(size=(20_000, 2))
    points[17] = (1e9, 1e-9)
    kept = front.thinned(points, 1200)
    assert len(kept) <= 1200 and 17 in kept and len(set(kept)) == len(kept)


def test_ten_thousand_candidates_travel_in_small_answers(tmp_path: Path) -> None:
    folder = tmp_path / "20260107-000000-many"
    make_ledger(folder / "ledger", 30_000)
    run = followed(folder)
    assert len(run.state.archive.children) == 10_000
    sizes = {
        name: len(json.dumps(wire.shown(value)))
        for name, value in {
            "front": front.front_picture(run, [], ""),
            "progress": course.progress(run, Prices()),
            "lineage": lineage.lineage(run, ""),
            "candidates": children.children_page(run, Query(page=99)),
            "slots": timeline.timeline(run, None),
            "failures": failures.failures(run),
            "operators": operators.operators(run),
        }.items()
    }
    assert max(sizes.values()) < 600_000, sizes


def test_a_run_whose_driver_lives_is_running_and_says_what_is_in_flight(tmp_path: Path) -> None:
    run = FabricatedRun.create(tmp_path, "20260108-000000-live")
    run.child(0, None, Operator.SEED)
    told = overview.overview(followed(run.folder))
    assert told["state"] == "running" and told["live"]
    assert [(item["key"], item["stage"]) for item in told["in_flight"]] == [("c000000", "evaluate")]
    bars = [bar for lane in timeline.timeline(followed(run.folder), None)["lanes"] for bar in lane["bars"]]
    assert [(bar["kind"], bar["end"] is None) for bar in bars] == [("child", True), ("mutate", False)]
    run.close()
