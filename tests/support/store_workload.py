"""Workload for a local store with every kind of step, and checks after it was interrupted at any step."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mlflow_ipfs.content.cid import CID
from mlflow_ipfs.content.dag import walk_blocks
from mlflow_ipfs.content.files.file_reader import open_unixfs
from mlflow_ipfs.content.names.entries import Frozen, MfsEntry
from mlflow_ipfs.content.names.pins import Pin, PinState
from mlflow_ipfs.content.storage.base import Changes
from mlflow_ipfs.content.storage.local.gc.eviction import evict
from support.storages import check_sound, delete_block, files_of, leftovers, multihashes, put_file, raw, rows_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlflow_ipfs.content.storage.local import LocalStorage

TREE = "tree"
_UNEQUAL = b"".join(number.to_bytes(4, "big") for number in range(3000))


@dataclass(frozen=True)
class Names:
    """All names in a store that keep content, as users see them."""

    pins: frozenset[Pin] = frozenset()
    refs: frozenset[Any] = frozenset()
    entries: frozenset[MfsEntry] = frozenset()
    frozen: frozenset[Frozen] = frozenset()

    def roots(self) -> set[CID]:
        """Return the CIDs that the names keep."""
        return {named.cid for names in (self.pins, self.refs, self.entries, self.frozen) for named in names}


def names_of(storage: LocalStorage) -> Names:
    """Return the names in a store."""
    return Names(
        frozenset(storage.pins.list()),
        frozenset(storage.refs.list()),
        frozenset(storage.entries.walk(TREE, "")),
        frozenset(storage.entries.list_frozen()),
    )


@dataclass
class Workload:
    """Steps to execute one by one. Each step changes names in at most one transaction.

    Attributes:
        contents: data of every file that was published.
    """

    contents: dict[CID, bytes] = field(default_factory=dict)
    similar: CID = field(default_factory=lambda: CID.of(b""))
    cached: CID = field(default_factory=lambda: CID.of(b""))

    def steps(self, seed: int | None = None) -> list[Callable[[LocalStorage], None]]:
        """Return the steps in a useful order, or with a seed, the same number of steps in random order."""
        steps: list[Callable[[LocalStorage], None]] = [
            self.publish_mixture, self.publish_pack, self.publish_inline, self.publish_again, self.name_things,
            self.forget_things, self.collect, self.delete_block, self.collect, self.publish_what_is_gone,
            self.publish_mixture_two, self.publish_large, self.publish_similar, self.publish_more_similar,
            self.ask_for_path, self.cache_things, self.name_cached, self.forget_large, self.collect, self.drop_cache,
        ]  # fmt: skip
        return steps if seed is None else random.Random(seed).choices(steps, k=len(steps))

    def _put(self, publication: Any, seed: bytes, size_bytes: int, **options: Any) -> CID:
        data = (seed * (size_bytes // len(seed) + 1))[:size_bytes]
        root = put_file(publication, data, **options)
        self.contents[root] = data
        return root

    def _publish_mixture(self, storage: LocalStorage, seed: bytes) -> None:
        """Publish two objects, one of them with wrapped leaves, and a pack, with every kind of name."""
        with storage.publish() as publication:
            big = self._put(publication, seed + b"big", 5000)
            old = self._put(publication, seed + b"old", 3500, wrapped=True)
            small = [raw(seed + number.to_bytes(2, "big") * 500) for number in range(70)]
            for block in small:
                publication.put(*block)
            changes = Changes(
                pins=[Pin("run/1", big), Pin("run/1", small[0][0], PinState.PENDING)],
                entries=[MfsEntry(TREE, f"{seed.decode()}/old", old, 3500, 3600, 1)],
                frozen=[Frozen(TREE, seed.decode(), big)],
            )
            publication.commit(changes)

    def publish_mixture(self, storage: LocalStorage) -> None:
        self._publish_mixture(storage, b"one")

    def publish_mixture_two(self, storage: LocalStorage) -> None:
        self._publish_mixture(storage, b"two")

    def publish_pack(self, storage: LocalStorage) -> None:
        with storage.publish() as publication:
            blocks = [raw(b"pack" + number.to_bytes(2, "big") * 500) for number in range(80)]
            for block in blocks:
                publication.put(*block)
            publication.commit(Changes(pins=[Pin("pack", cid) for cid, _ in blocks[::20]]))

    def publish_inline(self, storage: LocalStorage) -> None:
        with storage.publish() as publication:
            for number in range(4):
                publication.put(*raw(b"inline" * (number + 1)))
            publication.commit(Changes(pins=[Pin("inline", CID.of(b"inline" * 4))]))

    def publish_again(self, storage: LocalStorage) -> None:
        """Publish the same content for another owner, which relies on the stored blocks."""
        with storage.publish() as publication:
            root = self._put(publication, b"onebig", 5000)
            publication.commit(Changes(pins=[Pin("run/2", root)]))

    def name_things(self, storage: LocalStorage) -> None:
        version = next((ref.version for ref in storage.refs.list("main")), 0)
        root = next((cid for cid in self.contents if storage.blocks.has(cid)), None)
        if root is not None:
            storage.refs.set("main", root, expected_version=version)

    def forget_things(self, storage: LocalStorage) -> None:
        storage.entries.delete(TREE, "one")

    def collect(self, storage: LocalStorage) -> None:
        storage.collect_garbage(grace_seconds=0)

    def delete_block(self, storage: LocalStorage) -> None:
        delete_block(storage, CID.of(b"inline"))

    def publish_large(self, storage: LocalStorage) -> None:
        """Publish a large file: ``object_dedupe.DEDUPE_BYTES`` is set low."""
        self._publish_and_pin(storage, _UNEQUAL, "large")

    def publish_similar(self, storage: LocalStorage) -> None:
        self.similar = self._publish_and_pin(storage, b"changed" * 1000 + _UNEQUAL[7000:], "similar")

    def publish_more_similar(self, storage: LocalStorage) -> None:
        self.similar = self._publish_and_pin(storage, b"y" * 1000 + _UNEQUAL[1000:], "more similar")

    def _publish_and_pin(self, storage: LocalStorage, data: bytes, owner: str) -> CID:
        with storage.publish() as publication:
            root = self._put(publication, data, len(data))
            publication.commit(Changes(pins=[Pin(owner, root)]))
        return root

    def ask_for_path(self, storage: LocalStorage) -> None:
        if storage.blocks.has(self.similar):
            path = storage.ensure_file(self.similar)
            assert path is None or path.read_bytes() == self.contents[self.similar]

    def cache_things(self, storage: LocalStorage) -> None:
        with storage.publish(in_cache=True) as publication:
            self.cached = self._put(publication, b"cached", 4000)
            self._put(publication, b"only cached", 4000)
            publication.commit()

    def name_cached(self, storage: LocalStorage) -> None:
        self.cache_things(storage)  # after a failed attempt, gc may have dropped the cached content
        storage.pins.add(Pin("from the cache", self.cached))

    def forget_large(self, storage: LocalStorage) -> None:
        for pin in list(storage.pins.list(owner_prefix="large")):
            storage.pins.remove(pin.cid, pin.owner)

    def drop_cache(self, storage: LocalStorage) -> None:
        evict(storage._context, 0)

    def publish_what_is_gone(self, storage: LocalStorage) -> None:
        with storage.publish() as publication:
            root = self._put(publication, b"oneold", 3500, wrapped=True)
            publication.commit(Changes(pins=[Pin("back", root)]))


def check_whole(storage: LocalStorage, contents: dict[CID, bytes]) -> None:
    """Check that all content with a name is complete, by block, by file and by path."""
    for root in names_of(storage).roots():
        for _ in walk_blocks(storage.blocks, root):
            pass
        if root in contents:
            assert open_unixfs(storage.blocks, root).read() == contents[root]
            path = storage.file_path(root)
            assert path is None or path.read_bytes() == contents[root]
    for multihash in multihashes(storage):
        storage.blocks.get(CID(1, 0x55, multihash))


def check_usable(storage: LocalStorage, contents: dict[CID, bytes]) -> None:
    """Check that gc leaves no residue and deletes no needed content, and that publishing works."""
    before = names_of(storage)
    storage.collect_garbage(grace_seconds=0)
    check_no_residue(storage)
    assert names_of(storage) == before
    with storage.publish() as publication:
        root = put_file(publication, b"published afterwards" * 200)
        publication.commit(Changes(pins=[Pin("afterwards", root)]))
    assert open_unixfs(storage.blocks, root).read() == b"published afterwards" * 200
    check_whole(storage, contents)
    check_sound(storage)


def check_no_residue(storage: LocalStorage) -> None:
    """Check that the store contains no drafts and no files without a row."""
    assert not leftovers(storage.directory)
    assert files_of(storage) == {row[0] for row in rows_of(storage, "SELECT name FROM place")}
