"""The load generator: seeded schedules, one client for everything that is timed, metrics as in `vllm bench serve`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from population.errors import InfrastructureError

if TYPE_CHECKING:
    from evaluators.load.endpoint import Endpoint
    from evaluators.load.result import LoadResult
    from evaluators.load.session import ClientOptions
    from evaluators.load.workload import Load

MODELS_TIMEOUT_S = 10.0


def bench(
    target: str | Endpoint,
    loads: Sequence[Load],
    *,
    trace_seed: int = 0,
    content_seed: int | None = None,
    warmup_requests: int = 1,
    options: ClientOptions | None = None,
) -> list[LoadResult]:
    """Measure any OpenAI-compatible server, vLLM's included: what `vibeserve bench URL` runs.

    A bare URL is measured leniently (what is unverified is flagged), with the first model that `/v1/models` names.

    Raises:
        ConfigError: a defect of the endpoint or of a load.
        InfrastructureError: the server does not answer, or a client process died.
    """
    import secrets

    from evaluators.load.endpoint import Endpoint
    from evaluators.load.plan import Seeds
    from evaluators.load.session import run_loads

    endpoint = Endpoint(url=target, strict=False) if isinstance(target, str) else target
    if isinstance(target, str) and not endpoint.problems():
        endpoint = replace(endpoint, model=first_model(target))
    seeds = Seeds(trace=trace_seed, content=secrets.randbits(62) if content_seed is None else content_seed)
    return run_loads(endpoint, loads, seeds, warmup_requests=warmup_requests, options=options)


def first_model(url: str, headers: Sequence[tuple[str, str]] = ()) -> str:
    """Name of the first model that the server lists; "default" where it has no such route.

    Raises:
        InfrastructureError: nothing answers at `url`.
    """
    import json
    from urllib.error import URLError
    from urllib.request import Request, urlopen

    base = url.rstrip("/").removesuffix("/v1")
    try:
        with urlopen(Request(f"{base}/v1/models", headers=dict(headers)), timeout=MODELS_TIMEOUT_S) as answer:
            return str(json.load(answer)["data"][0]["id"])
    except URLError as error:
        if getattr(error, "code", None) is not None:
            return "default"
        raise InfrastructureError(
            f"no server answers at {base} ({error.reason}): start it, or check the address"
        ) from error
    except (ValueError, LookupError, TypeError):
        return "default"
    except OSError as error:
        raise InfrastructureError(f"no server answers at {base} ({error}): start it, or check the address") from error
