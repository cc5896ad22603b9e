"""Decides what the options of `vibeserve bench` ask for: one load, and a server with its model and headers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from evaluators.load import first_model
from evaluators.load.endpoint import Endpoint
from evaluators.load.workload import Load, Slo
from population.errors import ConfigError, UsageError
from vibeserve.benching.workload import Workload

_WINDOW_S = 10.0
"""Of the search for the highest rate, where nothing is said."""
_REQUESTS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """One load in the words of `vllm bench serve`; the fields are called as the options."""

    rate: float | None
    burstiness: float
    concurrency: int | None
    slo: str | None
    input_len: str
    output_len: str
    prefix_len: int
    turns: int
    num_prompts: int | None
    duration: float | None
    """Seconds."""
    warmup: int

    def workload(self) -> Workload:
        """The load with its warm-up.

        Raises:
            ConfigError: every defect of the options.
        """
        problems: list[str] = []
        limits = _limits(self.slo, problems)
        inputs = _range("--input-len", self.input_len, problems)
        outputs = _range("--output-len", self.output_len, problems)
        if self.slo is None and self.concurrency is not None and self.rate is not None:
            problems.append("--rate (open loop) and --concurrency (closed loop) exclude each other; give one")
        if problems:
            raise ConfigError(problems)
        load = Load(
            name="bench",
            input_tokens=inputs,
            output_tokens=outputs,
            shared_prefix_tokens=self.prefix_len,
            turns=self.turns,
            burstiness=self.burstiness,
            slo=Slo(**limits) if self.slo is not None else None,
            **self._arrivals(),
            **self._extent(),
        )
        if load.problems():
            raise ConfigError(load.problems())
        return Workload(loads=(load,), warmup_requests=self.warmup)

    def _arrivals(self) -> dict[str, Any]:
        if self.slo is not None:
            return {"kind": "max-rate", "rate_per_s": self.rate}
        if self.concurrency is not None:
            return {"kind": "closed", "concurrency": self.concurrency}
        return {"kind": "open", "rate_per_s": math.inf if self.rate is None else self.rate}

    def _extent(self) -> dict[str, Any]:
        if self.duration is not None:
            return {"window_s": self.duration, "num_requests": self.num_prompts}
        return {"window_s": _WINDOW_S} if self.slo is not None else {"num_requests": self.num_prompts or _REQUESTS}


def headers_of(texts: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """`NAME=VALUE` as `vllm bench serve --header` has it.

    Raises:
        ConfigError: every text that is none.
    """
    pairs = [text.partition("=") for text in texts]
    if wrong := [text for text, (name, equals, _) in zip(texts, pairs, strict=True) if not (name.strip() and equals)]:
        raise ConfigError([f"--header: expected NAME=VALUE, got '{text}'" for text in wrong])
    return tuple((name.strip(), value.strip()) for name, _, value in pairs)


def endpoint_of(
    url: str, workload: Workload, model: str | None, prompt_ids: str | None, headers: tuple[tuple[str, str], ...]
) -> Endpoint:
    """A server to measure; the model is what was asked for, else what it lists first, else the workload's.

    Raises:
        UsageError: not the address of a server.
        ConfigError: a defect of the options.
        InfrastructureError: nothing answers there.
    """
    if not url.startswith(("http://", "https://")):
        raise UsageError(f"expected a URL such as http://127.0.0.1:8000, got '{url}'")
    problems: list[str] = []
    ids = workload.prompt_ids if prompt_ids is None else _range("--prompt-ids", prompt_ids, problems)
    if problems:
        raise ConfigError(problems)
    if model is None:
        listed = first_model(url, headers)
        model = workload.model or listed if listed == "default" else listed
    endpoint = Endpoint(url=url, model=model, prompt_ids=ids, strict=False, headers=headers)
    if endpoint.problems():
        raise ConfigError(endpoint.problems())
    return endpoint


def _limits(slo: str | None, problems: list[str]) -> dict[str, float]:
    limits: dict[str, float] = {}
    for part in slo.split(",") if slo is not None else ():
        name, _, value = part.partition("=")
        try:
            limits[name.strip()] = float(value)
        except ValueError:
            problems.append(f"--slo {slo}: expected name=number pairs such as ttft_ms=200,tpot_ms=50")
    known = {"ttft_ms", "tpot_ms", "e2el_ms", "attainment"}
    problems += [f"--slo: unknown limit '{n}'; expected {', '.join(sorted(known))}" for n in limits if n not in known]
    return limits


def _range(option: str, text: str, problems: list[str]) -> tuple[int, int]:
    low, dash, high = text.partition("-")
    try:
        return (int(low), int(high if dash else low))
    except ValueError:
        problems.append(f"{option} {text}: expected a number such as 64, or a range such as 48-80")
        return (1, 1)
