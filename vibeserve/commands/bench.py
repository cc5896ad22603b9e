"""Decides how `vibeserve bench` describes a load on the command line, in the words of `vllm bench serve`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vibeserve.commands.options import JsonOption

if TYPE_CHECKING:
    from evaluators.load.result import LoadResult
    from evaluators.load.workload import Load


def bench(
    url: Annotated[str, typer.Argument(metavar="URL", help="e.g. http://127.0.0.1:8000")],
    rate: Annotated[
        float | None, typer.Option("--rate", "--request-rate", help="Requests per second, open loop.")
    ] = None,
    burstiness: Annotated[float, typer.Option(help="Shape of the gamma arrivals; 1 is Poisson.")] = 1.0,
    concurrency: Annotated[
        int | None, typer.Option("--concurrency", "--max-concurrency", help="Requests in flight, closed loop.")
    ] = None,
    slo: Annotated[
        str | None, typer.Option(help="Find the highest rate that keeps it, e.g. ttft_ms=200,tpot_ms=50.")
    ] = None,
    input_len: Annotated[str, typer.Option("--input-len", "--random-input-len", help="Tokens, or LOW-HIGH.")] = "32",
    output_len: Annotated[str, typer.Option("--output-len", "--random-output-len", help="Tokens, or LOW-HIGH.")] = "64",
    prefix_len: Annotated[int, typer.Option("--prefix-len", "--random-prefix-len", help="Shared prefix.")] = 0,
    turns: Annotated[int, typer.Option(help="Turns of a conversation.")] = 1,
    num_prompts: Annotated[int | None, typer.Option("--num-prompts", help="Requests to send (default 100).")] = None,
    duration: Annotated[
        float | None, typer.Option("--duration", help="Seconds of a fixed window, in place of --num-prompts.")
    ] = None,
    warmup: Annotated[int, typer.Option("--warmup", "--num-warmups", help="Requests before the clock starts.")] = 2,
    seed: Annotated[int, typer.Option("--seed", help="Fixes arrivals, lengths and prompts.")] = 0,
    model: Annotated[str | None, typer.Option("--model", help="Default: the first one the server lists.")] = None,
    prompt_ids: Annotated[str, typer.Option("--prompt-ids", help="Token ids of prompts, LOW-HIGH.")] = "100-8000",
    processes: Annotated[int | None, typer.Option(help="Client processes (default: by rate).")] = None,
    output: Annotated[Path | None, typer.Option("--output", "--result-filename", help="JSON file to write.")] = None,
    log: Annotated[Path | None, typer.Option("--log", help="File with one JSON line per request.")] = None,
    json: JsonOption = False,
) -> None:
    """Measure any OpenAI-compatible server; needs no target and no run.

    Examples: vibeserve bench http://127.0.0.1:8000 --rate 4 --num-prompts 40;
    vibeserve bench http://127.0.0.1:8000 --concurrency 16 --duration 10 --json
    """
    from evaluators.load.endpoint import Endpoint
    from evaluators.load.plan import Seeds
    from evaluators.load.result import result_json
    from evaluators.load.session import ClientOptions, run_loads
    from evaluators.load.workload import Load, length_range
    from population.errors import ConfigError
    from vibeserve.commands.output import console, print_json

    problems: list[str] = []
    lengths = {
        "input": _range("--input-len", input_len, problems),
        "output": _range("--output-len", output_len, problems),
    }
    low, high = _range("--prompt-ids", prompt_ids, problems)
    table: dict[str, Any] = _arrivals(rate, concurrency, slo, problems) | _extent(num_prompts, duration, slo)
    if problems:
        raise ConfigError(problems)
    load = Load.from_table(
        {
            "name": "bench",
            "burstiness": burstiness,
            "input_tokens": length_range(list(lengths["input"])),
            "output_tokens": length_range(list(lengths["output"])),
            "shared_prefix_tokens": prefix_len,
            "turns": turns,
            **table,
        }
    )
    if load.problems():
        raise ConfigError(load.problems())
    served = model or _first_model(url)
    endpoint = Endpoint(url=url, model=served, prompt_ids=(low, high), strict=False)
    options = ClientOptions(processes=processes, log=log)
    result = run_loads(endpoint, [load], Seeds(trace=seed, content=seed), warmup_requests=warmup, options=options)[0]
    values = {"backend": "vibeserve", "url": url, "model_id": served, "seed": seed, **result_json(result)}
    if output is not None:
        _write(output, values)
    screen = console(json)
    screen.print(_table(result, load))
    for warning in result.warnings:
        screen.print(f"warning: {warning}", soft_wrap=True)
    for group in result.errors:
        screen.print(
            f"{group.count} failed, {group.kind}: {group.evidence[0] if group.evidence else ''}", soft_wrap=True
        )
    if json:
        print_json(values)
    if not result.metrics.get("completed") and not result.metrics.get("censored"):
        raise typer.Exit(1)


def _arrivals(rate: float | None, concurrency: int | None, slo: str | None, problems: list[str]) -> dict[str, Any]:
    if slo is not None:
        limits: dict[str, float] = {}
        for part in slo.split(","):
            name, _, value = part.partition("=")
            try:
                limits[name.strip()] = float(value)
            except ValueError:
                problems.append(f"--slo {slo}: expected name=number pairs such as ttft_ms=200,tpot_ms=50")
        known = {"ttft_ms", "tpot_ms", "e2el_ms", "attainment"}
        problems += [
            f"--slo: unknown limit '{n}'; expected {', '.join(sorted(known))}" for n in limits if n not in known
        ]
        return {"kind": "max-rate", "slo": {k: v for k, v in limits.items() if k in known}, "rate_per_s": rate}
    if concurrency is not None and rate is not None:
        problems.append("--rate (open loop) and --concurrency (closed loop) exclude each other; give one")
    if concurrency is not None:
        return {"kind": "closed", "concurrency": concurrency}
    return {"kind": "open", "rate_per_s": float("inf") if rate is None else rate}


def _extent(num_prompts: int | None, duration: float | None, slo: str | None) -> dict[str, Any]:
    if duration is not None:
        return {"window_s": duration} | ({"num_requests": num_prompts} if num_prompts is not None else {})
    if slo is not None:
        return {"window_s": 10.0}
    return {"num_requests": num_prompts or 100}


def _range(option: str, text: str, problems: list[str]) -> tuple[int, int]:
    low, dash, high = text.partition("-")
    try:
        return (int(low), int(high if dash else low))
    except ValueError:
        problems.append(f"{option} {text}: expected a number such as 64, or a range such as 48-80")
        return (1, 1)


def _first_model(url: str) -> str:
    """The first model that the server lists; `default` where it lists none."""
    import json
    import urllib.error
    import urllib.request

    from population.errors import InfrastructureError, UsageError

    if not url.startswith(("http://", "https://")):
        raise UsageError(f"expected a URL such as http://127.0.0.1:8000, got '{url}'")
    base = url.rstrip("/")
    address = f"{base}/models" if base.endswith("/v1") else f"{base}/v1/models"
    try:
        with urllib.request.urlopen(address, timeout=10) as answer:
            return str(json.load(answer)["data"][0]["id"])
    except urllib.error.HTTPError:
        return "default"
    except (OSError, ValueError) as error:
        if isinstance(error, OSError):
            raise InfrastructureError(f"{address}: expected a server that answers, got: {error}") from error
        return "default"
    except (LookupError, TypeError):
        return "default"


def _write(path: Path, values: dict[str, Any]) -> None:
    import json

    from population.errors import InfrastructureError

    try:
        path.write_text(json.dumps(values, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise InfrastructureError(f"{path}: cannot be written: {error.strerror}") from error


_ROWS = (
    ("completed", "completed", ""),
    ("failed", "failed", ""),
    ("cut off by the window", "censored", ""),
    ("duration", "duration", "s"),
    ("request throughput", "request_throughput", "req/s"),
    ("output throughput", "output_throughput", "tok/s"),
    ("total throughput", "total_token_throughput", "tok/s"),
    ("goodput", "request_goodput", "req/s"),
)


def _table(result: LoadResult, load: Load) -> Any:
    from rich.table import Table

    from vibeserve.tables import number

    table = Table(box=None, pad_edge=False, show_header=True)
    for name in ("metric", "value", "unit"):
        table.add_column(name, justify="right" if name == "value" else "left")
    for label, name, unit in _ROWS:
        if name in result.metrics:
            table.add_row(label, number(result.metrics[name]), unit)
    for short in ("ttft", "tpot", "itl", "e2el"):
        for statistic in ("mean", "median", "p90", "p99"):
            value = result.metrics.get(f"{statistic}_{short}_ms")
            if value is not None:
                table.add_row(f"{statistic} {short.upper()}", number(value), "ms")
    return table
