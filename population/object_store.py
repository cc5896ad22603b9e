"""Decides where the objects of a repository are: in packs that grow by rounds, and loose where git itself wrote them.

Each round writes one new pack: what was added, and the contents of the packs that are no larger, whose files are then
removed. So n objects lie in about log n packs, an object is copied about log n times, and a round costs two files
however many objects it has. Several processes may add and read at once: a pack is removed only after all it holds is
under another name, and a reader that finds a file gone lists the folder again.
"""

from __future__ import annotations

import errno
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from population.disk import Disk
from population.drafts import PREFIX, Drafts
from population.errors import InfrastructureError, RepositoryError
from population.git_objects import GitObject, Kind
from population.packs import MAX_OBJECT_BYTES, Pack, Packed, make_index, make_pack, packed

Found = TypeVar("Found")
_LARGE_BYTES = 16 << 20
"""A pack of this size is not copied any more: a round must not take long."""
_RECENT_BYTES = 32 << 20
"""Kept in memory of what was read."""
_KNOWN = 1 << 16
"""Objects whose kinds are kept in memory."""
_LISTINGS = 50
"""Each that fails means that another process has just published or merged packs, which cannot go on for ever."""
_GONE = (errno.ENOENT, errno.ESTALE)


class _Recent:
    """Objects that were read lately: a name is a content, and most files of a child are those of its parent."""

    def __init__(self) -> None:
        self._objects: OrderedDict[str, GitObject] = OrderedDict()
        self._bytes = 0

    def get(self, sha: str) -> GitObject | None:
        found = self._objects.get(sha)
        if found is not None:
            self._objects.move_to_end(sha)
        return found

    def keep(self, item: GitObject) -> None:
        if item.sha in self._objects or len(item.data) > _RECENT_BYTES // 8:
            return
        self._objects[item.sha] = item
        self._bytes += len(item.data)
        while self._bytes > _RECENT_BYTES:
            self._bytes -= len(self._objects.popitem(last=False)[1].data)


class ObjectStore:
    """The objects of one repository, as one process sees them."""

    def __init__(self, folder: Path, disk: Disk, ask_git: Callable[[str], GitObject | None]) -> None:
        """`ask_git` reads what is stored as a difference."""
        self._folder, self._disk, self._ask_git = folder, disk, ask_git
        self._packs: dict[str, Pack] = {}
        self._new: dict[str, tuple[GitObject, Packed | None]] = {}
        self._merged: list[Pack] = []
        self._kept: set[str] = set()
        """Packs with a companion (`.keep`, `.bitmap`, `.rev`, …): git's own, which stay as they are."""
        self._listed = False
        self._recent = _Recent()
        self._kinds: dict[str, Kind] = {}
        """Of objects that were found here: what is in a repository stays."""

    @property
    def pack_folder(self) -> Path:
        return self._folder / "pack"

    # --- reading ------------------------------------------------------------------------------------------------------

    def kind(self, sha: str) -> Kind | None:
        """What an object is, None if it is not here."""
        if sha in self._new:
            return self._new[sha][0].kind
        if sha not in self._kinds:
            kind = self._kind(sha)
            if kind is None:
                return None
            if len(self._kinds) >= _KNOWN:
                self._kinds.clear()
            self._kinds[sha] = kind
        return self._kinds[sha]

    def _kind(self, sha: str) -> Kind | None:
        found = self._look(sha, lambda pack, at: pack.kind(at) or "difference")
        if found is None or found == "difference":
            whole = self._loose(sha) if found is None else self._ask_git(sha)
            return whole.kind if whole is not None else None
        return found

    def read(self, sha: str) -> GitObject | None:
        """An object whose content matches its name, None if it is not here.

        Raises:
            RepositoryError: it is damaged.
        """
        known = self._new[sha][0] if sha in self._new else self._recent.get(sha)
        if known is not None:
            return known
        found = self._look(sha, Pack.read)
        if found is None:
            found = self._loose(sha)
        elif found == "difference":
            found = self._ask_git(sha)
        if found is not None and found.sha != sha:
            raise RepositoryError(f"{self._folder}: object {sha} is damaged: it has the content of {found.sha}")
        if found is not None:
            self._recent.keep(found)
        return found

    def _look(self, sha: str, take: Callable[[Pack, int], Found]) -> Found | None:
        """Found in a pack; what another process has packed since is looked for before None is said."""
        name = bytes.fromhex(sha)
        for again in (False, True):
            if (again or not self._listed) and not self._list() and again:
                return None
            try:
                for pack in self._packs.values():
                    at = pack.find(name)
                    if at is not None:
                        return take(pack, at)
            except OSError as error:
                if error.errno not in _GONE or again:
                    raise InfrastructureError(f"{self._folder}: cannot be read: {error.strerror}") from error
        return None

    def _list(self) -> bool:
        """Look which packs there are; whether that has changed."""
        for _ in range(_LISTINGS):  # a pack that vanishes while the folder is listed is in another one
            try:
                found = {name for name in self._disk.names(self.pack_folder) if not name.startswith(PREFIX)}
                # A power cut may leave an index without its pack; git leaves it alone, too.
                names = {name for name in found if name.endswith(".idx") and f"{name[:-4]}.pack" in found}
                fresh = {n: Pack(self.pack_folder / n, self._disk) for n in names - self._packs.keys()}
            except OSError as error:
                if error.errno not in _GONE:
                    raise InfrastructureError(f"{self.pack_folder}: cannot be read: {error.strerror}") from error
                continue
            changed = bool(fresh) or not self._packs.keys() <= names
            kept = {name: pack for name, pack in self._packs.items() if name in names}
            self._packs = fresh | kept
            self._kept = {name.partition(".")[0] for name in found if not name.endswith((".idx", ".pack"))}
            self._listed = True
            return changed
        raise RepositoryError(f"{self.pack_folder}: expected to list the packs, but they keep vanishing")

    def _loose(self, sha: str) -> GitObject | None:
        path = self._folder / sha[:2] / sha[2:]
        try:
            data = self._disk.read(path, 0, None)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise InfrastructureError(f"{path}: cannot be read: {error.strerror}") from error
        stream = zlib.decompressobj()
        try:
            head, _, body = stream.decompress(data, MAX_OBJECT_BYTES + 64).partition(b"\0")
        except zlib.error as error:
            raise RepositoryError(f"{path}: damaged: {error}") from None
        kind, _, size = head.decode("ascii", errors="replace").partition(" ")
        if kind not in ("blob", "tree", "commit") or not stream.eof or size != str(len(body)):
            raise RepositoryError(f"{path}: expected a whole object of at most {MAX_OBJECT_BYTES} bytes, got {head!r}")
        return GitObject(kind, body)  # type: ignore[arg-type]  # checked above

    # --- writing ------------------------------------------------------------------------------------------------------

    def add(self, objects: Iterable[tuple[GitObject, Packed | None]]) -> None:
        """Objects of the next round, compressed already or not; this process can read them at once."""
        self._new |= {item.sha: (item, entry) for item, entry in objects}

    def draft(self, drafts: Drafts) -> None:
        """The round's pack, unless all of it is here already."""
        if not self._new:
            return
        if not self._listed:
            self._list()
        new = [made for sha, made in self._new.items() if not self._is_packed(bytes.fromhex(sha))]
        fresh = [entry or packed(item) for item, entry in new]
        if not fresh:
            drafts.rely_on(self.pack_folder)
            return
        entries = self._with_small_packs({entry.sha: entry for entry in fresh})
        pack = make_pack(entries)
        place = self.pack_folder / f"pack-{pack[-20:].hex()}"
        drafts.add(place.with_suffix(".pack"), pack)
        drafts.add(place.with_suffix(".idx"), make_index(entries, pack))

    def settle(self) -> None:
        """The round is published: what it holds twice is removed."""
        if len(self._kinds) + len(self._new) > _KNOWN:
            self._kinds.clear()
        for sha, (item, _) in self._new.items():
            self._kinds[sha] = item.kind
            self._recent.keep(item)
        self._new.clear()
        self._listed = False
        for pack in self._merged:
            self._packs.pop(pack.index.name, None)
            for path in (pack.index, pack.path):
                with suppress(OSError):  # another process may have been first; what stays does no harm
                    self._disk.remove(path)
        self._merged.clear()

    def drop(self) -> None:
        """The round is given up."""
        self._new.clear()
        self._merged.clear()

    def _is_packed(self, sha: bytes) -> bool:
        return any(pack.find(sha) is not None for pack in self._packs.values())

    def _with_small_packs(self, entries: dict[bytes, Packed]) -> list[Packed]:
        """The new entries with those of all packs that are no larger, smallest first."""
        size = sum(len(entry.entry) for entry in entries.values())
        for pack in sorted(self._packs.values(), key=lambda pack: pack.count):
            if pack.count > len(entries) or size > _LARGE_BYTES:
                break
            with suppress(OSError):
                if pack.index.stem not in self._kept and (inside := pack.entries()) is not None:
                    entries |= {entry.sha: entry for entry in inside}
                    size += sum(len(entry.entry) for entry in inside)
                    self._merged.append(pack)
        return list(entries.values())
