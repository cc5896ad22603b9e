"""Decides what the answers that pass the proxy mean for a CLI at work: let it go on, or end it, and why.

Every CLI words its troubles in its own way, and some retry for hours. What the API really said passes here, and means
the same for all of them, and the same as for our own agents (`providers/failures.py`).
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Mapping
from typing import Any

from evaluators.egress import Answered
from population.errors import ProviderDown, ProviderError, ProviderRefused
from vibeserve.agents.clis.cli import part
from vibeserve.agents.provider import StreamBroken
from vibeserve.agents.providers.failures import LONGEST_WAIT_S, Complaint, judged, wait_of
from vibeserve.agents.secrets import Redactor

_COUNTING = re.compile(r"/count_tokens|:countTokens")
"""Asks no model, costs nothing, and not every server has it."""
_AT_ONCE = frozenset({401, 402, 403})
"""No CLI gets any further after these; some try all the same."""


class Watch:
    """What one CLI asked for and got. Told by the proxy's thread, asked by ours."""

    def __init__(self, who: str, redact: Redactor, retries: int) -> None:
        """`who`: CLI and model, for messages. `retries`: after as many failures in a row the provider is down."""
        self._who, self._redact, self._retries = who, redact, retries
        self._lock = threading.Lock()
        self._answered = self._asked = self._in_a_row = 0
        self._last: Exception | None = None
        self._fatal: ProviderError | None = None

    @property
    def answered(self) -> int:
        """Requests that were answered, at least in part."""
        return self._answered

    @property
    def asked(self) -> int:
        """Requests that went out, whatever became of them."""
        return self._asked

    @property
    def last(self) -> Exception | None:
        """What the last answer's error means (`failures.judged`); None: it was well."""
        return self._last

    @property
    def fatal(self) -> ProviderError | None:
        """Why there is no use in going on; None: there is."""
        return self._fatal

    def note(self, answer: Answered) -> None:
        """One more answer has ended."""
        if answer.method != "POST" or _COUNTING.search(answer.path):
            return
        with self._lock:
            self._asked += 1
            failed = answer.status >= 400
            self._answered += not failed
            if answer.whole and not failed:
                self._in_a_row, self._last = 0, None
                return
            self._in_a_row += 1
            self._last = self._meaning(answer) if failed else StreamBroken(f"{self._who}: the answer broke off")
            self._fatal = self._fatal or self._hopeless(answer, self._last)

    def _meaning(self, answer: Answered) -> Exception:
        kind, message = _error_of(answer.words)
        return judged(
            Complaint(status=answer.status, kind=kind, message=message, wait_s=wait_of(answer.headers)),
            self._who,
            self._redact,
        )

    def _hopeless(self, answer: Answered, error: Exception) -> ProviderError | None:
        if isinstance(error, ProviderRefused) and (answer.status in _AT_ONCE or "no credit" in str(error)):
            return error
        if not isinstance(error, ProviderDown):
            return None
        waits = error.wait_s is not None and error.wait_s > LONGEST_WAIT_S
        return error if waits or self._in_a_row > self._retries else None


def _error_of(body: bytes) -> tuple[str, str]:
    """Kind and message of an error, as any of the APIs words it."""
    text = body.decode(errors="replace")
    try:
        found: Any = json.loads(text)
    except ValueError:
        return "", text
    found = found[0] if isinstance(found, list) and found else found
    inner = part(found, "error") or found
    if not isinstance(inner, Mapping):
        return "", str(inner)
    kinds = (str(inner.get(name) or "") for name in ("type", "code", "status"))
    return " ".join(kind for kind in kinds if kind and not kind.isdigit()), str(inner.get("message") or "")
