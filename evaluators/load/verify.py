"""Decides whether an answer is what was asked for: ids, text, usage, finish reason and length must agree."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from evaluators.load.endpoint import Endpoint
from evaluators.load.record import Failure, Request


class ProtocolError(Exception):
    """The server's answer breaks the protocol; becomes a `Failure` of that one request, never leaves the client."""

    def __init__(self, kind: str, evidence: str) -> None:
        super().__init__(f"{kind}: {evidence}")
        self.failure = Failure(kind=kind, evidence=evidence[:300])


def check_ids(ids: Any, endpoint: Endpoint) -> None:
    """Raises ProtocolError unless `ids` is a list of token ids in the vocabulary, no longer than a chunk may be."""
    if type(ids) is not list:
        raise ProtocolError("bad-token-ids", f"token_ids should be a list, got {ids!r}")
    limit, most = endpoint.id_limit, endpoint.max_tokens_per_chunk
    if most is not None and len(ids) > most:
        raise ProtocolError(
            "too-many-tokens-per-chunk", f"{len(ids)} tokens in one event, max_tokens_per_chunk of the target is {most}"
        )
    for token in ids:
        if type(token) is not int or token < 0 or (limit is not None and token >= limit):
            raise ProtocolError("bad-token-ids", f"{token!r} is not a token id below {limit}")


def check_finish(request: Request, endpoint: Endpoint, tokens: int, reason: str | None) -> None:
    """Raises ProtocolError unless an answer of `tokens` tokens may end for this reason."""
    if reason is None:
        if endpoint.strict:
            raise ProtocolError("no-finish-reason", f"the stream ended after {tokens} tokens without a finish_reason")
    elif reason == "length":
        if tokens < request.max_tokens:
            raise ProtocolError(
                "too-few-tokens", f"finish_reason is length after {tokens} of {request.max_tokens} tokens"
            )
    elif reason == "stop":
        if request.ignore_eos and not request.stop:
            raise ProtocolError(
                "early-stop", f"stopped after {tokens} of {request.max_tokens} tokens despite ignore_eos"
            )
    else:
        raise ProtocolError("bad-finish-reason", f"finish_reason should be length or stop, got {reason!r}")
    if tokens == 0:
        raise ProtocolError("no-tokens", "the stream ended without a token")


def check_usage(request: Request, endpoint: Endpoint, usage: Any, tokens: int | None) -> None:
    """Raises ProtocolError unless the server's own counts agree with ours. `tokens` None: we have no count."""
    if usage is None:
        if endpoint.strict:
            raise ProtocolError("no-usage", "include_usage was asked for, but no usage came")
        return
    if type(usage) is not dict:
        raise ProtocolError("bad-usage", f"usage should be an object, got {usage!r}")
    for key in ("completion_tokens", "prompt_tokens", "total_tokens"):
        value = usage.get(key)
        if (type(value) is not int or value < 0) and (value is not None or key == "completion_tokens"):
            raise ProtocolError("bad-usage", f"{key} should be a whole number >= 0, got {value!r}")
    claimed = usage["completion_tokens"]
    if tokens is not None and claimed != tokens:
        raise ProtocolError("usage-mismatch", f"usage says {claimed} completion tokens, {tokens} ids arrived")
    prompt = usage.get("prompt_tokens")
    if endpoint.strict and not endpoint.prompt_as_text and prompt != len(request.prompt_ids):
        raise ProtocolError(
            "usage-mismatch", f"usage says {prompt!r} prompt tokens, {len(request.prompt_ids)} were sent"
        )
    total = usage.get("total_tokens")
    if total is not None and prompt is not None and total != prompt + claimed:
        raise ProtocolError("usage-mismatch", f"usage says {total} tokens in total, {prompt} + {claimed} are its parts")


def check_text(
    endpoint: Endpoint, ids: Sequence[int], text: str, stop: Sequence[str] = (), *, ended: bool = True
) -> None:
    """Raises ProtocolError unless the text is the concatenation of the tokens' texts, cut before a stop string.

    The text of an answer that has not `ended` may lag behind its ids, never the other way round.
    """
    if any(word in text for word in stop):
        raise ProtocolError("stop-ignored", f"the text {text[-40:]!r} contains one of the stop strings {stop!r}")
    if not endpoint.vocab or (not ended and not ids):
        return
    expected = "".join(endpoint.vocab[token] for token in ids)
    expected = expected[: first_stop(expected, stop)]
    if text != expected and (ended or not expected.startswith(text)):
        at = next(
            (i for i, (a, b) in enumerate(zip(text, expected, strict=False)) if a != b), min(len(text), len(expected))
        )
        raise ProtocolError(
            "text-mismatch",
            f"at character {at} the text is {text[at : at + 20]!r}, the ids say {expected[at : at + 20]!r}",
        )


def check_stop(request: Request, endpoint: Endpoint, ids: Sequence[int], reason: str | None) -> None:
    """Raises ProtocolError unless the answer ended at its first stop string, and only there."""
    if not request.stop or not endpoint.vocab:
        return
    hit = first_stop("".join(endpoint.vocab[token] for token in ids), request.stop) is not None
    if hit and reason != "stop":
        raise ProtocolError("stop-ignored", f"a stop string of {request.stop!r} came, finish_reason is {reason!r}")
    if not hit and reason == "stop" and request.ignore_eos:
        raise ProtocolError("early-stop", f"finish_reason is stop, but none of {request.stop!r} came")


def first_stop(text: str, stop: Sequence[str]) -> int | None:
    """Where the earliest stop string begins; None without one."""
    return min((at for word in stop if (at := text.find(word)) >= 0), default=None)


class Retokenizer:
    """Counts tokens of a text by longest match in a vocabulary, for servers that return no ids."""

    def __init__(self, vocab: Sequence[str]) -> None:
        self._tokens = frozenset(vocab)
        self._longest = max(map(len, vocab), default=1)

    def count(self, text: str) -> int:
        """Number of tokens; a character outside the vocabulary counts as one."""
        at = count = 0
        while at < len(text):
            sizes = range(min(self._longest, len(text) - at), 1, -1)
            at += next((size for size in sizes if text[at : at + size] in self._tokens), 1)
            count += 1
        return count


def apportion(total: int, weights: Sequence[int]) -> list[int]:
    """Whole numbers in proportion to `weights` that add up to `total`: the server's count spread over its chunks."""
    mass = sum(weights)
    if not mass:
        return [0] * len(weights)
    edges, seen = [0], 0
    for weight in weights:
        seen += weight
        edges.append(round(total * seen / mass))
    return [high - low for low, high in pairwise(edges)]
