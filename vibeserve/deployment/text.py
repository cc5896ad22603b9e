"""Decides how a deployed server is described and measured again: its README's words and its scripts' lines."""

from __future__ import annotations

import math

from evaluators.load.workload import Load
from evaluators.target import Target
from vibeserve.deployment.evidence import Case, claims
from vibeserve.deployment.pinning import Pins
from vibeserve.export import shell_command
from vibeserve.front_rows import SEED
from vibeserve.wording import arrivals_text, gain, isolation_text, number, span_text


def bench_lines(target: Target) -> dict[str, str]:
    """How the loads are run by our client, and by vLLM's."""
    if target.benchmark.command is not None:
        own = shell_command(target.benchmark.command, url="URL", output="OUT/benchmark.json")
        head = 'ARTIFACTS="${ARTIFACTS:-$HERE/artifacts}"\ncd "$HERE"'
        return {"OURS": f"{head}\n{own}", "THEIRS": '  echo "the loads are those of the target\'s own benchmark"'}
    ours = (
        "if command -v vibeserve >/dev/null; then\n"
        '  vibeserve bench "$URL" --workload "$HERE/target.toml" --repeats "${REPEATS:-5}" --seed "$SEED" \\\n'
        '    --output "$OUT/vibeserve.json"\n'
        '  "$PYTHON" "$HERE/then_and_now.py" "$OUT/vibeserve.json"\n'
        'else\n  echo "skipped the client of the search: it needs \\`vibeserve\\`" >&2\nfi'
    )
    return {"OURS": ours, "THEIRS": "\n".join(_vllm_line(load) for load in target.loads)}


def _vllm_line(load: Load) -> str:
    """The load in the words of `vllm bench serve`; a window becomes as many requests as fall into it."""
    if load.kind == "max-rate" or load.turns > 1:
        what = "searches the highest rate" if load.kind == "max-rate" else "is a conversation"
        return f'  echo "load {load.name} {what}: \\`vllm bench serve\\` has no such load" >&2'
    inputs, in_spread = _middle(load.input_tokens)
    outputs, out_spread = _middle(load.output_tokens)
    arrivals = f"--max-concurrency {load.concurrency}" if load.concurrency else f"--request-rate {_rate(load)}"
    if load.burstiness != 1 and load.concurrency is None:
        arrivals += f" --burstiness {load.burstiness:g}"
    ratio = f'\'{{"input": {in_spread:g}, "output": {out_spread:g}}}\''
    return (
        f'  vllm bench serve --base-url "$URL" --model "$MODEL" --tokenizer "$TOKENIZER" --dataset-name random \\\n'
        f"    --random-input-len {inputs} --random-output-len {outputs} --random-range-ratio {ratio} \\\n"
        f"    --random-prefix-len {load.shared_prefix_tokens} {arrivals} --num-prompts {_requests(load)} \\\n"
        "    --ignore-eos --temperature 0 --percentile-metrics ttft,tpot,itl,e2el --metric-percentiles 50,90,99 \\\n"
        f'    --seed "$SEED" --save-result --result-dir "$OUT" --result-filename vllm-{load.name}.json'
    )


def _middle(bounds: tuple[int, int]) -> tuple[int, float]:
    middle = round(sum(bounds) / 2)
    return middle, round((bounds[1] - middle) / middle, 4)


def _rate(load: Load) -> str:
    return "inf" if load.rate_per_s is None or math.isinf(load.rate_per_s) else f"{load.rate_per_s:g}"


def _requests(load: Load) -> int:
    if load.num_requests is not None:
        return load.num_requests
    if load.rate_per_s is not None and load.window_s is not None and math.isfinite(load.rate_per_s):
        return max(32, math.ceil(load.rate_per_s * load.window_s))
    return 32 * (load.concurrency or 1)


def readme_words(case: Case, target: Target, pinned: Pins) -> dict[str, str]:
    """What the README says of this candidate."""
    head, rule, rows = _measured(case)
    held_out = any(subject == case.found.id for subject, _ in case.state.finals)
    note = "The first column is what the search selected by; what was selected among many is partly luck."
    note += " The held-out column was measured afresh at the end." if held_out else ""
    return {
        "MEASURED_NOTE": note, "MEASURED_HEAD": head, "MEASURED_RULE": rule, "MEASURED_ROWS": rows,
        "CLAIMS": _claims(case), "VALIDITY_ROWS": _validity(case, target, pinned), "LOAD_ROWS": _loads(target),
        "SAFETY": _safety(case),
    }  # fmt: skip


def _measured(case: Case) -> tuple[str, str, str]:
    from vibeserve.lifecycle import RunState
    from vibeserve.summary import summary_of

    finals = summary_of(case.run_dir, case.state, RunState.FINISHED).held_out
    held_out = {m.name: m for m in finals[case.found.id].metrics} if case.found.id in finals else {}
    rows = []
    for m in case.found.metrics:
        fresh = held_out.get(m.name)
        cells = [_cell(m.value, m.low, m.high, m.n, m.unit), gain(m.gain)]
        cells += [_cell(fresh.value, fresh.low, fresh.high, fresh.n, fresh.unit), gain(fresh.gain)] if fresh else []
        rows.append(f"| {m.name} | {' | '.join(cells)} |")
    head = "in the search | gain over the seed" + (" | held-out | gain there" if held_out else "")
    return head, "---|---" + ("|---|---" if held_out else ""), "\n".join(rows)


def _cell(value: float, low: float, high: float, n: int, unit: str | None) -> str:
    return f"{number(value)}{f' {unit}' if unit else ''} ({number(low)} – {number(high)}, n={n})"


def _claims(case: Case) -> str:
    lines = []
    for content in claims(case).values():
        if content.get("claim"):
            gains = "; ".join(f"{n}: {g['verdict']}" + (f", {gain(g['claimed'])}" if g.get("claimed") else "")
                              for n, g in content["gains"].items())  # fmt: skip
            other = "the seed" if content["against"] in ("seed", SEED) else content["against"]
            lines.append(f"Verified against {other} in {content['pairs']} pairs: {gains}.")
    if lines:
        return "\n".join(lines)
    if case.found.id == SEED:
        return "This is the seed itself."
    command = f"vibeserve verify {case.found.id} --against seed --pairs 10"
    return f"No gain over the seed is claimed: that takes a fresh paired measurement, `{command}`."


def _validity(case: Case, target: Target, pinned: Pins) -> str:
    fingerprint = case.state.started.fingerprint if case.state.started else {}
    resources = target.resources
    wanted = f"{resources.cpus} CPUs" + (f", {resources.num_gpus} GPUs" if resources.num_gpus else "")
    wanted += f" ({resources.accelerator_type})" if resources.accelerator_type else ""
    hardware = "; ".join(case.hardware) or f"{wanted}; the run did not record the models"
    longest = max((load.longest_request_tokens for load in target.loads), default=None)
    rows = [
        ("model", f"`{target.model.name}`, reference {fingerprint.get('reference', 'unknown')[:12]}",
         "other weights, vocabulary or precision: run check.sh, then search again"),
        ("hardware", hardware, "another CPU, GPU or number of them: run bench.sh; another candidate may be best"),
        ("workload", "the loads below", "other lengths, rates or sharing of prefixes: run bench.sh with yours"),
        ("longest request", f"{longest:,} tokens" if longest else "set by the target's own benchmark",
         "longer prompts or answers were never served"),
        ("packages", f"Python {pinned.python}, requirements.txt", "an upgrade: run check.sh and bench.sh"),
        ("sampling", "greedy, `ignore_eos`", "other sampling works if the server implements it; nobody judged it"),
    ]  # fmt: skip
    if target.audit is not None:
        gates = {"max gap": target.audit.max_gap, "mean gap": target.audit.mean_gap, "flips": target.audit.flip_rate}
        text = ", ".join(f"{name} ≤ {limit:g}" for name, limit in gates.items() if limit is not None)
        rows.append(
            ("accuracy", f"audit: {text}", "stricter needs: change `[audit]` and run `vibeserve judge . server`")
        )
    return "\n".join(f"| {what} | {now} | {then} |" for what, now, then in rows)


def _loads(target: Target) -> str:
    rows = [
        f"| {load.name} | {arrivals_text(load)} | {span_text(load.input_tokens)} | {span_text(load.output_tokens)} | "
        f"{load.shared_prefix_tokens or '–'} | {load.turns} |"
        for load in target.loads
    ]
    return "\n".join(rows) or "| benchmark.py | the target's own | – | – | – | – |"


def _safety(case: Case) -> str:
    tier = f"It was judged under isolation {isolation_text(case.found.tier or 'C', case.found.gaps)}."
    return f"The server's code was written by a search ({case.found.proposal.operator}). {tier}"
