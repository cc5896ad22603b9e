"""Decides what is taken out of every text that is kept or shown: keys, known ones and what looks like one."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from urllib.parse import quote

REDACTED = "[redacted]"
_SHORTEST = 6
"""A secret of fewer characters would be found everywhere."""
_KEY_SHAPED = re.compile(
    r"\b(?:sk-(?:ant-|proj-|or-)?[A-Za-z0-9_-]{16,}|hf_[A-Za-z0-9]{20,}|gh[opsu]_[A-Za-z0-9]{20,}"
    r"|github_pat_\w{20,}|glpat-[\w-]{16,}|xox[abp]-[\w-]{16,}|AKIA[A-Z0-9]{16}|AIza[\w-]{30,})"
)


class Redactor:
    """Takes secrets out of texts. Shows none of them itself."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        known = {secret for secret in secrets if len(secret) >= _SHORTEST}
        spellings = {s for secret in known for s in (secret, json.dumps(secret)[1:-1], quote(secret, safe=""))}
        self._spellings = sorted(spellings, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        """`text` without the secrets and without what has the shape of a provider's key."""
        for spelling in self._spellings:
            text = text.replace(spelling, REDACTED)
        return _KEY_SHAPED.sub(REDACTED, text)

    def finds(self, data: bytes) -> bool:
        """Whether a known secret stands in the data."""
        return any(spelling.encode() in data for spelling in self._spellings)

    def __repr__(self) -> str:
        return "Redactor(…)"
