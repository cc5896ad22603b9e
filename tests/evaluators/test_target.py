"""Targets: every defect at once with file and key, defaults for the older layout, fingerprints by part."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from evaluators.fingerprint import fingerprint, fingerprint_difference, snapshot
from evaluators.preparation import prepare
from evaluators.target import load_target, validate_target
from population.errors import ConfigError, InfrastructureError


def append(toy: Path, text: str) -> None:
    path = toy / "target.toml"
    path.write_text(path.read_text() + text)


def edit(path: Path, old: str, new: str) -> None:
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def test_the_toy_target_is_valid(toy: Path) -> None:
    target = load_target(toy)
    assert target.name == "toy"
    assert target.objectives.names == ("output_throughput", "median_ttft_ms", "median_tpot_ms")
    assert [load.name for load in target.loads] == ["low", "high"]
    assert target.seed == toy.resolve() / "seed"
    assert target.prompt_ids == (10, 999)
    assert len(target.vocabulary() or ()) == 1000
    assert pickle.loads(pickle.dumps(target)) == target


def test_every_defect_at_once(toy: Path) -> None:
    edit(toy / "target.toml", "ready_timeout_s = 10", 'ready_timeout = 10\nready_path = "health"')
    edit(toy / "target.toml", 'ready_path = "/health"\n', "")
    edit(toy / "target.toml", "warmup_requests = 1", "warmup_requests = true")
    edit(toy / "target.toml", "max_gap = 0.5", 'max_gap = "low"')
    (toy / "OBJECTIVE.md").unlink()
    (toy / "objectives.toml").write_text('[[objective]]\nname = "x"\ndirection = "up"\n')
    problems = validate_target(toy)
    text = "\n".join(problems)
    assert "[server] unknown key 'ready_timeout'; did you mean 'ready_timeout_s'?" in text
    assert "[server] 'ready_path'" in text
    assert "[benchmark] 'warmup_requests'" in text
    assert "[audit] 'max_gap'" in text
    assert "OBJECTIVE.md: cannot be read" in text
    assert "'direction' must be 'max' or 'min'" in text
    assert all(str(toy) in problem for problem in problems)
    with pytest.raises(ConfigError) as error:
        load_target(toy)
    assert list(error.value.problems) == problems


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('name = "toy"\n\n[server]', "[sever]\nx = 1\n[server]", "unknown table 'sever'; did you mean 'server'?"),
        ('"--port", "{port}"', '"--port", "{prot}"', "unknown placeholder {prot}; did you mean 'port'?"),
        ('"--port", "{port}"', '"--port", "1"', "must contain {port}"),
        ("prompt_ids = [10, 999]", "prompt_ids = [10, 1000]", "expected low <= high < 1000"),
        ('vocab = "reference/vocab.json"', 'vocab = "reference/words.json"', "words.json"),
        ("rate_per_s = 20", "rate_per_s = -1", "rate_per_s must be a number > 0"),
        ("rate_per_s = 20", "rate = 20", "unknown key 'rate'"),
        ('name = "high"', 'name = "low"', "'low' is declared 2 times"),
        ('name = "high"', 'name = "hi"', "no [[load]] is called 'high'"),
        ("cpus = 1", "cpus = 0", "'cpus'"),
        ("cpus = 1", "cpus = 2\nclient_cpus = 2", "'client_cpus': expected fewer than cpus = 2, got 2"),
        ("repeats = 2", "repeats = 2.5", "'repeats'"),
        ('recipes = ["batching"]', "", "[[baseline]] 1: 'recipes' is required"),
        ("timeout_s = 20", "timeout_s = nan", "'timeout_s'"),
    ],
)
def test_defects_name_their_key(toy: Path, old: str, new: str, said: str) -> None:
    edit(toy / "target.toml", old, new)
    problems = validate_target(toy)
    assert any(said in problem and "toml" in problem for problem in problems), problems


def built_vocabulary(toy: Path) -> None:
    """The toy target, its vocabulary among the artifacts."""
    edit(toy / "target.toml", '"reference/vocab.json"', '"{artifacts}/vocab.json"')


def test_a_vocabulary_that_is_built(toy: Path, tmp_path: Path) -> None:
    built_vocabulary(toy)
    target = load_target(toy)
    assert target.vocabulary() is None
    (tmp_path / "vocab.json").write_text('["a", "b"]')
    assert target.vocabulary(tmp_path) == ("a", "b")
    edit(toy / "target.toml", "prompt_ids = [10, 999]", "")
    assert any("'prompt_ids' or 'vocab' is required" in problem for problem in validate_target(toy))


def test_a_vocabulary_that_nobody_builds(toy: Path, tmp_path: Path) -> None:
    built_vocabulary(toy)
    with pytest.raises(ConfigError, match=r"'vocab': expected a JSON list .* which \[artifacts\] 'command' should"):
        prepare(toy, tmp_path / "cache", ())
    edit(
        toy / "target.toml",
        '[artifacts]\ncommand = ["{python}", "reference/build.py", "--output", "{artifacts}"]\ntimeout_s = 20\n',
        "",
    )
    assert any("needs an [artifacts] command that builds it" in problem for problem in validate_target(toy))


def test_missing_checker(toy: Path) -> None:
    (toy / "accuracy_checker" / "checker.py").unlink()
    (problem,) = validate_target(toy)
    assert "[accuracy] 'command'" in problem
    assert "checker.py does not exist" in problem


def test_unknown_metric(toy: Path) -> None:
    edit(toy / "objectives.toml", "median_ttft_ms", "median_tfft_ms")
    (problem,) = validate_target(toy)
    assert "did you mean 'median_ttft_ms'" in problem


def test_several_loads_need_naming(toy: Path) -> None:
    edit(toy / "objectives.toml", 'loads = ["high"]\n', "")
    (problem,) = validate_target(toy)
    assert "'output_throughput': needs 'loads'" in problem


def test_not_toml(toy: Path) -> None:
    append(toy, "\n= broken")
    assert any("not valid TOML" in problem for problem in validate_target(toy))


def test_no_folder(tmp_path: Path) -> None:
    (problem,) = validate_target(tmp_path / "nothing")
    assert "expected a target folder, found nothing" in problem


def test_the_older_layout_loads_with_defaults(tmp_path: Path) -> None:
    folder = tmp_path / "old"
    for script in ("accuracy_checker/checker.py", "benchmark/benchmark.py", "reference/model.py"):
        (folder / script).parent.mkdir(parents=True)
        (folder / script).write_text("")
    (folder / "OBJECTIVE.md").write_text("Serve it fast.")
    target = load_target(folder)
    assert target.name == "old"
    assert target.loads == ()
    assert not target.measured_by_client
    assert target.benchmark.command is not None
    assert target.benchmark.command[1] == "benchmark/benchmark.py"
    assert target.objectives.names == ("output_throughput", "median_ttft_ms", "median_tpot_ms")
    assert target.audit is None
    assert target.seed is None
    (folder / "benchmark/benchmark.py").unlink()
    assert any("benchmark/benchmark.py" in problem for problem in validate_target(folder))


def test_fingerprint_says_which_part_changed(toy: Path, tmp_path: Path) -> None:
    before = fingerprint(load_target(toy))
    copy = tmp_path / "runs" / "snapshot"
    snapshot(load_target(toy), copy)
    assert fingerprint(load_target(copy)) == before
    edit(toy / "accuracy_checker" / "checker.py", "3 of 3", "4 of 4")
    (toy / "seed" / "__pycache__").mkdir()
    (toy / "seed" / "__pycache__" / "x.pyc").write_bytes(b"")
    (difference,) = fingerprint_difference(before, fingerprint(load_target(toy)))
    assert difference.startswith("checker (accuracy_checker): ")


def test_snapshot_never_overwrites(toy: Path, tmp_path: Path) -> None:
    with pytest.raises(InfrastructureError, match="cannot copy the target"):
        snapshot(load_target(toy), tmp_path)
