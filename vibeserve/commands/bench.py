"""Decides how `vibeserve bench` is asked for: loads and servers in the words of `vllm bench serve`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vibeserve.commands.options import JsonOption

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vibeserve.benching.workload import Workload
    from vibeserve.conditions import Condition

_option = typer.Option
Url = Annotated[str, typer.Argument(metavar="URL", help="e.g. http://127.0.0.1:8000")]
Rate = Annotated[float | None, _option("--rate", "--request-rate", help="Requests per second, open loop.")]
Burstiness = Annotated[float, _option("--burstiness", help="Shape of the gamma arrivals; 1 is Poisson.")]
Concurrency = Annotated[
    int | None, _option("--concurrency", "--max-concurrency", help="Requests in flight, closed loop.")
]
SloOption = Annotated[
    str | None, _option("--slo", help="Find the highest rate that keeps it, e.g. ttft_ms=200,tpot_ms=50.")
]
InputLen = Annotated[str, _option("--input-len", "--random-input-len", help="Tokens, or LOW-HIGH.")]
OutputLen = Annotated[str, _option("--output-len", "--random-output-len", help="Tokens, or LOW-HIGH.")]
PrefixLen = Annotated[int, _option("--prefix-len", "--random-prefix-len", help="Shared prefix.")]
Turns = Annotated[int, _option("--turns", help="Turns of a conversation.")]
NumPrompts = Annotated[int | None, _option("--num-prompts", help="Requests to send (default 100).")]
Duration = Annotated[float | None, _option("--duration", help="Seconds of a fixed window, in place of --num-prompts.")]
Warmup = Annotated[int, _option("--warmup", "--num-warmups", help="Requests before the clock starts.")]
WorkloadOption = Annotated[
    Path | None,
    _option(
        "--workload",
        help="Loads to run in place of the options above: a target, or a file with load tables as in target.toml.",
    ),
]
Against = Annotated[
    str | None, _option("--against", metavar="URL", help="Measure this server in turn (ABBA), and compare.")
]
Repeats = Annotated[int | None, _option("--repeats", min=1, help="Of everything (default 1; with --against 6 pairs).")]
FailIf = Annotated[str | None, _option("--fail-if", help="Exit with 1 if any holds, e.g. 'p99_ttft_ms>200, failed>0'.")]
Seed = Annotated[int, _option("--seed", help="Fixes arrivals, lengths and prompts.")]
Model = Annotated[str | None, _option("--model", help="Default: the first one the server lists.")]
PromptIds = Annotated[str | None, _option("--prompt-ids", help="Token ids of prompts, LOW-HIGH (default 100-8000).")]
Header = Annotated[
    list[str] | None, _option("--header", metavar="NAME=VALUE", help="Sent with every request; repeatable.")
]
Processes = Annotated[int | None, _option("--processes", help="Client processes (default: by rate).")]
Output = Annotated[Path | None, _option("--output", "--result-filename", help="JSON file to write.")]
Log = Annotated[Path | None, _option("--log", help="File with one JSON line per request.")]


def bench(
    ctx: typer.Context,
    url: Url,
    rate: Rate = None,
    burstiness: Burstiness = 1.0,
    concurrency: Concurrency = None,
    slo: SloOption = None,
    input_len: InputLen = "32",
    output_len: OutputLen = "64",
    prefix_len: PrefixLen = 0,
    turns: Turns = 1,
    num_prompts: NumPrompts = None,
    duration: Duration = None,
    warmup: Warmup = 2,
    workload: WorkloadOption = None,
    against: Against = None,
    repeats: Repeats = None,
    fail_if: FailIf = None,
    seed: Seed = 0,
    model: Model = None,
    prompt_ids: PromptIds = None,
    header: Header = None,
    processes: Processes = None,
    output: Output = None,
    log: Log = None,
    json: JsonOption = False,
) -> None:
    """Measure any OpenAI-compatible server; needs no target and no run.

    Examples: vibeserve bench http://127.0.0.1:8000 --rate 4 --num-prompts 40;
    vibeserve bench http://127.0.0.1:8000 --concurrency 16 --duration 10 --json;
    vibeserve bench http://127.0.0.1:8000 --workload my-target --against http://127.0.0.1:9000;
    vibeserve bench http://127.0.0.1:8000 --workload loads.toml --fail-if 'p99_ttft_ms@low>200'
    """
    from evaluators.load.session import ClientOptions
    from vibeserve.benching.measuring import PAIRS, gains, measure
    from vibeserve.benching.options import endpoint_of, headers_of
    from vibeserve.benching.values import bench_json
    from vibeserve.benching.view import show
    from vibeserve.commands.output import console, print_json
    from vibeserve.conditions import verdicts

    wanted = _workload(ctx, workload)
    conditions = _conditions(fail_if, wanted)
    _require_folders(output, log)
    headers = headers_of(header or ())
    urls = [url] if against is None else [url, against]
    endpoints = [endpoint_of(address, wanted, model, prompt_ids, headers) for address in urls]
    screen, times = console(json), repeats or (1 if against is None else PAIRS)
    client = ClientOptions(processes=processes, log=log)
    measured = measure(endpoints, wanted, times, seed, client, lambda text: screen.print(text, soft_wrap=True))
    ratios = gains(*measured) if len(measured) > 1 else {}
    judged = verdicts(conditions, measured[0].estimates)
    values = bench_json(measured, ratios, judged, seed)
    show(screen, measured, ratios, judged)
    if output is not None:
        _write(output, values)
    if json:
        print_json(values)
    if not all(one.answered for one in measured) or any(v.certainty.holds for v in judged):
        raise typer.Exit(1)


def _workload(ctx: typer.Context, path: Path | None) -> Workload:
    """The file's loads, or the one that the options describe, never both."""
    from dataclasses import fields

    from population.errors import UsageError
    from vibeserve.benching.options import LoadOptions
    from vibeserve.benching.workload import read_workload

    names = [field.name for field in fields(LoadOptions)]
    if path is None:
        return LoadOptions(**{name: ctx.params[name] for name in names}).workload()
    sources = {name: ctx.get_parameter_source(name) for name in names}
    if given := sorted(name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"):
        options = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise UsageError(f"--workload says what is sent, and so does {options}; give one of them")
    return read_workload(path)


def _conditions(text: str | None, workload: Workload) -> Sequence[Condition]:
    """Each about something that will be measured: a slip is better found before the measurement."""
    from vibeserve.conditions import applying, parse_conditions

    conditions = parse_conditions(text, "--fail-if") if text is not None else ()
    for condition in conditions:
        applying(condition.metric, condition.load, workload.metrics)
    return conditions


def _require_folders(*files: Path | None) -> None:
    """Before minutes are spent on what could not be kept."""
    from population.errors import UsageError

    for path in files:
        if path is not None and not path.absolute().parent.is_dir():
            raise UsageError(f"{path}: expected a file in a folder that exists, and {path.parent} does not")


def _write(path: Path, values: dict[str, Any]) -> None:
    import json

    from population.errors import InfrastructureError
    from vibeserve.plain import plain

    try:
        path.write_text(json.dumps(plain(values), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise InfrastructureError(f"{path}: cannot be written: {error.strerror}") from error
