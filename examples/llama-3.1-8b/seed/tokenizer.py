"""Decides how text becomes token ids and back: greedy longest match; text is the concatenation of token strings.

The names of specials stand for them in a prompt, as with Hugging Face's tokenizers; they have no text in a reply.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from collections.abc import Sequence as Ids
from pathlib import Path

PIECE = re.compile(r" ?[a-z]+|[^a-z]", re.DOTALL)
"""A word with the space before it, or any other character."""


class Tokenizer:
    """The vocabulary of the target."""

    def __init__(self, vocab: list[str], specials: Mapping[str, int], unk_id: int) -> None:
        self.vocab = vocab
        self.unk_id = unk_id
        self._specials = specials
        self._special = re.compile(f"({'|'.join(map(re.escape, sorted(specials, key=len, reverse=True)))})")
        self._ids = {text: i for i, text in reversed(list(enumerate(vocab))) if text}
        self._longest = max(map(len, vocab))
        self._whole_pieces = all(PIECE.fullmatch(text) for text in self._ids)
        """No token reaches over the end of a piece, so that pieces can be encoded one by one."""

    @classmethod
    def load(cls, artifacts: Path, unk_id: int) -> Tokenizer:
        vocab = json.loads((artifacts / "vocab.json").read_text(encoding="utf-8"))
        added = json.loads((artifacts / "tokenizer.json").read_text(encoding="utf-8"))["added_tokens"]
        return cls(vocab, {token["content"]: token["id"] for token in added}, unk_id)

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`; a character outside the vocabulary becomes the unknown token."""
        ids: list[int] = []
        # `split` gives texts and the specials between them in turns.
        for number, part in enumerate(self._special.split(text) if self._specials else [text]):
            ids += [self._specials[part]] if number % 2 else self._encode(part)
        return ids

    def _encode(self, text: str) -> list[int]:
        if not self._whole_pieces:
            return self._longest_matches(text)
        ids: list[int] = []
        for piece in PIECE.findall(text):
            token = self._ids.get(piece)
            if token is not None:
                ids.append(token)
            else:
                ids += self._longest_matches(piece)
        return ids

    def _longest_matches(self, text: str) -> list[int]:
        ids: list[int] = []
        position = 0
        while position < len(text):
            for length in range(min(self._longest, len(text) - position), 0, -1):
                token = self._ids.get(text[position : position + length])
                if token is not None:
                    break
            else:
                token, length = self.unk_id, 1
            ids.append(token)
            position += length
        return ids

    def decode(self, ids: Ids[int]) -> str:
        return "".join([self.vocab[i] for i in ids])
