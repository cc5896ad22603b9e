"""The reference: token strings and the rule for the next token."""

import json
import zlib
from collections.abc import Sequence
from pathlib import Path

VOCABULARY = 1000
FIRST_WORD = 10


def load_salt(artifacts: str) -> int:
    return int(json.loads((Path(artifacts) / "model.json").read_text())["salt"])


def next_id(tokens: Sequence[int], salt: int) -> int:
    """A hash of the last four tokens, the position and the salt."""
    state = f"{salt}/{len(tokens)}/{list(tokens[-4:])}".encode()
    return FIRST_WORD + zlib.crc32(state) % (VOCABULARY - FIRST_WORD)
