"""A disk in memory that knows what is not yet on stable storage, and enumerates what a power cut may leave of it.

The model is that of ALICE (Pillai et al., OSDI 2014) and CrashMonkey (Mohan et al., OSDI 2018): what was not synced may
have reached the disk in any subset and any order. A new or removed name is durable once its folder was synced, bytes
once their file was. Of an append that was not synced there may be any prefix, with any of its sectors still zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, combinations, count, product
from pathlib import Path

from population.disk import Disk

SECTOR_BYTES = 512
Image = dict[Path, bytes]
"""Path → content of every file that can be found."""


@dataclass(eq=False)
class Inode:
    """A file's bytes as processes see them, and as stable storage has them."""

    data: bytes = b""
    durable: bytes = b""


@dataclass(frozen=True)
class Named:
    """A name that was made (or removed: None) and is not durable."""

    path: Path
    inode: Inode | None


@dataclass(frozen=True)
class Appended:
    """Bytes that were appended and are not durable."""

    inode: Inode
    data: bytes


@dataclass
class MemoryDisk(Disk):
    """One machine's disk. `kill` ends its processes, a `crash` is a power cut."""

    files: dict[Path, Inode] = field(default_factory=dict)
    durable: dict[Path, Inode] = field(default_factory=dict)
    pending: list[Named | Appended] = field(default_factory=list)
    after: Callable[[], None] = field(default=lambda: None)
    """Called after every operation that changes anything."""
    _open: dict[int, Inode] = field(default_factory=dict)
    _locks: dict[Path, int] = field(default_factory=dict)
    _fds: Iterator[int] = field(default_factory=lambda: count(3))

    @classmethod
    def of(cls, image: Mapping[Path, bytes]) -> MemoryDisk:
        files = {path: Inode(data, data) for path, data in image.items()}
        return cls(files=files, durable=dict(files))

    # --- what the ledger does ---------------------------------------------------------------------------------------

    def make_folder(self, path: Path) -> None:
        pass  # the folder is there; that it is made durable has a test of its own

    def names(self, folder: Path) -> list[str]:
        return [path.name for path in self.files if path.parent == folder]

    def read(self, path: Path, offset: int, count: int | None) -> bytes:
        data = self._at(path).data
        return data[offset:] if count is None else data[offset : offset + count]

    def create(self, path: Path) -> int:
        if path in self.files:
            raise FileExistsError(path)
        self.files[path] = inode = Inode()
        self.pending.append(Named(path, inode))
        self.after()
        return self._opened(inode)

    def write(self, fd: int, data: bytes) -> int:
        inode = self._open[fd]
        inode.data += data
        self.pending.append(Appended(inode, data))
        self.after()
        return len(data)

    def sync(self, fd: int) -> None:
        self._flush(self._open[fd])
        self.after()

    def sync_folder(self, path: Path) -> None:
        for change in [c for c in self.pending if isinstance(c, Named) and c.path.parent == path]:
            self.pending.remove(change)
            self._name(self.durable, change)
        self.after()

    def rewrite(self, path: Path, offset: int, data: bytes) -> None:
        inode = self._at(path)
        assert inode.data[offset : offset + len(data)] == data, "a ledger never changes what it has written"
        self._flush(inode)
        self.after()

    def touch(self, path: Path) -> None:
        self._at(path)

    def remove(self, path: Path) -> None:
        if self.files.pop(path, None) is not None:
            self.pending.append(Named(path, None))
            self.after()

    def lock(self, path: Path, owner: bytes) -> int | None:
        if path in self._locks:
            raise BlockingIOError(path)
        inode = self.files.setdefault(path, Inode())
        inode.data = owner
        self._locks[path] = fd = self._opened(inode)
        return fd

    def close(self, fd: int) -> None:
        del self._open[fd]
        self._locks = {path: holder for path, holder in self._locks.items() if holder != fd}

    # --- what happens to it -----------------------------------------------------------------------------------------

    def kill(self) -> MemoryDisk:
        """All processes are gone; what they wrote is in the page cache, as durable or not as it was."""
        twins: dict[Inode, Inode] = {}

        def twin(inode: Inode) -> Inode:
            return twins.setdefault(inode, Inode(inode.data, inode.durable))

        def moved(change: Named | Appended) -> Named | Appended:
            if isinstance(change, Appended):
                return Appended(twin(change.inode), change.data)
            return Named(change.path, change.inode and twin(change.inode))

        return type(self)(
            files={path: twin(inode) for path, inode in self.files.items()},
            durable={path: twin(inode) for path, inode in self.durable.items()},
            pending=[moved(change) for change in self.pending],
        )

    def crashes(self, stride: int = 1) -> Iterator[Image]:
        """What a power cut may leave now, each image once; appends are cut at every `stride`-th byte."""
        seen: set[tuple[tuple[Path, bytes], ...]] = set()
        for choice in product(*(self._outcomes(change, stride) for change in self.pending)):
            image = self._image(choice)
            key = tuple(sorted((path, data) for path, data in image.items() if path.suffix == ".jsonl"))
            if key not in seen:
                seen.add(key)
                yield image

    def _image(self, choice: tuple[bytes | bool, ...]) -> Image:
        names, tails = dict(self.durable), dict[Inode, bytes]()
        for change, outcome in zip(self.pending, choice, strict=True):
            if isinstance(change, Named) and outcome:
                self._name(names, change)
            elif isinstance(change, Appended) and isinstance(outcome, bytes):
                tails[change.inode] = tails.get(change.inode, b"") + outcome
        return {path: inode.durable + tails.get(inode, b"") for path, inode in names.items()}

    def _outcomes(self, change: Named | Appended, stride: int) -> list[bytes] | list[bool]:
        if isinstance(change, Named):
            return [False, True]
        start = len(change.inode.durable)
        ahead = self.pending[: self.pending.index(change)]
        start += sum(len(c.data) for c in ahead if isinstance(c, Appended) and c.inode is change.inode)
        return list(torn(change.data, start, stride))

    @staticmethod
    def _name(names: dict[Path, Inode], change: Named) -> None:
        if change.inode is None:
            names.pop(change.path, None)
        else:
            names[change.path] = change.inode

    def _flush(self, inode: Inode) -> None:
        inode.durable = inode.data
        self.pending = [c for c in self.pending if not (isinstance(c, Appended) and c.inode is inode)]

    def _at(self, path: Path) -> Inode:
        if path not in self.files:
            raise FileNotFoundError(path)
        return self.files[path]

    def _opened(self, inode: Inode) -> int:
        fd = next(self._fds)
        self._open[fd] = inode
        return fd


def torn(data: bytes, start: int, stride: int) -> Iterator[bytes]:
    """What may be found of an append at offset `start`: every cut, its last sector empty or not, any sectors empty."""
    for cut in sorted({*range(0, len(data), stride), len(data)}):
        yield data[:cut]
        boundary = max(0, (start + cut - 1) // SECTOR_BYTES * SECTOR_BYTES - start)
        if boundary < cut:
            yield data[:boundary] + bytes(cut - boundary)
    first, last = start // SECTOR_BYTES, (start + len(data) - 1) // SECTOR_BYTES
    sectors = range(first, last + 1)
    for empty in chain.from_iterable(combinations(sectors, n) for n in range(1, len(sectors) + 1)):
        page = bytearray(data)
        for sector in empty:
            low, high = max(0, sector * SECTOR_BYTES - start), min(len(data), (sector + 1) * SECTOR_BYTES - start)
            page[low:high] = bytes(high - low)
        yield bytes(page)
