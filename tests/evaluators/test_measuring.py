"""Whole evaluations of servers that fake their numbers: each is stopped by the check that is meant for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evaluators.evaluator import EvaluationTask, Lease
from evaluators.inspection.inspector import RULE_IDS
from evaluators.pipeline import LocalEvaluator
from evaluators.probes import IN_CROWD, LEAD
from population.evaluation import Evaluation, Rejected, Scored, Stage
from tests.evaluators import patience

Evaluate = Callable[..., Evaluation]


@pytest.fixture
def evaluate(evaluator: LocalEvaluator, task: EvaluationTask, lease: Lease, toy: Path) -> Evaluate:
    """Diff inspection is switched off: what it would see in these trees is not what is tested."""
    with (toy / "target.toml").open("a") as settings:
        settings.write("\n[inspection.allow]\n" + "".join(f'{rule} = "tested elsewhere"\n' for rule in RULE_IDS))
    return lambda **changes: patience.evaluate(evaluator, replace(task, **changes), lease)


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1, f"{old!r} is {text.count(old)} times in {path}"
    path.write_text(text.replace(old, new))


def refused(evaluation: Evaluation, said: str) -> None:
    assert isinstance(evaluation, Rejected), evaluation
    assert evaluation.stage is Stage.BENCHMARK, evaluation
    assert said in evaluation.reason


def test_probes_and_their_echoes_are_audited(evaluate: Evaluate, tmp_path: Path) -> None:
    assert isinstance(evaluate(), Scored)
    ids = [json.loads(line)["id"] for line in (tmp_path / "output" / "responses.jsonl").read_text().splitlines()]
    echoes = [name for name in ids if "~alone" in name or "~crowd" in name]
    assert sum("~alone" in name for name in echoes) >= LEAD
    assert sum("~crowd" in name for name in echoes) >= IN_CROWD
    assert {name.partition("~")[0] for name in echoes} <= set(ids)
    assert len(ids) == 8 + len(echoes)


def test_a_server_that_remembers_answers(evaluate: Evaluate, toy: Path) -> None:
    engine = toy / "seed" / "engine.py"
    edit(engine, "self._turn = asyncio.Lock()", "self._turn = asyncio.Lock(); self._known = {}")
    edit(
        engine,
        "        async with self._turn:\n",
        "        if (known := self._known.get(tuple(prompt))) is not None:\n"
        "            for token in known[:max_tokens]: yield token\n"
        "            return\n"
        "        async with self._turn:\n",
    )
    edit(
        engine,
        "                yield tokens[-1]",
        "                yield tokens[-1]\n            self._known[tuple(prompt)] = tokens[len(prompt):]",
    )
    edit(toy / "seed" / "engine.toml", "value = 4.0", "value = 8.0")  # a pace that stands out on a busy machine
    refused(evaluate(), "a prompt that was sent before is answered from memory")


def test_a_server_that_ignores_stop(evaluate: Evaluate, toy: Path) -> None:
    edit(toy / "seed" / "server.py", 'request.get("stop") or []', "[]")
    refused(evaluate(), "stop-ignored")


def test_a_server_that_ignores_seeds(evaluate: Evaluate, toy: Path) -> None:
    server = toy / "seed" / "server.py"
    edit(
        server,
        "self._engine.generate(prompt, max_tokens)",
        'self._engine.generate([11 + __import__("random").randrange(900)] if request["temperature"] else prompt, '
        "max_tokens)",
    )
    refused(evaluate(), "'seed' is ignored")


@pytest.mark.parametrize("declared", [4, 3])
def test_more_tokens_per_chunk_than_declared(evaluate: Evaluate, toy: Path, declared: int) -> None:
    edit(toy / "seed" / "server.toml", "value = 1", "value = 4")
    edit(toy / "target.toml", "max_tokens_per_chunk = 8", f"max_tokens_per_chunk = {declared}")
    if declared < 4:
        refused(evaluate(), "too-many-tokens-per-chunk")
    else:
        assert isinstance(evaluate(), Scored)


def test_tokens_that_are_held_back_and_sent_at_once(evaluate: Evaluate, toy: Path) -> None:
    """One by one, as declared, but all in the same instant: no pace of a model."""
    edit(
        toy / "seed" / "engine.py",
        "                yield tokens[-1]",
        "            for token in tokens[len(prompt):]: yield token",
    )
    refused(evaluate(), "faster than the hardware: median_tpot_ms@low")


def test_throughput_above_the_roofline(evaluate: Evaluate, toy: Path) -> None:
    edit(toy / "target.toml", "best = 32000.0", "best = 5.0")
    refused(evaluate(), "faster than the hardware: output_throughput@high")


def test_wrong_answers_to_known_prompts_are_audited(evaluate: Evaluate, toy: Path) -> None:
    """Right under load, wrong when a prompt comes again: the gap of the echo decides."""
    edit(
        toy / "seed" / "server.py",
        "        tokens = self._engine.generate(prompt, max_tokens)",
        "        known = self.__dict__.setdefault('known', set())\n"
        "        again = tuple(prompt) in known and not request['temperature']\n"
        "        known.add(tuple(prompt))\n"
        "        tokens = self._engine.generate([10, *prompt[:-1]] if again else prompt, max_tokens)",
    )
    verdict = evaluate()
    assert isinstance(verdict, Rejected)
    assert verdict.stage is Stage.AUDIT, verdict
    assert "~alone" in verdict.evidence or "~crowd" in verdict.evidence


def log_requests(toy: Path) -> None:
    """Each request is in the server's log, as it came."""
    edit(
        toy / "seed" / "server.py",
        "        prompt, max_tokens =",
        "        print('asked', json.dumps(request), flush=True)\n        prompt, max_tokens =",
    )


def asked(output: Path) -> list[dict[str, Any]]:
    lines = (output / "server.log").read_text().splitlines()
    return [json.loads(line.removeprefix("asked ")) for line in lines if line.startswith("asked ")]


SPY = (
    "import os, pathlib\n"
    "note = pathlib.Path(os.environ['HOME']) / 'note'\n"
    "print(f'note={note.exists()}', flush=True); note.write_text('the checker is over')\n"
)


@pytest.mark.parametrize("restart", [False, pytest.param(True, marks=pytest.mark.tier("A"))])
def test_a_restart_forgets_what_the_checker_taught(
    evaluate: Evaluate, toy: Path, tmp_path: Path, restart: bool
) -> None:
    """The log is the last process's: it knows of the smoke check only if it answered it."""
    server = toy / "seed" / "server.py"
    server.write_text(server.read_text().replace("asyncio.run(main())", SPY + "asyncio.run(main())"))
    log_requests(toy)
    if not restart:
        edit(toy / "target.toml", "stop_grace_s = 1", "stop_grace_s = 1\nrestart_after_checker = false")
    assert isinstance(evaluate(), Scored)
    answered_smoke = any("stream" not in request for request in asked(tmp_path / "output"))
    assert answered_smoke != restart
    assert (tmp_path / "output" / "server.log").read_text().count("note=False") == 1


SMOKE = {
    "usage": ('"completion_tokens": count,', '"completion_tokens": count + 1,'),
    "finish_reason": ('"finish_reason": reason}', '"finish_reason": reason and "stop"}'),
    "token_ids": ('"token_ids": ids,', '"token_ids": ids[1:],'),
}


@pytest.mark.parametrize("field", SMOKE)
def test_smoke_wants_exactly_what_was_asked_for(evaluate: Evaluate, toy: Path, field: str) -> None:
    edit(toy / "seed" / "server.py", *SMOKE[field])
    verdict = evaluate()
    assert isinstance(verdict, Rejected)
    assert verdict.stage is Stage.SMOKE
    assert f"got {field}" in verdict.reason


def test_no_prompt_repeats_but_the_probes(evaluate: Evaluate, toy: Path, tmp_path: Path) -> None:
    """Smoke check, warm-up and loads never ask the same, nor do two evaluations."""
    log_requests(toy)
    edit(toy / "target.toml", "stop_grace_s = 1", "stop_grace_s = 1\nrestart_after_checker = false")  # one log for all
    runs = []
    for seed in (1, 2):
        output = tmp_path / str(seed)
        assert isinstance(evaluate(content_seed=seed, output=output), Scored)
        entries = [json.loads(line) for line in (output / "requests.jsonl").read_text().splitlines()]
        prompts = {
            e["purpose"]: [tuple(x["prompt_ids"]) for x in entries if x["purpose"] == e["purpose"]] for e in entries
        }
        smoke = tuple(asked(output)[0]["prompt"])
        once = [smoke, *prompts["timed"], *prompts["warmup"], *prompts["fresh"], prompts["seed"][0]]
        assert len(once) == len(set(once))
        assert set(prompts["echo"] + prompts["stop"]) <= set(prompts["timed"])
        assert len(prompts["seed"]) == 2
        runs.append(set(once))
    assert not runs[0] & runs[1]
