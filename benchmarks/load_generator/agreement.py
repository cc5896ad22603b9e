"""Whether our client and vLLM's own measure the same: both against one server whose latencies are known.

    python -m benchmarks.load_generator.agreement VLLM [--repeats 5]          # about 4 minutes; VLLM as below

VLLM is a vLLM wheel (`pip download --no-deps vllm==0.24.0`), or a folder that holds its `vllm` package. Its client
needs neither torch nor a GPU: `vllm.benchmarks.serve.benchmark`, the coroutine behind `vllm bench serve`, is run as it
is, with its arrivals, request functions and metrics; only what it imports for datasets and tokenizers is left out,
because the prompts are token ids and the server reports usage. It also needs `regex` and `tqdm`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import json
import math
import statistics
import subprocess
import sys
import tempfile
import types
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.chaos.kills import replace_section
from evaluators.load import bench
from evaluators.load.endpoint import Endpoint
from evaluators.load.workload import Load

HERE = Path(__file__).parent
METRICS = (
    "output_throughput",
    "request_throughput",
    *(
        f"{statistic}_{latency}_ms"
        for latency in ("ttft", "tpot", "itl", "e2el")
        for statistic in ("mean", "median", "p99")
    ),
)
LIMIT = 0.02
MARK = "<!-- agreement -->"
UNGATED = ("p99_itl_ms",)
"""One gap in a hundred is the machine's scheduling, not the server's schedule: see how far vLLM is from itself."""


@dataclass(frozen=True)
class Case:
    """One load, and the server's known times in milliseconds."""

    name: str
    pace_ms: float
    base_ms: float
    per_token_ms: float
    requests: int
    tokens: int
    prompts: tuple[int, int] = (16, 64)
    rate_per_s: float | None = None
    burstiness: float = 1.0
    concurrency: int | None = None
    gated: bool = True
    """False: shown, because here the clients' own CPU time shows, which is theirs to differ in."""


CASES = (
    Case("metronome", 10, 60, 1, requests=100, tokens=64, rate_per_s=20, burstiness=math.inf),
    Case("Poisson", 10, 60, 1, requests=100, tokens=64, rate_per_s=20),
    Case("closed loop", 20, 200, 2, requests=96, tokens=32, concurrency=16),
    Case("64 at once", 20, 200, 2, requests=64, tokens=32, rate_per_s=math.inf, gated=False),
    Case("slow first token", 25, 500, 4, requests=60, tokens=24, rate_per_s=15),
)


@contextmanager
def server(case: Case) -> Iterator[str]:
    """A server with this case's times."""
    times = [str(case.pace_ms), str(case.base_ms), str(case.per_token_ms)]
    command = [sys.executable, str(HERE / "fast_server.py"), *times]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None and child.stdout is not None
        try:
            yield f"http://127.0.0.1:{child.stdout.readline().strip()}"
        finally:
            child.stdin.close()


def ours(case: Case, url: str, repeat: int) -> tuple[dict[str, float], list[list[int]]]:
    """What `vibeserve bench` measures, and the prompts in the order in which they were sent; lengths never change."""
    load = Load(
        name="bench",
        kind="closed" if case.concurrency else "open",
        rate_per_s=case.rate_per_s,
        burstiness=case.burstiness,
        concurrency=case.concurrency,
        num_requests=case.requests,
        input_tokens=case.prompts,
        output_tokens=(case.tokens, case.tokens),
    )
    endpoint = Endpoint(url=url, model="fast", strict=False)
    (result,) = bench(endpoint, [load], trace_seed=0, content_seed=repeat, warmup_requests=2)
    assert result.metrics["completed"] == case.requests
    return {name: result.metrics[name] for name in METRICS}, [r.prompt_ids for r in result.responses]


def theirs(case: Case, url: str, prompts: list[list[int]], serve: Any) -> dict[str, float]:
    """What `vllm bench serve` measures."""
    import numpy as np

    np.random.seed(0)
    requests = [
        serve.SampleRequest(prompt=ids, prompt_len=len(ids), expected_output_len=case.tokens) for ids in prompts
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        result = asyncio.run(
            serve.benchmark(
                task_type=serve.TaskType.GENERATION, endpoint_type="openai", api_url=f"{url}/v1/completions",
                base_url=url, model_id="fast", model_name="fast", tokenizer=object(), input_requests=requests,
                logprobs=None, request_rate=math.inf if case.rate_per_s is None else case.rate_per_s,
                burstiness=case.burstiness, disable_tqdm=True, num_warmups=2, profile=False,
                selected_percentile_metrics=["ttft", "tpot", "itl", "e2el"], selected_percentiles=[99.0],
                ignore_eos=True, goodput_config_dict={}, max_concurrency=case.concurrency, lora_modules=None,
                extra_headers=None, extra_body=None, ready_check_timeout_sec=10,
            )
        )  # fmt: skip
    assert result["completed"] == case.requests, result["errors"]
    return {name: float(result[name]) for name in METRICS}


def vllm_client(source: Path, scratch: Path) -> Any:
    """vLLM's `benchmarks/serve.py` as a module, with stand-ins for what it imports beside its own client."""
    folder = source
    if source.suffix == ".whl":
        with zipfile.ZipFile(source) as wheel:
            names = [name for name in wheel.namelist() if name.startswith("vllm/benchmarks/") and name.endswith(".py")]
            wheel.extractall(scratch, names)
        folder = scratch

    @dataclass
    class SampleRequest:
        prompt: Any
        prompt_len: int
        expected_output_len: int | None
        multi_modal_data: Any = None
        lora_request: Any = None
        request_id: str | None = None
        timestamp: float | None = None
        chat_messages: Any = None
        request_overrides: Any = None

    def module(name: str, **content: Any) -> None:
        made = types.ModuleType(name)
        made.__dict__.update(content)
        sys.modules[name] = made

    module("vllm", __path__=[str(folder / "vllm")])
    module("vllm.benchmarks.datasets", SampleRequest=SampleRequest, add_dataset_parser=None, get_samples=None)
    module("vllm.tokenizers", TokenizerLike=object, get_tokenizer=None)
    module("vllm.utils", __path__=[])
    module("vllm.utils.gc_utils", freeze_gc_heap=lambda: None)
    module("vllm.utils.network_utils", join_host_port=lambda host, port: f"{host}:{port}")
    import logging

    module("vllm.logger", init_logger=logging.getLogger)
    from vllm.benchmarks import serve  # type: ignore[import-not-found]

    return serve


def known(case: Case, prompts: list[list[int]]) -> dict[str, float]:
    """What the server's schedule says, apart from the network and the event loops."""
    first_ms = [case.base_ms + case.per_token_ms * len(ids) for ids in prompts]
    rest_ms = case.pace_ms * (case.tokens - 1)
    return {
        "mean_ttft_ms": statistics.fmean(first_ms), "median_ttft_ms": statistics.median(first_ms),
        "mean_tpot_ms": case.pace_ms, "median_tpot_ms": case.pace_ms, "mean_itl_ms": case.pace_ms,
        "median_itl_ms": case.pace_ms, "mean_e2el_ms": statistics.fmean(first_ms) + rest_ms,
        "median_e2el_ms": statistics.median(first_ms) + rest_ms,
    }  # fmt: skip


def compare(case: Case, serve: Any, repeats: int) -> dict[str, Any]:
    """Both clients in turn; medians over the repeats."""
    rounds: dict[str, list[dict[str, float]]] = {"vibeserve": [], "vllm": []}
    with server(case) as url:
        _, prompts = ours(case, url, repeats)
        for repeat in range(repeats):
            order = ("vibeserve", "vllm") if repeat % 2 == 0 else ("vllm", "vibeserve")
            for who in order:
                seen = ours(case, url, repeat)[0] if who == "vibeserve" else theirs(case, url, prompts, serve)
                rounds[who].append(seen)
    middle = {who: {m: statistics.median(r[m] for r in seen) for m in METRICS} for who, seen in rounds.items()}
    spread = {m: (max(v) - min(v)) / 2 / statistics.median(v) for m in METRICS if (v := [r[m] for r in rounds["vllm"]])}
    off = {m: middle["vibeserve"][m] / middle["vllm"][m] - 1 for m in METRICS}
    return {
        "case": case.name,
        "gated": case.gated,
        "known": known(case, prompts),
        **middle,
        "difference": off,
        "vllm_spread": spread,
    }


def table(found: list[dict[str, Any]]) -> str:
    """Markdown."""
    most, metric, case = worst(found)
    lines = [f"**Largest difference: {most:.2%}** ({metric}, {case}), over {len(METRICS) - len(UNGATED)} metrics of "
             f"{sum(one['gated'] for one in found)} loads."]  # fmt: skip
    for one in found:
        lines += [
            f"\n{one['case']}:\n",
            "| metric | known | vLLM | VibeServe | difference | vLLM ± |",
            "|---|---|---|---|---|---|",
        ]
        for m in METRICS:
            expected = f"{one['known'][m]:.4g}" if m in one["known"] else ""
            off, spread = f"{one['difference'][m]:+.2%}", f"{one['vllm_spread'][m]:.2%}"
            lines.append(f"| {m} | {expected} | {one['vllm'][m]:.5g} | {one['vibeserve'][m]:.5g} | {off} | {spread} |")
    return "\n".join(lines)


def worst(found: list[dict[str, Any]]) -> tuple[float, str, str]:
    """The largest relative difference that is held to the limit, with its metric and case."""
    return max(
        (abs(off), metric, one["case"])
        for one in found
        for metric, off in one["difference"].items()
        if one["gated"] and metric not in UNGATED
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vllm", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--case", action="append", help="only these")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        serve = vllm_client(options.vllm, Path(scratch))
        wanted = [case for case in CASES if not options.case or case.name in options.case]
        found = [compare(case, serve, options.repeats) for case in wanted]
    print(table(found))
    if not options.case:
        (HERE / "agreement.json").write_text(json.dumps(found, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        replace_section(HERE / "agreement.md", MARK, table(found))
    sys.exit(0 if worst(found)[0] <= LIMIT else 1)


if __name__ == "__main__":
    main()
