"""What a model's tools do, and what they do not: the workspace is all there is, and programs run in the sandbox."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from evaluators.isolation import choose
from population.evaluation import Stage
from tests.vibeserve.recorded import TOY, RecordedEvaluator
from vibeserve.agents.tools.files import file_tools
from vibeserve.agents.tools.practice import Practice, practice_tools
from vibeserve.agents.tools.shell import Bash, Grep, Shell
from vibeserve.agents.tools.skills import LoadSkill
from vibeserve.agents.tools.tool import AnyTool, ToolProblem, bounded, parsed
from vibeserve.agents.tools.workspace import Workspace, matching
from vibeserve.mutators import Workplace

SECRET = "a file of somebody else's"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    root = tmp_path / "tree"
    (root / "sub").mkdir(parents=True)
    (root / "server.py").write_text("import os\nx = 1\nx = 2\n")
    (root / "sub" / "engine.toml").write_text("value = 4\n")
    (root / "__pycache__").mkdir()
    (root / "__pycache__" / "server.pyc").write_bytes(b"\0")
    (tmp_path / "secret").write_text(SECRET)
    (root / "link").symlink_to(tmp_path / "secret")
    (root / "out").symlink_to(tmp_path)
    os.mkfifo(root / "pipe")
    (root / "binary").write_bytes(b"\xff\xfe\0")
    return Workspace(root)


def use(tool: AnyTool, **arguments: Any) -> str:
    return tool.call(parsed(tool, json.dumps(arguments)), time.monotonic() + 60)


@pytest.fixture
def tools(workspace: Workspace) -> dict[str, AnyTool]:
    return {tool.name: tool for tool in file_tools(workspace)}


def test_files_are_read_with_line_numbers(tools: dict[str, AnyTool]) -> None:
    assert use(tools["read"], path="server.py", first_line=2, lines=1) == "2\tx = 1\n[1 more lines]"
    assert use(tools["read"], path="server.py", first_line=9) == "server.py has 3 lines"


def test_files_are_written_and_edited(tools: dict[str, AnyTool], workspace: Workspace) -> None:
    before = workspace.digests()
    use(tools["write"], path="new/deep.py", content="y = 1\n")
    use(tools["edit"], path="server.py", old="x = 1", new="x = 3")
    use(tools["edit"], path="server.py", old="x = ", new="z = ", everywhere=True)
    assert (workspace.root / "server.py").read_text() == "import os\nz = 3\nz = 2\n"
    after = workspace.digests()
    assert sorted(n for n in after if before.get(n) != after[n]) == ["new/deep.py", "server.py"]


@pytest.mark.parametrize(
    ("old", "words"), [("x = ", "occurs 2 times"), ("q", "does not occur"), ("", "at least 1 character")]
)
def test_an_edit_has_one_place(tools: dict[str, AnyTool], old: str, words: str) -> None:
    with pytest.raises(ToolProblem, match=words):
        use(tools["edit"], path="server.py", old=old, new="y")


@pytest.mark.parametrize("path", ["../secret", "link", "out/secret", "/etc/passwd", "sub/../../secret", "a\0b"])
@pytest.mark.parametrize("tool", ["read", "write", "edit"])
def test_no_path_leads_out(tools: dict[str, AnyTool], tmp_path: Path, tool: str, path: str) -> None:
    arguments = {"read": {}, "write": {"content": "mine"}, "edit": {"old": "file", "new": "mine"}}[tool]
    with pytest.raises(ToolProblem) as caught:
        use(tools[tool], path=path, **arguments)
    assert SECRET not in str(caught.value)
    assert (tmp_path / "secret").read_text() == SECRET


def test_absolute_paths_inside_are_fine(tools: dict[str, AnyTool], workspace: Workspace) -> None:
    assert "x = 1" in use(tools["read"], path=str(workspace.root / "server.py"))


@pytest.mark.parametrize(
    ("path", "words"), [("pipe", "no file"), ("sub", "a folder"), ("gone", "No such file"), ("binary", "UTF-8")]
)
def test_only_text_files_are_read(tools: dict[str, AnyTool], path: str, words: str) -> None:
    with pytest.raises(ToolProblem, match=words):
        use(tools["read"], path=path)


def test_a_pipe_is_not_written_to(tools: dict[str, AnyTool]) -> None:
    with pytest.raises(ToolProblem, match="something else"):
        use(tools["write"], path="pipe", content="x")
    with pytest.raises(ToolProblem, match="a part of the path is a file"):
        use(tools["write"], path="server.py/x", content="x")


def test_files_are_listed_without_links_and_caches(tools: dict[str, AnyTool]) -> None:
    assert use(tools["glob"]) == "binary\nserver.py\nsub/engine.toml"
    assert use(tools["glob"], pattern="**/*.toml") == "sub/engine.toml"
    assert use(tools["glob"], pattern="*.toml") == "no file matches *.toml"


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [("**/*.py", "a.py", True), ("**/*.py", "a/b/c.py", True), ("*.py", "a/b.py", False), ("a.?", "a.b", True),
     ("**", "a/b", True), ("a+b", "aab", False), ("src/**", "src/x/y", True)],
)  # fmt: skip
def test_globs(pattern: str, name: str, fits: bool) -> None:
    assert bool(matching(pattern).fullmatch(name)) is fits


@pytest.fixture
def shell(workspace: Workspace) -> Shell:
    return Shell(workspace, choose(False, first_party=False))


@pytest.mark.tier("A")
def test_commands_run_in_the_workspace(shell: Shell, workspace: Workspace) -> None:
    bash = Bash(shell, 30)
    assert use(bash, command="echo new > made.txt; pwd").strip() == str(workspace.root)
    assert (workspace.root / "made.txt").read_text() == "new\n"
    assert use(bash, command="cat made.txt; exit 3") == "new\n\n[exit code 3]"
    assert use(bash, command="true") == "[no output]"
    assert use(bash, command="python -c 'import numpy; print(6 * 7)'").strip() == "42"


@pytest.mark.tier("A")
def test_commands_see_no_secret(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-not-for-them-0123456789")
    bash = Bash(shell, 30)
    seen = use(bash, command=f"env; cat /proc/*/environ; cat {tmp_path}/secret link; ls {tmp_path}; true")
    assert "not-for-them" not in seen and SECRET not in seen
    with_network = use(bash, command="python -c \"import socket; socket.create_connection(('1.1.1.1', 53), 2)\"")
    assert "exit code 1" in with_network and "Network is unreachable" in with_network


@pytest.mark.tier("A")
def test_a_command_ends_at_its_limit_and_leaves_nothing(shell: Shell, workspace: Workspace) -> None:
    with pytest.raises(ToolProblem, match=r"ended after 0\.5 s"):
        use(Bash(shell, 30), command="(sleep 60; touch late) & echo begun; sleep 60", timeout_s=0.5)
    use(Bash(shell, 30), command="nohup sh -c 'sleep 1; touch late' >/dev/null 2>&1 &")
    assert "sleep" not in use(Bash(shell, 30), command="ps ax || true; cat /proc/[0-9]*/comm")
    assert not (workspace.root / "late").exists()


@pytest.mark.tier("A")
def test_long_output_is_cut(shell: Shell) -> None:
    text = use(Bash(shell, 30), command="yes 0123456789 | head -c 1000000")
    assert len(text) < 40_000


@pytest.mark.tier("A")
def test_grep(shell: Shell, workspace: Workspace) -> None:
    grep = Grep(shell, workspace)
    assert use(grep, pattern="^x = [12]$").split() == ["./server.py:2:x", "=", "1", "./server.py:3:x", "=", "2"]
    assert use(grep, pattern="VALUE", ignore_case=True, path="sub").strip() == "sub/engine.toml:1:value = 4"
    assert use(grep, pattern="-e") == "no match for -e"
    with pytest.raises(ToolProblem, match="Unmatched"):
        use(grep, pattern="(")
    with pytest.raises(ToolProblem, match="inside the workspace"):
        use(grep, pattern="file", path="../secret")
    assert SECRET not in use(grep, pattern="somebody")


def test_skills_are_loaded_by_name() -> None:
    load = LoadSkill({"kv-cache": {"SKILL.md": "Keep keys.", "scheduler.py": "pass"}})
    assert use(load, name="kv-cache") == "Keep keys.\n\n[other files: scheduler.py]"
    assert use(load, name="kv-cache", file="scheduler.py") == "pass"
    for arguments in ({"name": "x"}, {"name": "kv-cache", "file": "../../etc/passwd"}):
        with pytest.raises(ToolProblem, match=r"there is no skill|has no"):
            use(load, **arguments)


class Watching(RecordedEvaluator):
    """Keeps the tasks that it is given."""

    tasks: list[Any] = []  # noqa: RUF012

    def evaluate(self, task: Any, lease: Any, progress: Any) -> Any:
        self.tasks.append(task)
        return super().evaluate(task, lease, progress)


@pytest.fixture
def seed_tree(tmp_path: Path) -> Workspace:
    shutil.copytree(TOY / "seed", tmp_path / "seed")
    Watching.tasks.clear()
    return Workspace(tmp_path / "seed")


def test_practice_is_bounded_and_draws_its_own_prompts(seed_tree: Workspace) -> None:
    practice = Practice(seed_tree, Workplace(target=TOY, evaluator=Watching(), cpus=1))
    tools = {tool.name: tool for tool in practice_tools(practice, checks=2, benchmarks=1)}
    assert "passed" in use(tools["run_checker"])
    assert "[attempts left: 0]" in use(tools["run_checker"])
    with pytest.raises(ToolProblem, match="used up"):
        use(tools["run_checker"])
    measured = use(tools["run_quick_benchmark"])
    assert "median_tpot_ms: " in measured and "ms (min)" in measured
    assert [task.until for task in Watching.tasks] == [Stage.CHECKER, Stage.CHECKER, Stage.BENCHMARK]
    assert len({task.trace_seed for task in Watching.tasks}) == len({t.content_seed for t in Watching.tasks}) == 3
    assert not any(task.first_party for task in Watching.tasks)
    assert all(task.workspace != seed_tree.root for task in Watching.tasks)


@pytest.mark.tier("A")
def test_practice_ends_before_the_audit(seed_tree: Workspace) -> None:
    """With the real evaluator: what it judges and measures, and what it leaves to the evaluation that counts."""
    from evaluators.pipeline import LocalEvaluator

    class Noting(LocalEvaluator):
        stages: list[tuple[str, ...]] = []  # noqa: RUF012
        kept: list[set[str]] = []  # noqa: RUF012

        def evaluate(self, task: Any, lease: Any, progress: Any) -> Any:
            evaluation = super().evaluate(task, lease, progress)
            self.stages.append(tuple(evaluation.stage_s))
            self.kept.append({path.name for path in task.output.iterdir()})
            return evaluation

    practice = Practice(seed_tree, Workplace(target=TOY, evaluator=Noting(), cpus=1))
    checker, benchmark = practice_tools(practice, checks=2, benchmarks=1)
    assert use(checker).startswith("passed")
    assert "output_throughput: " in use(benchmark)
    assert Noting.stages == [
        ("static", "boot", "smoke", "checker"), ("static", "boot", "smoke", "checker", "benchmark"),
    ]  # fmt: skip
    assert not any("audit.json" in names or "responses.jsonl" in names for names in Noting.kept)
    (seed_tree.root / "server.py").write_text("raise SystemExit('no such port')\n")
    told = use(checker)
    assert told.startswith("rejected at stage boot") and "no such port" in told


def test_practice_says_what_is_wrong(seed_tree: Workspace) -> None:
    engine = seed_tree.root / "engine.toml"
    engine.write_text(engine.read_text().replace("provides = []", 'provides = ["broken"]'))
    practice = Practice(seed_tree, Workplace(target=TOY, evaluator=RecordedEvaluator(), cpus=1))
    checker, _ = practice_tools(practice, checks=1, benchmarks=1)
    assert use(checker).startswith("rejected at stage boot: the server did not start")


def test_what_is_no_candidate_is_not_practised_with(seed_tree: Workspace) -> None:
    practice = Practice(seed_tree, Workplace(target=TOY, evaluator=RecordedEvaluator(), cpus=1))
    checker, _ = practice_tools(practice, checks=3, benchmarks=1)
    os.mkfifo(seed_tree.root / "pipe")
    with pytest.raises(ToolProblem, match=r"pipe: .*named pipe"):
        use(checker)
    (seed_tree.root / "pipe").unlink()
    with (seed_tree.root / "huge").open("wb") as file:
        file.truncate(1 << 40)
    assert seed_tree.digests()["huge"].startswith(f"{1 << 40} bytes")
    with pytest.raises(ToolProblem, match="a server may have 64"):
        use(checker)
    with pytest.raises(ToolProblem, match="at most 8 MiB"):
        seed_tree.text("huge")
    assert seed_tree.find(lambda data: b"nowhere" in data) is None


def test_bounded_text_is_as_it_was() -> None:
    assert bounded("short") == "short"
