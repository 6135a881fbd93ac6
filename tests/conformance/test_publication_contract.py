"""What every ``Publication`` must do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mlflow_ipfs.content.blocks.base import MAX_BLOCK_BYTES, Leaf
from mlflow_ipfs.content.cid import CID, IDENTITY, RAW
from mlflow_ipfs.content.codecs.unixfs import LeafEncoding
from mlflow_ipfs.content.files.file_reader import open_unixfs
from mlflow_ipfs.content.names.entries import Frozen, MfsEntry
from mlflow_ipfs.content.names.kinds import NameKind, Root
from mlflow_ipfs.content.names.outbox import OutboxRow
from mlflow_ipfs.content.names.pins import USER, Pin, PinState
from mlflow_ipfs.content.storage.base import Changes
from mlflow_ipfs.errors import ConflictError, InvalidDataError, NotFoundError
from support.storages import block_of, multihashes, publish_blocks, publish_file, put_file, raw

if TYPE_CHECKING:
    from mlflow_ipfs.content.storage.base import Storage

MISSING = CID.of(b"in no store")


def entry(path: str, cid: CID, root: str = "tree") -> MfsEntry:
    return MfsEntry(root, path, cid, 3, 3, 1_700_000_000_000_000_000)


def test_nothing_is_visible_before_commit_and_all_after(storage: Storage) -> None:
    cid, data = raw(b"content")
    with storage.publish() as publication:
        publication.put(cid, data)
        root = put_file(publication, b"x" * 2500)
        assert publication.has(cid)
        assert publication.has(root)
        assert not storage.blocks.has(cid)
        assert not storage.blocks.has(root)
        assert publication.commit() > 0
        assert storage.blocks.get(cid) == data
        assert open_unixfs(storage.blocks, root).read() == b"x" * 2500


def test_leaving_without_commit_discards_everything(storage: Storage) -> None:
    with storage.publish() as publication:
        publication.put(*raw(b"content"))
        put_file(publication, b"x" * 2500)
        publication.begin_file().write(b"unfinished")
    assert list(multihashes(storage)) == []


def test_an_error_inside_discards_everything(storage: Storage) -> None:
    def fail() -> None:
        with storage.publish() as publication:
            publication.put(*raw(b"content"))
            put_file(publication, b"x" * 2500)
            msg = "stop"
            raise RuntimeError(msg)

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert list(multihashes(storage)) == []


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("size_bytes", [0, 1, 999, 1000, 1001, 2500, 250_000])
def test_every_leaf_of_a_file_is_a_block(storage: Storage, size_bytes: int, wrapped: bool) -> None:
    data = b"".join(number.to_bytes(4, "big") for number in range(size_bytes // 4 + 1))[:size_bytes]
    root = publish_file(storage, data, wrapped=wrapped)
    assert open_unixfs(storage.blocks, root).read() == data
    if size_bytes > 1000:
        block = block_of(data[:1000], wrapped=wrapped)
        assert storage.blocks.get(CID.of(block)) == block


def test_a_file_of_equal_leaves_comes_back_whole(storage: Storage) -> None:
    root = publish_file(storage, bytes(50_000))
    assert open_unixfs(storage.blocks, root).read() == bytes(50_000)


def test_leaves_that_do_not_cover_the_file_are_refused(storage: Storage) -> None:
    cid = CID.of(b"abc")
    for leaves in (
        [Leaf(cid, 0, 2, LeafEncoding.RAW)],
        [Leaf(cid, 1, 2, LeafEncoding.RAW)],
        [Leaf(cid, 0, 3, LeafEncoding.RAW), Leaf(cid, 3, 1, LeafEncoding.RAW)],
        [],
    ):
        with storage.publish() as publication:
            writer = publication.begin_file()
            writer.write(b"abc")
            with pytest.raises(InvalidDataError):
                writer.finish(cid, leaves)
            writer.discard()
            publication.commit()
    assert list(multihashes(storage)) == []


def test_what_was_written_can_be_read_back_until_the_file_is_finished(storage: Storage) -> None:
    with storage.publish() as publication:
        writer = publication.begin_file(read_back=True)
        assert writer.read_at(0, 5) == b""
        writer.write(b"abc")
        assert writer.read_at(1, 1) == b"b"
        writer.write(b"def")
        assert writer.read_at(2, 10) == b"cdef", "fewer bytes only at the end"
        assert writer.read_at(6, 1) == b""
        writer.write(b"ghi")
        writer.finish(CID.of(b"abcdefghi"), [Leaf(CID.of(b"abcdefghi"), 0, 9, LeafEncoding.RAW)])
        with pytest.raises(ValueError, match="finished or discarded"):
            writer.read_at(0, 1)
        publication.commit()
    assert storage.blocks.get(CID.of(b"abcdefghi")) == b"abcdefghi"


def test_a_discarded_file_leaves_nothing(storage: Storage) -> None:
    with storage.publish() as publication:
        writer = publication.begin_file()
        writer.write(b"abc")
        writer.discard()
        writer.discard()
        assert publication.commit() == 0
    assert list(multihashes(storage)) == []


def test_discard_after_finish_does_nothing(storage: Storage) -> None:
    with storage.publish() as publication:
        writer = publication.begin_file()
        writer.write(b"abc")
        writer.finish(CID.of(b"abc"), [Leaf(CID.of(b"abc"), 0, 3, LeafEncoding.RAW)])
        writer.discard()
        publication.commit()
    assert storage.blocks.get(CID.of(b"abc")) == b"abc"


def test_publishing_again_brings_no_new_bytes(storage: Storage) -> None:
    for expected_new in (True, False):
        with storage.publish() as publication:
            publication.put(*raw(b"small"))
            put_file(publication, b"y" * 3000)
            assert (publication.commit() > 0) is expected_new


def test_new_bytes_are_the_bytes_of_new_blocks(storage: Storage) -> None:
    publish_blocks(storage, b"known")
    with storage.publish() as publication:
        publication.put(*raw(b"known"))
        publication.put(*raw(b"brand new"))
        publication.put(*raw(b"brand new"))
        assert publication.commit() == len(b"brand new")


def test_the_same_file_twice_in_one_publication(storage: Storage) -> None:
    with storage.publish() as publication:
        first = put_file(publication, b"z" * 3000)
        second = put_file(publication, b"z" * 3000)
        publication.commit()
    assert first == second
    assert open_unixfs(storage.blocks, first).read() == b"z" * 3000


def test_a_file_known_as_single_blocks_can_be_published_as_a_file(storage: Storage) -> None:
    data = bytes(range(250)) * 10
    publish_blocks(storage, *(data[start : start + 1000] for start in range(0, 2500, 1000)))
    root = publish_file(storage, data)
    assert open_unixfs(storage.blocks, root).read() == data
    for start in range(0, 2500, 1000):
        piece = data[start : start + 1000]
        assert storage.blocks.get(CID.of(piece)) == piece


def test_the_limit_of_a_block_holds(storage: Storage) -> None:
    with storage.publish() as publication, pytest.raises(InvalidDataError):
        publication.put(*raw(bytes(MAX_BLOCK_BYTES + 1)))


def test_identity_cids_need_no_room(storage: Storage) -> None:
    cid = CID(1, RAW, bytes((IDENTITY, 2)) + b"hi")
    with storage.publish() as publication:
        assert publication.has(cid)
        publication.put(cid, b"hi")
        assert publication.commit(Changes(pins=[Pin(USER, cid)], entries=[entry("hi", cid)])) == 0
    assert list(multihashes(storage)) == []
    assert storage.collect_garbage().removed_blocks == 0


def test_names_come_with_the_blocks(storage: Storage) -> None:
    cid, data = raw(b"named")
    pin, frozen = Pin("owner", cid), Frozen("tree", "a", cid)
    with storage.publish() as publication:
        publication.put(cid, data)
        publication.commit(Changes([pin], [entry("a/b", cid)], [frozen]))
    assert list(storage.pins.list()) == [pin]
    assert storage.entries.stat("tree", "a/b") == entry("a/b", cid)
    assert list(storage.entries.list_frozen()) == [frozen]


def test_pins_are_removed_and_outbox_rows_added_in_the_same_step(storage: Storage) -> None:
    old, new = publish_blocks(storage, b"old", b"new")
    row = OutboxRow("replica", "pin", new, "version/1")
    with storage.publish() as publication:
        changes = Changes(pins=[Pin("version/1", new)], unpins=[Pin(USER, old), Pin(USER, new), Pin("nobody", old)])
        changes.outbox.append(row)
        publication.commit(changes)
    assert list(storage.pins.list()) == [Pin("version/1", new)]
    assert [root for root in storage.roots() if root.kind is NameKind.OUTBOX] == [
        Root(NameKind.OUTBOX, "replica version/1", new)
    ]
    storage.pins.remove(new, "version/1")
    assert storage.collect_garbage().removed_blocks == 1, "what is to be sent is kept"
    assert storage.blocks.get(new) == b"new"


def test_removing_and_adding_the_same_pin_keeps_it(storage: Storage) -> None:
    [cid] = publish_blocks(storage, b"kept")
    with storage.publish() as publication:
        publication.commit(Changes(pins=[Pin(USER, cid)], unpins=[Pin(USER, cid, PinState.PENDING)]))
    assert list(storage.pins.list()) == [Pin(USER, cid)]


def test_a_failed_commit_removes_no_pin(storage: Storage) -> None:
    [cid] = publish_blocks(storage, b"kept")
    with storage.publish() as publication, pytest.raises(NotFoundError):
        publication.commit(Changes(pins=[Pin(USER, MISSING)], unpins=[Pin(USER, cid)]))
    assert list(storage.pins.list()) == [Pin(USER, cid)]


@pytest.mark.parametrize(
    "changes",
    [
        Changes(pins=[Pin(USER, MISSING)]),
        Changes(outbox=[OutboxRow("replica", "pin", MISSING)]),
        Changes(entries=[entry("a", MISSING)]),
        Changes(frozen=[Frozen("tree", "a", MISSING)]),
    ],
    ids=["pin", "outbox", "entry", "frozen"],
)
def test_a_name_for_something_missing_keeps_nothing(storage: Storage, changes: Changes) -> None:
    cid, data = raw(b"would be new")
    changes.pins.append(Pin("other", cid))
    with storage.publish() as publication:
        publication.put(cid, data)
        with pytest.raises(NotFoundError, match=str(MISSING)):
            publication.commit(changes)
    assert not storage.blocks.has(cid)
    assert not list(storage.pins.list())
    assert storage.entries.stat("tree", "a") is None


def test_a_conflict_keeps_nothing(storage: Storage) -> None:
    [cid] = publish_blocks(storage, b"abc", owner=None)
    with storage.publish() as publication:
        publication.commit(Changes(entries=[entry("a/b", cid)]))
    new, data = raw(b"would be new")
    with storage.publish() as publication:
        publication.put(new, data)
        with pytest.raises(ConflictError):
            publication.commit(Changes(pins=[Pin(USER, new)], entries=[entry("z", new), entry("a/b/c", new)]))
    assert not storage.blocks.has(new)
    assert not list(storage.pins.list())
    assert storage.entries.stat("tree", "z") is None


def test_a_publication_ends_with_commit(storage: Storage) -> None:
    with storage.publish() as publication:
        publication.commit()
        with pytest.raises(ValueError, match="ended"):
            publication.put(*raw(b"too late"))
        with pytest.raises(ValueError, match="ended"):
            publication.commit()


def test_publications_side_by_side(storage: Storage) -> None:
    with storage.publish() as first, storage.publish() as second:
        first.put(*raw(b"both"))
        second.put(*raw(b"both"))
        root = put_file(first, b"q" * 5000)
        assert put_file(second, b"q" * 5000) == root
        first.commit()
        second.commit(Changes(pins=[Pin(USER, root), Pin(USER, CID.of(b"both"))]))
    storage.collect_garbage()
    assert storage.blocks.get(CID.of(b"both")) == b"both"
    assert open_unixfs(storage.blocks, root).read() == b"q" * 5000
