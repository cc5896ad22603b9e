"""Decides what a provider's error means for the run: wait, stop, make room, or that the model refused.

Both SDKs name and number their errors alike, so this is said once. No message holds a key, a header or a request.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from population.errors import ProviderDown, ProviderRefused
from vibeserve.agents.provider import ContextOverflow, StreamBroken
from vibeserve.agents.secrets import Redactor

LONGEST_WAIT_S = 60.0
"""Seconds of `retry-after` that are waited within a request; whoever asks for more is waited for by the driver."""
_OVERFLOW = re.compile(
    r"context_length_exceeded|maximum context length|context window|prompt is too long|exceeds? the (?:model'?s? )?"
    r"(?:available |maximum )?context|exceed context limit|input is too long|maximum model length|request_too_large",
    re.IGNORECASE,
)
_REFUSAL = re.compile(r"content_filter|content_policy|invalid_prompt|bio_policy|cyber_policy|misalignment_policy")
_NO_CREDIT = re.compile(r"insufficient_quota|billing|credit balance|credit_balance", re.IGNORECASE)
_LONGEST_MESSAGE = 500


class Refused(Exception):  # becomes a turn that ends in a refusal
    """The provider's filter did not let the conversation through."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Complaint:
    """An error as a provider words it."""

    status: int | None = None
    """Of the HTTP answer; None: it came within a stream."""
    kind: str = ""
    """Its type or code, such as `overloaded_error` or `insufficient_quota`."""
    message: str = ""
    wait_s: float | None = None
    """From `retry-after`."""


def judged(complaint: Complaint, who: str, redact: Redactor) -> Exception:
    """What to raise: `ProviderDown`, `ProviderRefused`, `StreamBroken`, `ContextOverflow` or `Refused`.

    `who`: provider and model, for the message.
    """
    words = redact(" ".join(complaint.message.split()))[:_LONGEST_MESSAGE]
    about, status = f"{complaint.kind} {complaint.message}", complaint.status
    said = " ".join(filter(None, [str(status or ""), complaint.kind, words])) or "no reason given"
    if _OVERFLOW.search(about) or status == 413:
        return ContextOverflow(words)
    if _REFUSAL.search(complaint.kind):
        return Refused(words or complaint.kind)
    if _NO_CREDIT.search(about) or status == 402:
        return ProviderRefused(f"{who}: no credit: {said}. Top up the account")
    if status is None:
        return StreamBroken(f"{who}: the answer broke off: {said}")
    if status in (401, 403):
        return ProviderRefused(
            f"{who}: the key was not accepted: {said}. Set the right one ([agents] key_env, key_file)"
        )
    if status == 404:
        return ProviderRefused(f"{who}: not found: {said}. See [agents] model and base_url")
    if status in (408, 409, 429) or status >= 500:
        asked = f"; it asks to wait {complaint.wait_s:.0f} s" if complaint.wait_s else ""
        return ProviderDown(f"{who}: {said}{asked}", complaint.wait_s)
    return ProviderRefused(f"{who}: the request was not accepted: {said}. See [agents]; or please report it")


def complaint_of(error: Any) -> Complaint:
    """Of an SDK's `APIStatusError` or, from within a stream, `APIError`."""
    response = getattr(error, "response", None)
    inner = _inner(getattr(error, "body", None))
    kind = inner.get("code") or inner.get("type") or getattr(error, "code", None) or getattr(error, "type", None) or ""
    kinds = {str(kind), str(inner.get("type") or "")} - {"", "None", "error"}
    # An error within a stream comes with the status of the answer that had begun well.
    status = None if response is None or response.status_code < 400 else int(response.status_code)
    return Complaint(
        status=status,
        kind=" ".join(sorted(kinds)),
        message=str(inner.get("message") or getattr(error, "message", "") or error),
        wait_s=None if response is None else wait_of(response.headers),
    )


def _inner(body: Any) -> Mapping[str, Any]:
    if isinstance(body, Mapping):
        inner = body.get("error", body)
        return inner if isinstance(inner, Mapping) else {"message": str(inner)}
    return {}


def wait_of(headers: Mapping[str, str]) -> float | None:
    """Seconds that an answer asks to wait, where it says so in seconds."""
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            return max(0.0, float(headers[name]) * unit_s)
        except (KeyError, ValueError):
            continue
    return None


def no_long_waits(response: Any) -> None:
    """A hook on answers: the SDK would sleep for as long as it is asked to, be it hours, unseen by any deadline."""
    wait_s = wait_of(response.headers)
    if wait_s is not None and wait_s > LONGEST_WAIT_S:
        response.headers["x-should-retry"] = "false"
