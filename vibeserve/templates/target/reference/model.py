"""The reference implementation: which token comes next. Replace it by your model."""

import zlib
from collections.abc import Sequence

FIRST, VOCABULARY = 10, 1000


def next_id(tokens: Sequence[int]) -> int:
    """A hash of the position and the last four tokens, in place of a network."""
    return FIRST + zlib.crc32(f"{len(tokens)}/{list(tokens[-4:])}".encode()) % (VOCABULARY - FIRST)
