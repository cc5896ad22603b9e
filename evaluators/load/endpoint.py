"""Decides which server is addressed, with what prompts, and how strictly its answers are checked."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """An OpenAI-compatible completions server and what the client knows about its model."""

    url: str
    """Scheme, host and port, with or without a trailing `/v1`."""
    model: str = "default"
    prompt_ids: tuple[int, int] = (100, 8000)
    """Inclusive range of token ids that fresh prompts draw from, uniformly."""
    vocab: tuple[str, ...] = ()
    """Text of each token id; the text of an answer must be the concatenation over its ids. Empty: text is not
    checked."""
    vocab_size: int | None = None
    """Ids at or above it are errors; None: `len(vocab)` if there is a vocabulary, else unchecked."""
    strict: bool = True
    """Token ids, a finish reason and a usage chunk must be there. False: measure any server, flag what is
    unverified."""
    max_tokens_per_chunk: int | None = None
    """Most tokens that one event may bring; None: any number."""
    request_timeout_s: float = 300.0
    """A request that takes longer has failed; fixed windows end before."""
    headers: tuple[tuple[str, str], ...] = ()
    prompt_as_text: bool = False
    """Send the prompt as text over `vocab`, for servers that do not take token ids."""

    @property
    def completions_url(self) -> str:
        """Address of the completions route."""
        base = self.url.rstrip("/")
        return f"{base}/completions" if base.endswith("/v1") else f"{base}/v1/completions"

    @property
    def id_limit(self) -> int | None:
        """First id that does not exist, if that is known."""
        return self.vocab_size if self.vocab_size is not None else (len(self.vocab) or None)

    def problems(self) -> list[str]:
        """One sentence per defect; empty when requests can be sent."""
        found = []
        if not self.url.startswith(("http://", "https://")):
            found.append(f"url must start with http:// or https://, got {self.url!r}")
        low, high = self.prompt_ids
        if not 0 <= low <= high:
            found.append(f"prompt_ids must be [low, high] with 0 <= low <= high, got {self.prompt_ids!r}")
        if self.id_limit is not None and high >= self.id_limit:
            found.append(f"prompt_ids reaches {high}, but the vocabulary has {self.id_limit} tokens")
        if self.max_tokens_per_chunk is not None and self.max_tokens_per_chunk < 1:
            found.append(f"max_tokens_per_chunk must be >= 1, got {self.max_tokens_per_chunk!r}")
        if self.prompt_as_text and not self.vocab:
            found.append("prompt_as_text needs a vocabulary")
        return found
