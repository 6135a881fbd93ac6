"""Names of the storage in memory: pins, refs, notes and entries in dicts."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mlflow_ipfs.content.names.entries import MfsDirectory, MfsEntry
from mlflow_ipfs.content.names.kinds import NameKind, Root
from mlflow_ipfs.content.names.pins import USER, Pin
from mlflow_ipfs.content.names.refs import Ref
from mlflow_ipfs.content.storage.validation import (
    changed_meanwhile,
    check_ref_version,
    directory_in_the_way,
    file_in_the_way,
    unknown_pin,
    unknown_ref,
    unknown_root,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from mlflow_ipfs.content.cid import CID
    from mlflow_ipfs.content.names.entries import Frozen
    from mlflow_ipfs.content.names.outbox import OutboxRow


@dataclass(slots=True)
class MemoryState:
    """The whole state of a storage in memory, guarded by one lock."""

    blocks: dict[bytes, bytes] = field(default_factory=dict)
    cached: set[bytes] = field(default_factory=set)  # blocks that are only in the cache; they are never evicted
    pins: dict[tuple[str, bytes], Pin] = field(default_factory=dict)
    refs: dict[str, Ref] = field(default_factory=dict)
    entries: dict[str, dict[str, MfsEntry]] = field(default_factory=dict)
    frozen: set[Frozen] = field(default_factory=set)
    outbox: list[OutboxRow] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)
    publications: int = 0
    holds: list[set[bytes]] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def require(self, cid: CID) -> None:
        """Raise if the root block of a CID is not in memory."""
        if cid.identity_data is None and cid.multihash not in self.blocks:
            raise unknown_root(cid)

    def check_expected(self, expected: Mapping[tuple[str, str], CID | None]) -> None:
        """Raise if a file is not the one that the caller saw."""
        for (root, path), cid in expected.items():
            found = self.entries.get(root, {}).get(path)
            if (None if found is None else found.cid) != cid:
                raise changed_meanwhile(root, path)

    def put_entries(self, new: Sequence[MfsEntry]) -> None:
        """Add files, all or none of them."""
        trees = {root: dict(tree) for root, tree in self.entries.items()}
        for entry in new:
            trees.setdefault(entry.root, {})[entry.path] = entry
        for root, path in {(entry.root, entry.path) for entry in new}:
            _check_conflicts(trees[root], root, path)
        self.entries = trees

    def roots(self) -> Iterator[CID]:
        """Yield the CID of every name."""
        yield from (pin.cid for pin in self.pins.values())
        yield from (ref.cid for ref in self.refs.values())
        yield from (entry.cid for tree in self.entries.values() for entry in tree.values())
        yield from (frozen.cid for frozen in self.frozen)
        yield from (row.cid for row in self.outbox)

    def names(self) -> Iterator[tuple[NameKind, str, CID]]:
        """Yield the kind, the name and the CID of every name."""
        for root_name in self.root_names():
            if root_name.cid is not None:
                yield root_name.kind, root_name.name, root_name.cid
        for root, tree in self.entries.items():
            yield from ((NameKind.FILE, f"mfs://{root}/{path}", entry.cid) for path, entry in tree.items())

    def root_names(self) -> Iterator[Root]:
        """Yield every name as reports show it, with one item for the files of a directory."""
        yield from (Root(NameKind.PIN, pin.owner, pin.cid) for _, pin in sorted(self.pins.items()))
        yield from (Root(NameKind.REF, ref.name, ref.cid) for _, ref in sorted(self.refs.items()))
        directories: dict[tuple[bytes, bytes], list[MfsEntry]] = {}
        for root, tree in self.entries.items():
            for entry in tree.values():
                directories.setdefault((_by_bytes(root), _by_bytes(entry.path.rpartition("/")[0])), []).append(entry)
        for _, entries in sorted(directories.items()):
            uri = f"mfs://{entries[0].root}/{entries[0].path.rpartition('/')[0]}".removesuffix("/")
            yield Root(
                NameKind.FILE,
                uri,
                None,
                sum(not entry.is_mark for entry in entries),
                sum(entry.size_bytes for entry in entries),
            )
        for frozen in sorted(self.frozen, key=lambda frozen: (frozen.root, frozen.path, bytes(frozen.cid))):
            yield Root(NameKind.FROZEN, f"mfs://{frozen.root}/{frozen.path}".removesuffix("/"), frozen.cid)
        yield from (Root(NameKind.OUTBOX, row.label, row.cid) for row in self.outbox)


def _check_conflicts(tree: dict[str, MfsEntry], root: str, path: str) -> None:
    if not path or any(other.startswith(f"{path}/") for other in tree):
        raise directory_in_the_way(root, path)
    parts = path.split("/")
    for depth in range(1, len(parts)):
        above = "/".join(parts[:depth])
        if above in tree:
            raise file_in_the_way(root, above)


def _by_bytes(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")


class MemoryPins:
    """Pins in a dict; see ``Pins``."""

    def __init__(self, state: MemoryState) -> None:
        self._state = state

    def add(self, pin: Pin) -> None:
        """Add a pin, or set its state."""
        with self._state.changed:
            self._state.require(pin.cid)
            self._state.pins[pin.owner, bytes(pin.cid)] = pin

    def replace(self, old: Pin, new: Pin) -> None:
        """Replace one pin by another."""
        with self._state.changed:
            self._state.require(new.cid)
            if self._state.pins.get((old.owner, bytes(old.cid))) != old:
                raise unknown_pin(old)
            del self._state.pins[old.owner, bytes(old.cid)]
            self._state.pins[new.owner, bytes(new.cid)] = new

    def remove(self, cid: CID, owner: str = USER) -> bool:
        """Remove the pin of one owner."""
        with self._state.changed:
            return self._state.pins.pop((owner, bytes(cid)), None) is not None

    def list(self, *, owner_prefix: str = "", cid: CID | None = None) -> Iterator[Pin]:
        """Yield pins in order of owner."""
        with self._state.changed:
            pins = [self._state.pins[key] for key in sorted(self._state.pins)]
        return (pin for pin in pins if pin.owner.startswith(owner_prefix) and cid in (None, pin.cid))


class MemoryNotes:
    """Notes in a dict; see ``Notes``."""

    def __init__(self, state: MemoryState) -> None:
        self._state = state

    def set(self, key: str, value: str) -> None:
        """Write a note."""
        with self._state.changed:
            self._state.notes[key] = value

    def delete(self, key: str) -> bool:
        """Delete a note."""
        with self._state.changed:
            return self._state.notes.pop(key, None) is not None

    def list(self, prefix: str = "") -> Mapping[str, str]:
        """Return the notes whose keys start with a prefix, in order of key."""
        with self._state.changed:
            return {key: value for key, value in sorted(self._state.notes.items()) if key.startswith(prefix)}


class MemoryRefs:
    """Refs in a dict; see ``Refs``."""

    def __init__(self, state: MemoryState) -> None:
        self._state = state

    def get(self, name: str) -> Ref:
        """Return a ref."""
        with self._state.changed:
            ref = self._state.refs.get(name)
        if ref is None:
            raise unknown_ref(name)
        return ref

    def set(self, name: str, cid: CID, *, expected_version: int) -> Ref:
        """Point a ref at a CID if the ref has the expected version."""
        with self._state.changed:
            self._state.require(cid)
            check_ref_version(name, self._state.refs.get(name), expected_version)
            ref = self._state.refs[name] = Ref(name, cid, expected_version + 1)
            return ref

    def delete(self, name: str, *, expected_version: int) -> None:
        """Delete a ref if it has the expected version."""
        with self._state.changed:
            check_ref_version(name, self._state.refs.get(name), expected_version)
            self._state.refs.pop(name, None)

    def list(self, prefix: str = "") -> Iterator[Ref]:
        """Yield the refs whose names start with a prefix, in order of name."""
        with self._state.changed:
            refs = [self._state.refs[name] for name in sorted(self._state.refs)]
        return (ref for ref in refs if ref.name.startswith(prefix))


class MemoryEntries:
    """Mutable trees in dicts; see ``Entries``."""

    def __init__(self, state: MemoryState) -> None:
        self._state = state

    def _tree(self, root: str) -> dict[str, MfsEntry]:
        with self._state.changed:
            return dict(self._state.entries.get(root, {}))

    def stat(self, root: str, path: str) -> MfsEntry | MfsDirectory | None:
        """Return the file or the implied directory at a path, or None."""
        tree = self._tree(root)
        if path in tree:
            return tree[path]
        below = f"{path}/" if path else ""
        return MfsDirectory(root, path) if any(other.startswith(below) for other in tree) else None

    def list(self, root: str, path: str) -> Sequence[MfsEntry | MfsDirectory]:
        """Return the files and directories directly in a directory, by name in byte order."""
        below = f"{path}/" if path else ""
        found: dict[str, MfsEntry | MfsDirectory] = {}
        for other, entry in self._tree(root).items():
            if other.startswith(below):
                name, slash, _ = other.removeprefix(below).partition("/")
                found[name] = MfsDirectory(root, below + name) if slash else entry
        return [found[name] for name in sorted(found, key=_by_bytes)]

    def walk(self, root: str, path: str) -> Sequence[MfsEntry]:
        """Return the file at ``path``, or every file below it, in order of path bytes."""
        tree = self._tree(root)
        return [tree[other] for other in sorted(tree, key=_by_bytes) if _is_at_or_below(path, other)]

    def delete(self, root: str, path: str) -> int:
        """Delete the file at ``path`` and every file below it."""
        with self._state.changed:
            tree = self._state.entries.get(root, {})
            deleted = [other for other in tree if _is_at_or_below(path, other)]
            for other in deleted:
                del tree[other]
        return len(deleted)

    def freeze(self, frozen: Frozen) -> None:
        """Permit reading a CID below a path."""
        with self._state.changed:
            self._state.require(frozen.cid)
            self._state.frozen.add(frozen)

    def unfreeze(self, frozen: Frozen) -> bool:
        """Withdraw a permission."""
        with self._state.changed:
            existed = frozen in self._state.frozen
            self._state.frozen.discard(frozen)
        return existed

    def is_frozen(self, frozen: Frozen) -> bool:
        """Return whether the CID may be read below the path."""
        return frozen in self._state.frozen

    def list_frozen(self) -> Iterator[Frozen]:
        """Yield every permission, in order of root and path."""
        with self._state.changed:
            frozen = list(self._state.frozen)
        return iter(sorted(frozen, key=lambda item: (_by_bytes(item.root), _by_bytes(item.path), bytes(item.cid))))


def _is_at_or_below(path: str, other: str) -> bool:
    """Return whether ``other`` is the file at a path, or a file below it."""
    return not path or other == path or other.startswith(f"{path}/")
