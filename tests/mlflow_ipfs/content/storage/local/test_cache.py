"""The cache: blocks that may go, the longest unused first, but never what somebody reads or what has a name."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from mlflow_ipfs.content.cid import CID, DAG_PB
from mlflow_ipfs.content.codecs.dag_pb import Link, encode_node
from mlflow_ipfs.content.codecs.unixfs import LeafEncoding, NodeType, UnixFSData, encode_data
from mlflow_ipfs.content.dag import walk_blocks
from mlflow_ipfs.content.files.file_reader import open_unixfs
from mlflow_ipfs.content.files.leaf_pipeline import hash_leaf
from mlflow_ipfs.content.files.node_builder import NodeBuilder
from mlflow_ipfs.content.names.entries import Frozen, MfsEntry
from mlflow_ipfs.content.names.pins import USER, Pin
from mlflow_ipfs.content.profiles import UNIXFS_V1_2025
from mlflow_ipfs.content.storage.base import Changes
from mlflow_ipfs.content.storage.local import open_local_storage
from mlflow_ipfs.content.storage.local.gc.eviction import Evicted, evict
from mlflow_ipfs.content.storage.local.index.cache_rows import cached_bytes
from mlflow_ipfs.content.storage.local.publishing import object_writer, promotion
from mlflow_ipfs.errors import IntegrityError, StoreBusyError
from support.processes import fork_child
from support.storages import check_sound, delete_block, files_of, publish_blocks, publish_file, put_file, raw, rows_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mlflow_ipfs.content.storage.local import LocalStorage


def cache_blocks(storage: LocalStorage, *blocks: bytes) -> list[CID]:
    with storage.publish(in_cache=True) as publication:
        for block in blocks:
            publication.put(*raw(block))
        publication.commit()
    return [CID.of(block) for block in blocks]


def cache_file(storage: LocalStorage, data: bytes) -> CID:
    with storage.publish(in_cache=True) as publication:
        root = put_file(publication, data)
        publication.commit()
    return root


def classes(storage: LocalStorage) -> list[str]:
    return [row[0] for row in rows_of(storage, "SELECT class FROM place ORDER BY id")]


def age(storage: LocalStorage, name_of: CID, seconds: int) -> None:
    """Let the file that holds a block have been used last some time ago."""
    with storage._context.database.write() as connection:
        connection.execute(
            "UPDATE place SET last_used = last_used - ? WHERE id = (SELECT place FROM block WHERE multihash = ?)",
            (seconds, name_of.multihash),
        )


def test_cached_blocks_can_be_read(storage: LocalStorage) -> None:
    [cid] = cache_blocks(storage, b"cached")
    assert storage.blocks.get(cid) == b"cached"
    assert classes(storage) == ["cache"]
    assert rows_of(storage, "SELECT count(*) FROM block WHERE data IS NOT NULL") == [(0,)]  # inline there is no class


def test_a_cached_file_has_a_path(storage: LocalStorage) -> None:
    root = cache_file(storage, b"f" * 5000)
    path = storage.file_path(root)
    assert path is not None
    assert path.read_bytes() == b"f" * 5000


def test_gc_is_not_about_the_cache(storage: LocalStorage) -> None:
    [cid] = cache_blocks(storage, b"cached")
    for dry_run in (True, False):
        assert storage.collect_garbage(dry_run=dry_run).removed_blocks == 0
    assert storage.blocks.get(cid) == b"cached"


def test_the_longest_unused_goes_first(directory: Path) -> None:
    with open_local_storage(directory, cache_bytes=3 * 70_000) as storage:
        cids = [cache_blocks(storage, bytes([number]) * 65_000)[0] for number in range(3)]
        for seconds, cid in zip((2000, 4000, 3000), cids, strict=True):
            age(storage, cid, seconds)
        storage.blocks.get(cids[1])  # used now
        new = cache_blocks(storage, b"new" * 20_000)
        assert [storage.blocks.has(cid) for cid in cids] == [True, True, False]
        assert storage.blocks.has(new[0])
        with storage._context.database.read() as connection:
            assert cached_bytes(connection) <= 3 * 70_000
        assert len(files_of(storage)) == 3
        check_sound(storage)


def test_a_store_with_less_room_lets_the_rest_go_at_gc(storage: LocalStorage, directory: Path) -> None:
    [cid] = cache_blocks(storage, b"cached" * 100)
    storage.close()
    with open_local_storage(directory, cache_bytes=0) as smaller:
        smaller.collect_garbage()
        assert not smaller.blocks.has(cid)
        assert files_of(smaller) == set()


def test_what_is_cached_counts_as_absent_for_who_publishes(storage: LocalStorage) -> None:
    cache_blocks(storage, b"b" * 100)
    root = cache_file(storage, b"f" * 5000)
    with storage.publish() as publication:
        assert not publication.has(CID.of(b"b" * 100))
    publish_blocks(storage, b"b" * 100)
    assert publish_file(storage, b"f" * 5000) == root
    assert rows_of(storage, "SELECT count(*) FROM block b JOIN place p ON p.id = b.place WHERE class = 'cache'") == [
        (0,)
    ]
    check_sound(storage)


def test_what_is_kept_is_not_cached_again(storage: LocalStorage) -> None:
    publish_blocks(storage, b"b" * 100)
    publish_file(storage, b"f" * 5000)
    before = files_of(storage)
    cache_blocks(storage, b"b" * 100)
    cache_file(storage, b"f" * 5000)
    assert files_of(storage) == before
    assert "cache" not in classes(storage)


def test_the_cache_takes_no_names(storage: LocalStorage) -> None:
    with storage.publish(in_cache=True) as publication:
        publication.put(*raw(b"cached"))
        with pytest.raises(ValueError, match="no name"):
            publication.commit(Changes(pins=[Pin(USER, CID.of(b"cached"))]))


NAMES: dict[str, Callable[[LocalStorage, CID], object]] = {
    "pin": lambda storage, cid: storage.pins.add(Pin(USER, cid)),
    "ref": lambda storage, cid: storage.refs.set("main", cid, expected_version=0),
    "frozen": lambda storage, cid: storage.entries.freeze(Frozen("tree", "run", cid)),
    "entry": lambda storage, cid: commit(storage, Changes(entries=[MfsEntry("tree", "a", cid, 1, 2, 3)])),
    "pin of a publication": lambda storage, cid: commit(storage, Changes(pins=[Pin(USER, cid)])),
}


def commit(storage: LocalStorage, changes: Changes) -> None:
    with storage.publish() as publication:
        publication.put(*raw(b"beside it"))
        publication.commit(changes)


@pytest.mark.parametrize("name", NAMES)
def test_what_gets_a_name_is_kept_from_then_on(storage: LocalStorage, directory: Path, name: str) -> None:
    data = os.urandom(5000)
    root = cache_file(storage, data)
    other = cache_blocks(storage, b"other")
    NAMES[name](storage, root)
    storage.close()
    with open_local_storage(directory, cache_bytes=0) as again:
        again.collect_garbage()
        assert not again.blocks.has(other[0])
        assert open_unixfs(again.blocks, root).read() == data
        check_sound(again)


def test_a_directory_around_cached_content_keeps_it(storage: LocalStorage) -> None:
    root = cache_file(storage, b"f" * 5000)
    with storage.publish() as publication:
        outer = put_file(publication, b"new" * 1000)
        publication.commit(Changes(pins=[Pin(USER, outer)], entries=[MfsEntry("tree", "a", root, 1, 2, 3)]))
    assert "cache" not in classes(storage)


def test_damage_in_the_cache_is_never_promoted(storage: LocalStorage, directory: Path) -> None:
    root = cache_file(storage, b"f" * 2500)
    [name] = [name for name in files_of(storage) if not name.endswith(".car")]
    path = directory / name
    path.chmod(0o644)
    path.write_bytes(b"!" + path.read_bytes()[1:])
    with pytest.raises(IntegrityError, match="fetch the content again"):
        storage.pins.add(Pin(USER, root))
    assert list(storage.pins.list()) == []


def test_nothing_that_a_process_reads_is_evicted(storage: LocalStorage, directory: Path) -> None:
    root = cache_file(storage, b"f" * 5000)
    path = storage.file_path(root)
    assert path is not None
    with open_local_storage(directory, cache_bytes=0) as other:
        other.collect_garbage()
        assert path.read_bytes() == b"f" * 5000
        storage.close()
        other.collect_garbage()
        assert not path.exists()
        assert not other.blocks.has(root)


def test_the_lease_of_a_process_ends_with_it(storage: LocalStorage, directory: Path) -> None:
    root = cache_file(storage, b"f" * 5000)

    def give_out() -> None:
        path = open_local_storage(directory).file_path(root)
        assert path is not None
        with open_local_storage(directory, cache_bytes=0) as other:
            other.collect_garbage()
            assert path.exists()
        os._exit(0)  # without closing anything

    assert os.waitpid(fork_child(give_out), 0)[1] == 0
    storage.close()
    with open_local_storage(directory, cache_bytes=0) as other:
        other.collect_garbage()
        assert not other.blocks.has(root)


def test_a_forked_child_does_not_keep_its_parent_s_leases(storage: LocalStorage, directory: Path) -> None:
    root = cache_file(storage, b"f" * 5000)
    assert storage.file_path(root) is not None
    reader, writer = os.pipe()

    def live_on() -> None:
        os.close(writer)
        os.read(reader, 1)  # until the parent says so

    child = fork_child(live_on)
    try:
        storage.close()
        with open_local_storage(directory, cache_bytes=0) as other:
            other.collect_garbage()
            assert not other.blocks.has(root)
    finally:
        os.close(writer)
        os.waitpid(child, 0)


def test_a_published_file_outlives_its_cached_twin(storage: LocalStorage, directory: Path) -> None:
    root = cache_file(storage, b"f" * 5000)
    publish_file(storage, b"f" * 5000)
    storage.close()
    with open_local_storage(directory, cache_bytes=0) as other:
        other.collect_garbage()
        path = other.file_path(root)
        assert path is not None
        assert path.read_bytes() == b"f" * 5000
        assert [len(block) for _, block in walk_blocks(other.blocks, root)]
        check_sound(other)


def test_a_process_does_not_lease_more_than_half_of_the_cache(directory: Path) -> None:
    with open_local_storage(directory, cache_bytes=24_000) as storage:
        paths = []
        for number in range(4):
            path = storage.file_path(cache_file(storage, bytes([number]) * 5000))
            assert path is not None
            paths.append(path)
        evict(storage._context, 0)
        assert [path.exists() for path in paths] == [False, False, True, True]


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_evicted_while_it_gets_a_name(directory: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_local_storage(directory) as storage, open_local_storage(directory) as other:
        root = cache_file(storage, b"f" * 5000)
        verify = promotion._verify
        freed = []

        def evict_and_verify(*args: Any) -> None:
            freed.append(evict(other._context, 0))
            verify(*args)

        monkeypatch.setattr(promotion, "_verify", evict_and_verify)
        NAMES[name](storage, root)
        assert set(freed) == {Evicted()}
        assert open_unixfs(storage.blocks, root).read() == b"f" * 5000
        assert not list(directory.glob("sessions/publication-*"))
        assert evict(other._context, 0) == Evicted()  # it is the store's own now


def test_the_cache_takes_nothing_out_of_deletable_files(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Content that is named in its grace period stays where it is, even if the cache gets a copy."""
    monkeypatch.setattr(object_writer, "DEDUPE_BYTES", 4000)
    data = os.urandom(10_000)
    with open_local_storage(directory) as storage:
        first = publish_file(storage, data)
        second = publish_file(storage, b"new" * 500 + data[1500:])
        for root in (first, second):
            storage.pins.remove(root)
        storage.collect_garbage(grace_seconds=3600)
        storage.pins.add(Pin(USER, second))
        assert storage.ensure_file(second) is not None
    with open_local_storage(directory, cache_bytes=0) as storage:
        storage.collect_garbage()
        assert open_unixfs(storage.blocks, second).read() == b"new" * 500 + data[1500:]


def test_the_cache_takes_nothing_out_of_damaged_files(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_writer, "DEDUPE_BYTES", 4000)
    blocks = [os.urandom(1000) for _ in range(80)]
    with open_local_storage(directory) as storage:
        with storage.publish() as publication:
            bad = raw(b"bad" * 300)
            for block in [bad, *map(raw, blocks)]:
                publication.put(*block)
            subtrees = [hash_leaf(block, LeafEncoding.RAW, 1) for block in blocks]
            root = NodeBuilder(publication.put, UNIXFS_V1_2025).build_file(subtrees).cid
            publication.commit(Changes(pins=[Pin(USER, root), Pin(USER, bad[0])]))
        [pack] = directory.glob("files/*/*.car")
        pack.chmod(0o644)
        pack.write_bytes(pack.read_bytes().replace(b"bad" * 300, b"BAD" * 300))
        with pytest.raises(IntegrityError):
            storage.blocks.get(bad[0])
        assert storage.ensure_file(root) is not None
    with open_local_storage(directory, cache_bytes=0) as storage:
        storage.collect_garbage()
        assert open_unixfs(storage.blocks, root).read() == b"".join(blocks)


def test_gc_says_what_it_evicted_and_a_dry_run_what_it_would(directory: Path) -> None:
    with open_local_storage(directory) as storage:
        cids = [cache_blocks(storage, bytes([number]) * 70_000)[0] for number in range(3)]
        for days, cid in enumerate(cids):
            age(storage, cid, -days)
        report = storage.collect_garbage()
        assert (report.evicted_files, report.evicted_bytes) == (0, 0)
    with open_local_storage(directory, cache_bytes=80_000) as smaller:
        sizes = rows_of(smaller, "SELECT size FROM place WHERE class = 'cache' ORDER BY last_used LIMIT 2")
        expected = (2, sum(size for (size,) in sizes))
        for dry_run in (True, False):
            report = smaller.collect_garbage(dry_run=dry_run)
            assert (report.evicted_files, report.evicted_bytes, report.freed_bytes) == (*expected, 0)
        assert smaller.collect_garbage().evicted_files == 0
        assert [smaller.blocks.has(cid) for cid in cids] == [False, False, True]


def test_what_is_not_complete_gets_a_name_whatever_is_in_the_cache(storage: LocalStorage) -> None:
    """As without a cache: of names, the store asks only for the root."""
    root = publish_file(storage, b"w" * 70_000, wrapped=True)
    for cid in {cid for cid, _ in walk_blocks(storage.blocks, root)} - {root}:
        delete_block(storage, cid)
    [cached] = cache_blocks(storage, b"cached")
    storage.pins.add(Pin("another", root))
    assert {pin.owner for pin in storage.pins.list()} == {USER, "another"}
    assert storage.blocks.get(cached) == b"cached"


def test_what_is_below_a_missing_node_does_not_keep_the_rest_in_the_cache(storage: LocalStorage) -> None:
    with storage.publish(in_cache=True) as publication:
        here, gone = put_file(publication, b"h" * 5000), put_file(publication, b"g" * 5000)
        directory = encode_node([Link(here, b"here"), Link(gone, b"gone")], encode_data(UnixFSData(NodeType.DIRECTORY)))
        root = CID.of(directory, DAG_PB)
        publication.put(root, directory)
        publication.commit()
    delete_block(storage, gone)
    storage.pins.add(Pin(USER, root))
    evict(storage._context, 0)
    assert open_unixfs(storage.blocks, here).read() == b"h" * 5000


def test_what_a_name_was_missing_is_kept_once_it_was_fetched(storage: LocalStorage) -> None:
    root = publish_file(storage, b"m" * 5000)
    lost = {cid for cid, _ in walk_blocks(storage.blocks, root)}
    for cid in lost:
        delete_block(storage, cid)
    assert cache_file(storage, b"m" * 5000) == root
    other = cache_file(storage, b"other" * 1000)
    storage.collect_garbage(grace_seconds=0)
    evict(storage._context, 0)
    assert open_unixfs(storage.blocks, root).read() == b"m" * 5000
    assert not storage.blocks.has(other)
    check_sound(storage)


@pytest.mark.parametrize("is_root", [True, False])
def test_a_node_that_comes_while_a_name_is_given_is_followed(
    storage: LocalStorage, directory: Path, monkeypatch: pytest.MonkeyPatch, is_root: bool
) -> None:
    [leaf] = cache_blocks(storage, b"leaf" * 20_000)
    node, top = (
        encode_node([Link(below, b"x", 1)], encode_data(UnixFSData(NodeType.DIRECTORY)))
        for below in (
            leaf,
            CID.of(encode_node([Link(leaf, b"x", 1)], encode_data(UnixFSData(NodeType.DIRECTORY))), DAG_PB),
        )
    )
    with storage.publish() as publication:
        publication.put(CID.of(top, DAG_PB), top)
        publication.commit()
    look = promotion._promote

    def look_and_let_it_come(*arguments: Any) -> Any:
        seen = look(*arguments)
        with open_local_storage(directory) as other, other.publish() as publication:
            publication.put(CID.of(node, DAG_PB), node)
            publication.commit()
        return seen

    monkeypatch.setattr(promotion, "_promote", look_and_let_it_come)
    storage.pins.add(Pin(USER, CID.of(node if is_root else top, DAG_PB)))
    evict(storage._context, 0)
    assert storage.blocks.get(leaf) == b"leaf" * 20_000


def test_a_publication_that_only_removes_names_reports_a_busy_cache(
    storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    [cid] = cache_blocks(storage, b"cached" * 20_000)
    monkeypatch.setattr(promotion, "_promote", lambda *_: promotion._CheckedState(changes=-1))
    with storage.publish() as publication, pytest.raises(StoreBusyError, match="names of the publication"):
        publication.commit(Changes(unpins=[Pin(USER, cid)]))
