"""Decides how objects lie in a file: git packs (version 2) of whole objects, and the index of names beside each.

Formats: Documentation/gitformat-pack. Each entry is a kind, a length and a zlib stream. Git itself also writes entries
that are differences (after a `git gc` of the user's): such a pack can be asked what it has, but git has to read it.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Literal

from population.disk import Disk
from population.errors import RepositoryError
from population.git_objects import GitObject, Kind

MAX_OBJECT_BYTES = 64 << 20
_NUMBERS: dict[Kind, int] = {"commit": 1, "tree": 2, "blob": 3}
_KINDS = {number: kind for kind, number in _NUMBERS.items()}
_LEVEL = 1
"""Of compression: texts of a few kB gain nothing from more."""
_HEAD = struct.Struct(">4sII")
_INDEX_MAGIC = b"\xfftOc\x00\x00\x00\x02"
_FAN_OUT = struct.Struct(">256I")
_SHAS_AT = len(_INDEX_MAGIC) + _FAN_OUT.size
_SUM_BYTES = 20
_WINDOW_BYTES = 4096
_FAR = 1 << 31
"""Marks an offset that is in the index's table of 8-byte offsets."""


@dataclass(frozen=True, slots=True)
class Packed:
    """An object as it lies in a pack."""

    sha: bytes
    """20 bytes."""
    entry: bytes
    checksum: int
    """CRC-32 of the entry."""


def packed(obj: GitObject) -> Packed:
    """The object as an entry."""
    entry = _entry_head(obj.kind, len(obj.data)) + zlib.compress(obj.data, _LEVEL)
    return Packed(bytes.fromhex(obj.sha), entry, zlib.crc32(entry))


def _entry_head(kind: Kind, size: int) -> bytes:
    first, size = (_NUMBERS[kind] << 4) | (size & 15), size >> 4
    head = bytearray()
    while size:
        head.append(first | 0x80)
        first, size = size & 0x7F, size >> 7
    head.append(first)
    return bytes(head)


def make_pack(entries: Sequence[Packed]) -> bytes:
    """A pack file."""
    body = b"".join([_HEAD.pack(b"PACK", 2, len(entries)), *(e.entry for e in entries)])
    return body + hashlib.sha1(body, usedforsecurity=False).digest()


def make_index(entries: Sequence[Packed], pack: bytes) -> bytes:
    """The index file, version 2, of a pack of these entries."""
    offset, rows = _HEAD.size, list[tuple[bytes, int, int]]()
    for entry in entries:
        rows.append((entry.sha, entry.checksum, offset))
        offset += len(entry.entry)
    if offset >= _FAR:
        raise RepositoryError(f"expected a pack of less than {_FAR} bytes, got {offset}")
    rows.sort()
    counts = [0] * 256
    for sha, _, _ in rows:
        counts[sha[0]] += 1
    numbers = struct.Struct(f">{len(rows)}I")
    parts = [_INDEX_MAGIC, _FAN_OUT.pack(*accumulate(counts)), *(sha for sha, _, _ in rows)]
    parts += [numbers.pack(*(checksum for _, checksum, _ in rows)), numbers.pack(*(at for _, _, at in rows))]
    body = b"".join([*parts, pack[-_SUM_BYTES:]])
    return body + hashlib.sha1(body, usedforsecurity=False).digest()


def read_entries(pack: bytes, most: int, most_bytes: int) -> Iterator[tuple[GitObject, Packed]]:
    """The objects of a pack of whole objects that came from elsewhere: every length, stream and the sum are checked.

    Each comes with what it is in a pack of ours, so that its content need not be compressed again.

    Raises:
        RepositoryError: anything else, or more than `most` objects or `most_bytes` of content.
    """
    if len(pack) < _HEAD.size + _SUM_BYTES or hashlib.sha1(pack[:-20], usedforsecurity=False).digest() != pack[-20:]:
        raise RepositoryError(f"expected a pack that matches its checksum, got {len(pack)} bytes {pack[:20]!r}")
    magic, version, count = _HEAD.unpack_from(pack)
    if magic != b"PACK" or version != 2 or count > most:
        raise RepositoryError(f"expected a pack of version 2 of at most {most} objects, got {pack[:12]!r}")
    view, at, left = memoryview(pack)[:-_SUM_BYTES], _HEAD.size, most_bytes
    for _ in range(count):
        kind, size, start = entry_head(view, at)
        if kind is None or size > left:
            raise RepositoryError(f"expected a whole object of at most {left} bytes at byte {at}, got {size} bytes")
        left -= size
        data, at = _inflate(view, start, size)
        item, entry = GitObject(kind, data), _entry_head(kind, size) + view[start:at]
        yield item, Packed(bytes.fromhex(item.sha), entry, zlib.crc32(entry))
    if at != len(view):
        raise RepositoryError(f"expected {count} objects in {at} bytes, got {len(view)} bytes")


def entry_head(data: bytes | memoryview, at: int) -> tuple[Kind | None, int, int]:
    """Kind (None: a difference), size and where the stream begins.

    Raises:
        RepositoryError: no entry.
    """
    start, shift = at, 4
    try:
        byte = data[at]
        kind, size = (byte >> 4) & 7, byte & 15
        while byte & 0x80:
            at += 1
            byte = data[at]
            size |= (byte & 0x7F) << shift
            shift += 7
    except IndexError:
        raise RepositoryError(f"expected an object at byte {start} of a pack, got its end") from None
    if kind in (0, 5) or shift > 46:
        raise RepositoryError(f"expected an object at byte {start} of a pack, got kind {kind}")
    return _KINDS.get(kind), size, at + 1


def _inflate(view: memoryview, at: int, size: int) -> tuple[bytes, int]:
    """The `size` bytes of the stream at `at`, and where it ends."""
    stream, parts, got = zlib.decompressobj(), list[bytes](), 0
    try:
        while not stream.eof and at < len(view) and got <= size:
            piece = view[at : at + size + (size >> 10) + 64]  # seldom reaches far into the next entry
            parts.append(stream.decompress(piece, size + 1 - got))
            got += len(parts[-1])
            at += len(piece) - len(stream.unused_data) - len(stream.unconsumed_tail)
    except zlib.error as error:
        raise RepositoryError(f"expected a zlib stream before byte {at} of a pack: {error}") from None
    if not stream.eof or got != size:
        raise RepositoryError(f"expected an object of {size} bytes before byte {at} of a pack, got another length")
    return b"".join(parts), at


class Pack:
    """A pack on disk with its index, ours or git's."""

    def __init__(self, index: Path, disk: Disk) -> None:
        """Raises:
        OSError: it is gone; whoever removed it has put its objects into another one.
        RepositoryError: damaged.
        """
        self.index, self.path, self._disk = index, index.with_suffix(".pack"), disk
        self._table = disk.read(index, 0, None)
        if self._table[:8] != _INDEX_MAGIC or len(self._table) < _SHAS_AT + 2 * _SUM_BYTES:
            raise RepositoryError(f"{index}: expected a pack index of version 2; run `git fsck` there")
        self._totals = (0, *_FAN_OUT.unpack_from(self._table, len(_INDEX_MAGIC)))
        self.count = self._totals[256]

    def find(self, sha: bytes) -> int | None:
        """Offset of an object."""
        low, high = self._totals[sha[0]], self._totals[sha[0] + 1]
        place = bisect_left(range(high), sha, low, high, key=self._sha)
        return self._offset(place) if place < high and self._sha(place) == sha else None

    def kind(self, at: int) -> Kind | None:
        """None: a difference, which only git can read."""
        return entry_head(self._disk.read(self.path, at, 16), 0)[0]

    def read(self, at: int) -> GitObject | Literal["difference"]:
        """The object at an offset."""
        data = self._disk.read(self.path, at, _WINDOW_BYTES)
        kind, size, start = entry_head(data, 0)
        if kind is None:
            return "difference"
        if size > MAX_OBJECT_BYTES:
            raise RepositoryError(f"{self.path}: expected at most {MAX_OBJECT_BYTES} bytes at {at}, got {size}")
        whole = start + size + (size >> 10) + 64
        if len(data) == _WINDOW_BYTES < whole:
            data = self._disk.read(self.path, at, whole)
        return GitObject(kind, _inflate(memoryview(data), start, size)[0])

    def entries(self) -> list[Packed] | None:
        """All of them, as they lie there; None: some are differences, or damaged."""
        data = self._disk.read(self.path, 0, None)
        offsets = sorted((self._offset(place), place) for place in range(self.count))
        ends = [at for at, _ in offsets[1:]] + [len(data) - _SUM_BYTES]
        found = []
        for (at, place), end in zip(offsets, ends, strict=True):
            entry = Packed(self._sha(place), data[at:end], self._number(place, 0))
            if entry_head(entry.entry, 0)[0] is None or zlib.crc32(entry.entry) != entry.checksum:
                return None
            found.append(entry)
        return found

    def _sha(self, place: int) -> bytes:
        at = _SHAS_AT + 20 * place
        return self._table[at : at + 20]

    def _number(self, place: int, table: int) -> int:
        at = _SHAS_AT + (20 + 4 * table) * self.count + 4 * place
        return int.from_bytes(self._table[at : at + 4])

    def _offset(self, place: int) -> int:
        near = self._number(place, 1)
        if near < _FAR:
            return near
        at = _SHAS_AT + 28 * self.count + 8 * (near - _FAR)
        return int.from_bytes(self._table[at : at + 8])
