"""The whole evaluation on the toy target: good, wrong, dying and lying candidates, and broken graders."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from evaluators.evaluator import EvaluationTask, Lease
from evaluators.isolation import choose
from evaluators.pipeline import LocalEvaluator
from evaluators.target import load_target
from population.errors import InfrastructureError
from population.evaluation import Evaluation, Rejected, Scored, Stage
from population.objectives import objective_samples
from tests.contracts.evaluator import EvaluatorContract
from tests.evaluators import patience

Evaluate = Callable[..., Evaluation]


class TestContract(EvaluatorContract):
    @pytest.fixture
    def subject(self, evaluator: LocalEvaluator) -> LocalEvaluator:
        return evaluator


@pytest.fixture
def evaluate(evaluator: LocalEvaluator, task: EvaluationTask, lease: Lease) -> Evaluate:
    return lambda **changes: patience.evaluate(evaluator, replace(task, **changes), lease)


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) >= 1, f"{old!r} not in {path}"
    path.write_text(text.replace(old, new))


def rejected(evaluation: Evaluation, stage: Stage) -> Rejected:
    assert isinstance(evaluation, Rejected), evaluation
    assert evaluation.stage is stage, evaluation
    return evaluation


def test_seed_is_scored_on_every_objective_and_keeps_its_papers(evaluate: Evaluate, toy: Path, tmp_path: Path) -> None:
    evaluation = evaluate()
    assert isinstance(evaluation, Scored)
    for objective in load_target(toy).objectives:
        assert objective_samples(objective, evaluation.samples)[0] > 0
    sandbox = choose(allow_reduced=False, first_party=True)
    assert (evaluation.tier, evaluation.gaps) == (sandbox.tier, sandbox.gaps)
    assert evaluation.measured_by == "client"
    assert evaluation.audit["max_gap"] == 0
    assert evaluation.audit["tokens"] > 0
    assert "cpu_ms_per_token" in evaluation.samples
    kept = {path.name for path in (tmp_path / "output").iterdir()}
    assert {"server.log", "accuracy.log", "accuracy.json", "benchmark.json", "requests.jsonl", "audit.json"} <= kept
    assert len(json.loads((tmp_path / "output" / "benchmark.json").read_text())["repeats"]) == 1


def test_wrong_tokens_pass_the_checker_and_fail_the_audit(evaluate: Evaluate, toy: Path) -> None:
    edit(
        toy / "seed" / "model.py",
        '        state = f"',
        '        if len(tokens) > 12: return 10 + len(tokens)\n        state = f"',
    )
    verdict = rejected(evaluate(), Stage.AUDIT)
    assert "max_gap 3 > 0.5" in verdict.reason
    assert "at output token" in verdict.evidence


def test_one_wrong_token_under_concurrency_fails_the_audit(evaluate: Evaluate, toy: Path) -> None:
    """Correct alone, wrong in one token per answer when the server is busy: a serial check never sees it."""
    edit(toy / "seed" / "engine.py", "self._turn = asyncio.Lock()", "self._turn = asyncio.Lock(); self.waiting = 0")
    edit(
        toy / "seed" / "engine.py",
        "        async with self._turn:",
        "        self.waiting += 1\n        async with self._turn:",
    )
    edit(
        toy / "seed" / "engine.py",
        "                yield tokens[-1]",
        "                if self.waiting > 2 and len(tokens) == len(prompt) + 3: tokens[-1] = 10\n"
        "                yield tokens[-1]\n"
        "            self.waiting -= 1",
    )
    rejected(evaluate(), Stage.AUDIT)


def test_wrong_from_the_start_fails_the_checker(evaluate: Evaluate, toy: Path) -> None:
    edit(toy / "seed" / "model.py", "return 10 + zlib", "return 11 + zlib")
    verdict = rejected(evaluate(), Stage.CHECKER)
    assert "exit code 1" in verdict.reason
    assert "expected [" in verdict.evidence


def test_smoke(evaluate: Evaluate, toy: Path) -> None:
    edit(toy / "seed" / "server.py", '"/v1/completions"', '"/v2/completions"')
    assert "got status 404" in rejected(evaluate(), Stage.SMOKE).reason


def test_death_under_load_keeps_the_last_words(evaluate: Evaluate, toy: Path) -> None:
    edit(
        toy / "seed" / "engine.py",
        "        async with self._turn:",
        "        self.served = getattr(self, 'served', 0) + 1\n"
        "        if self.served > 8: print('out of blocks', flush=True); import os; os._exit(9)\n"
        "        async with self._turn:",
    )
    verdict = rejected(evaluate(), Stage.BENCHMARK)
    assert "died under load (exit code 9) during load" in verdict.reason
    assert "out of blocks" in verdict.evidence


def test_a_server_without_tokens_is_rejected(evaluate: Evaluate, toy: Path) -> None:
    edit(
        toy / "seed" / "server.py",
        "            async for ids, text, reason in self._pieces(tokens, request):",
        "            await asyncio.sleep(60)\n"
        "            async for ids, text, reason in self._pieces(tokens, request):",
    )
    verdict = rejected(evaluate(), Stage.BENCHMARK)
    assert "no verified token came for 1 warm-up requests" in verdict.reason


def test_lying_usage_is_rejected(evaluate: Evaluate, toy: Path) -> None:
    edit(toy / "seed" / "server.py", "self._usage(prompt, sent)", "self._usage(prompt, 10 * sent)")
    assert "usage-mismatch" in rejected(evaluate(), Stage.BENCHMARK).reason


def test_checker_that_hangs_is_stopped(evaluate: Evaluate, toy: Path) -> None:
    edit(
        toy / "target.toml",
        '"--output-json", "{output}"]\ntimeout_s = 10',
        '"--output-json", "{output}"]\ntimeout_s = 0.5',
    )
    (toy / "accuracy_checker" / "checker.py").write_text(
        "import time; print('asking ...', flush=True); time.sleep(60)\n"
    )
    verdict = rejected(evaluate(), Stage.CHECKER)
    assert "did not end within 0.5 s" in verdict.reason
    assert "asking" in verdict.evidence


def test_checker_that_crashes_fails_with_its_traceback(evaluate: Evaluate, toy: Path) -> None:
    (toy / "accuracy_checker" / "checker.py").write_text("raise RuntimeError('boom')\n")
    assert "RuntimeError: boom" in rejected(evaluate(), Stage.CHECKER).evidence


def test_checker_output_is_bounded(evaluate: Evaluate, toy: Path) -> None:
    (toy / "accuracy_checker" / "checker.py").write_text("import sys; print('x' * 10_000_000); sys.exit(1)\n")
    assert len(rejected(evaluate(), Stage.CHECKER).evidence) <= 4000


@pytest.mark.parametrize("report", ["raise SystemExit(3)", "open(a.output, 'w').write('{\"tokens\": NaN}')", "pass"])
def test_a_broken_score_command_is_not_the_candidates_fault(evaluate: Evaluate, toy: Path, report: str) -> None:
    (toy / "reference" / "score.py").write_text(
        "import argparse\np = argparse.ArgumentParser()\n"
        "for n in ('artifacts', 'responses', 'output'): p.add_argument('--' + n)\n"
        f"a = p.parse_args()\n{report}\n"
    )
    with pytest.raises(InfrastructureError, match=r"\[audit\] command"):
        evaluate()


def test_failed_artifacts_are_not_the_candidates_fault(evaluate: Evaluate, toy: Path) -> None:
    (toy / "reference" / "build.py").write_text("raise SystemExit('no disk')\n")
    with pytest.raises(InfrastructureError, match="no disk"):
        evaluate()


def own_benchmark(toy: Path, expression: str) -> None:
    """Replace the loads by a benchmark command that writes `expression`."""
    settings = (toy / "target.toml").read_text()
    head = settings.partition("[[load]]")[0].replace(
        "[benchmark]\n",
        '[benchmark]\ncommand = ["{python}", "benchmark/benchmark.py", "--url", "{url}", '
        '"--output-json", "{output}"]\n',
    )
    (toy / "target.toml").write_text(head)
    (toy / "objectives.toml").write_text('[[objective]]\nname = "output_throughput"\ndirection = "max"\n')
    (toy / "benchmark").mkdir()
    (toy / "benchmark" / "benchmark.py").write_text(
        "import argparse\np = argparse.ArgumentParser()\np.add_argument('--url')\np.add_argument('--output-json')\n"
        f"open(p.parse_args().output_json, 'w').write({expression!r})\n"
    )


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("NaN", "NaN is not a number"),
        ("Infinity", "Infinity is not a number"),
        ("1e999", "finite number >= 0"),
        ("true", "must be a number, got True"),
        ("-3", "finite number >= 0, got -3"),
        ('"5"', "must be a number, got '5'"),
        ("1" * 400, "too large"),
    ],
)
def test_what_a_benchmark_may_not_emit(evaluate: Evaluate, toy: Path, value: str, said: str) -> None:
    own_benchmark(toy, f'{{"output_throughput": {value}}}')
    assert said in rejected(evaluate(), Stage.BENCHMARK).reason


def test_a_missing_objective_is_named(evaluate: Evaluate, toy: Path) -> None:
    own_benchmark(toy, '{"throughput": 3}')
    assert "'output_throughput' is missing; got throughput" in rejected(evaluate(), Stage.BENCHMARK).reason


def test_the_targets_own_benchmark_is_stamped_and_audited(evaluate: Evaluate, toy: Path, tmp_path: Path) -> None:
    own_benchmark(toy, '{"output_throughput": 12.5, "median_ttft_ms": 3, "model": "toy"}')
    evaluation = evaluate()
    assert isinstance(evaluation, Scored)
    assert evaluation.measured_by == "target"
    assert evaluation.samples["output_throughput"] == (12.5,)
    assert "model" not in evaluation.samples
    assert evaluation.audit["tokens"] > 0
    ids = [json.loads(line)["id"] for line in (tmp_path / "output" / "responses.jsonl").read_text().splitlines()]
    assert any("~alone" in name for name in ids)


def test_profile_never_fails_an_evaluation(evaluate: Evaluate) -> None:
    evaluation = evaluate(profile=True, judged=False)
    assert isinstance(evaluation, Scored)
    assert evaluation.hints
    assert Stage.PROFILE.value in evaluation.stage_s


def test_a_busy_function_is_seen_by_py_spy(evaluate: Evaluate, toy: Path, tmp_path: Path) -> None:
    model = toy / "seed" / "model.py"
    edit(model, "        state = f", "        self.spin()\n        state = f")
    edit(model, "    def text(", "    def spin(self):\n        return sum(map(abs, range(60_000)))\n\n    def text(")
    evaluation = evaluate(profile=True, judged=False)
    assert isinstance(evaluation, Scored)
    rows = [row for row in evaluation.profile if row.of == "busy samples"]
    assert any("model.py" in row.name for row in rows), evaluation.hints
    assert {row.source for row in evaluation.profile} == {"py-spy"}  # nothing was started again: it imports no torch
    assert "median_tpot_ms" in str(evaluation.hints["headroom"])
    flame = json.loads((tmp_path / "output" / "flame.speedscope.json").read_text())
    assert any("model.py" in frame["name"] for frame in flame["shared"]["frames"])
    assert "model.py" in (tmp_path / "output" / "stacks.txt").read_text()


def test_headroom_needs_no_profile(evaluate: Evaluate) -> None:
    evaluation = evaluate(judged=False)
    assert isinstance(evaluation, Scored)
    assert list(evaluation.hints) == ["headroom"] and evaluation.profile == ()


def test_no_process_is_left(evaluate: Evaluate, toy: Path) -> None:
    evaluate()
    listing = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(toy) not in listing
    assert str(artifacts_marker(toy)) not in listing


def artifacts_marker(toy: Path) -> Path:
    """A path that is on the command line of everything an evaluation starts."""
    return toy.parent / "output"
