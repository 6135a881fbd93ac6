"""Damage is named or healed, never handed on."""

from __future__ import annotations

import errno
import os
import re
import sqlite3
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from mlflow_ipfs.content.cid import CID, DAG_CBOR, DAG_PB, RAW
from mlflow_ipfs.content.codecs.unixfs import encode_leaf
from mlflow_ipfs.content.dag import walk_blocks
from mlflow_ipfs.content.files.file_reader import open_unixfs
from mlflow_ipfs.content.names.pins import USER, Pin
from mlflow_ipfs.content.storage.local import open_local_storage
from mlflow_ipfs.content.system.disk import Disk
from mlflow_ipfs.errors import IntegrityError
from support.storages import files_of, multihashes, publish_blocks, publish_file, rows_of

if TYPE_CHECKING:
    from pathlib import Path

    from mlflow_ipfs.content.storage.local import LocalStorage

DATA = bytes(range(250)) * 20  # five leaves of 1000 bytes, all equal


def unequal(size_bytes: int = 5000) -> bytes:
    return b"".join(number.to_bytes(4, "big") for number in range(size_bytes // 4))


def overwrite(path: Path, offset: int, data: bytes, *, keep_stamp: bool = False) -> None:
    status = path.stat()
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)
    if keep_stamp:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def object_path(storage: LocalStorage, root: CID) -> Path:
    path = storage.file_path(root)
    assert path is not None
    return path


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("data", [unequal(), DATA, b"", b"one leaf"], ids=["unequal", "equal", "empty", "one"])
def test_a_new_stamp_with_the_same_bytes_is_accepted(storage: LocalStorage, data: bytes, wrapped: bool) -> None:
    root = publish_file(storage, data, wrapped=wrapped)
    path = object_path(storage, root)
    os.utime(path, ns=(1, 1))
    assert storage.file_path(root) == path
    assert rows_of(storage, "SELECT mtime_ns FROM place WHERE root IS NOT NULL") == [(1,)]


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("offset", [0, 999, 1000, 2500, 4999])
def test_a_changed_byte_is_found_by_the_stamp(storage: LocalStorage, offset: int, wrapped: bool) -> None:
    data = unequal()
    root = publish_file(storage, data, wrapped=wrapped)
    path = object_path(storage, root)
    overwrite(path, offset, b"\xff")
    with pytest.raises(IntegrityError, match=re.escape(str(path))) as caught:
        storage.file_path(root)
    assert str(root) in str(caught.value)
    assert not path.exists()
    [aside] = (storage.directory / "quarantine").iterdir()
    assert aside.stat().st_size == len(data)
    assert storage.file_path(root) is None


@pytest.mark.parametrize("size_bytes", [0, 1, 4999])
def test_a_changed_size_is_found(storage: LocalStorage, size_bytes: int) -> None:
    root = publish_file(storage, unequal())
    path = object_path(storage, root)
    path.chmod(0o644)
    os.truncate(path, size_bytes)
    with pytest.raises(IntegrityError, match=str(root)):
        storage.file_path(root)


def test_a_missing_file_is_named(storage: LocalStorage) -> None:
    root = publish_file(storage, unequal())
    path = object_path(storage, root)
    path.unlink()
    with pytest.raises(IntegrityError, match=re.escape(str(path))):
        storage.blocks.get(CID.of(unequal()[:1000]))
    with pytest.raises(IntegrityError, match="is missing"):
        storage.file_path(root)


def test_rot_that_leaves_the_stamp_alone_is_found_by_reading_blocks(storage: LocalStorage) -> None:
    data = unequal()
    root = publish_file(storage, data)
    path = object_path(storage, root)
    overwrite(path, 2500, b"\xff", keep_stamp=True)
    assert storage.file_path(root) == path  # said in the README: a path is handed out on the stamp's word
    damaged = CID.of(data[2000:3000])
    with pytest.raises(IntegrityError, match=str(damaged)) as caught:
        storage.blocks.get(damaged)
    assert str(path) in str(caught.value)
    assert "bytes 2000 and 3000" in str(caught.value)
    assert path.exists(), "reading a block removes nothing"
    assert storage.blocks.get(CID.of(data[:1000])) == data[:1000]
    with pytest.raises(IntegrityError):  # known to be damaged now, so the stamp no longer counts
        storage.file_path(root)


def test_verify_always_finds_rot(directory: Path) -> None:
    with open_local_storage(directory, verify_always=True) as storage:
        root = publish_file(storage, unequal())
        path = object_path(storage, root)
        overwrite(path, 2500, b"\xff", keep_stamp=True)
        with pytest.raises(IntegrityError, match=str(CID.of(unequal()[2000:3000]))):
            storage.file_path(root)


@pytest.mark.parametrize("wrapped", [False, True])
def test_adding_a_damaged_file_again_heals_it(storage: LocalStorage, wrapped: bool) -> None:
    data = unequal()
    root = publish_file(storage, data, wrapped=wrapped)
    overwrite(object_path(storage, root), 2500, b"\xff")
    with pytest.raises(IntegrityError):
        storage.file_path(root)
    publish_file(storage, data, wrapped=wrapped)
    assert object_path(storage, root).read_bytes() == data
    assert len(list(walk_blocks(storage.blocks, root))) == 6
    storage.collect_garbage()
    assert list((storage.directory / "quarantine").iterdir()) == [], "nothing is read from there any more"
    assert object_path(storage, root).read_bytes() == data


def test_damage_nobody_has_met_yet_is_healed_too(storage: LocalStorage) -> None:
    data = unequal()
    root = publish_file(storage, data)
    overwrite(object_path(storage, root), 2500, b"\xff")
    publish_file(storage, data)
    assert object_path(storage, root).read_bytes() == data


def test_what_is_undamaged_in_a_file_set_aside_can_still_be_read(storage: LocalStorage) -> None:
    data = unequal()
    root = publish_file(storage, data)
    overwrite(object_path(storage, root), 2500, b"\xff")
    with pytest.raises(IntegrityError):
        storage.file_path(root)
    for start in (0, 1000, 3000, 4000):
        assert storage.blocks.get(CID.of(data[start : start + 1000])) == data[start : start + 1000]
    with pytest.raises(IntegrityError, match="quarantine"):
        storage.blocks.get(CID.of(data[2000:3000]))


def test_a_damaged_block_in_a_pack_is_named_and_healed(storage: LocalStorage) -> None:
    blocks = [number.to_bytes(4, "big") * 250 for number in range(100)]
    cids = publish_blocks(storage, *blocks)
    [name] = files_of(storage)
    path = storage.directory / name
    overwrite(path, path.read_bytes().index(blocks[50]) + 7, b"\xff")
    with pytest.raises(IntegrityError, match=str(cids[50])) as caught:
        storage.blocks.get(cids[50])
    assert name in str(caught.value)
    assert storage.blocks.get(cids[51]) == blocks[51]
    publish_blocks(storage, *blocks)
    assert [storage.blocks.get(cid) for cid in cids] == blocks


def test_a_missing_pack_is_healed(storage: LocalStorage) -> None:
    blocks = [number.to_bytes(4, "big") * 250 for number in range(100)]
    cids = publish_blocks(storage, *blocks)
    [name] = files_of(storage)
    (storage.directory / name).unlink()
    with pytest.raises(IntegrityError, match="is missing"):
        storage.blocks.get(cids[0])
    publish_blocks(storage, *blocks)
    assert [storage.blocks.get(cid) for cid in cids] == blocks


def test_a_damaged_inline_block_names_the_index(storage: LocalStorage) -> None:
    [cid] = publish_blocks(storage, b"right")
    with storage._context.database.write() as connection:
        connection.execute("UPDATE block SET data = ?", (b"wrong",))
    with pytest.raises(IntegrityError, match=r"store\.db"):
        storage.blocks.get(cid)


def test_a_damaged_node_is_named_and_its_file_is_left_alone(storage: LocalStorage) -> None:
    root = publish_file(storage, unequal())
    path = object_path(storage, root)
    with storage._context.database.write() as connection:
        connection.execute("UPDATE block SET data = ? WHERE multihash = ?", (b"wrong", root.multihash))
    os.utime(path, ns=(1, 1))
    with pytest.raises(IntegrityError, match=str(root)):
        storage.file_path(root)
    assert path.exists(), "the object may well be whole"


def test_a_copy_of_a_store_is_checked_before_it_is_trusted(storage: LocalStorage, tmp_path: Path) -> None:
    root = publish_file(storage, unequal())
    storage.close()
    copy = tmp_path / "copy"
    os.system(f"cp -r {storage.directory} {copy}")
    with open_local_storage(copy) as copied:
        path = object_path(copied, root)  # new inodes: hashed once
        assert path.is_relative_to(copy)
        overwrite(path, 0, b"\xff")
        with pytest.raises(IntegrityError, match=str(root)):
            copied.file_path(root)
    with open_local_storage(storage.directory) as original:
        assert object_path(original, root).read_bytes() == unequal()


def test_gc_drops_a_damaged_file_that_nobody_needs(storage: LocalStorage) -> None:
    root = publish_file(storage, unequal(), owner=None)
    overwrite(object_path(storage, root), 2500, b"\xff")
    with pytest.raises(IntegrityError):
        storage.file_path(root)
    storage.collect_garbage()
    assert list((storage.directory / "quarantine").iterdir()) == []
    assert list(multihashes(storage)) == []


@pytest.mark.parametrize("verify_always", [False, True])
def test_an_object_is_the_file_of_one_codec_only(directory: Path, verify_always: bool) -> None:
    """The multihash of a file's root names two things: the file, and the bytes of its node."""
    with open_local_storage(directory, verify_always=verify_always) as storage:
        root = publish_file(storage, unequal())
        leaf = publish_file(storage, b"x" * 1000)  # one leaf, which is its own root
        for cid, data in ((root, unequal()), (CID.of(b"x" * 1000), b"x" * 1000)):
            path = storage.file_path(cid)
            assert path is not None
            assert path.read_bytes() == data
        assert leaf == CID.of(b"x" * 1000)
        for other in (CID(1, RAW, root.multihash), CID(1, DAG_CBOR, root.multihash), CID(1, DAG_PB, leaf.multihash)):
            assert storage.file_path(other) is None
            assert storage.ensure_file(other) is None
        assert storage.file_path(root) is not None
        assert not list((directory / "quarantine").iterdir())


def test_wrapped_bytes_and_the_wrapping_as_bytes_are_two_files(storage: LocalStorage) -> None:
    piece = b"p" * 1000
    wrapped = publish_file(storage, piece, wrapped=True)
    same = publish_file(storage, encode_leaf(piece), leaf_bytes=2000)
    assert wrapped.multihash == same.multihash
    assert open_unixfs(storage.blocks, wrapped).read() == piece
    assert open_unixfs(storage.blocks, same).read() == encode_leaf(piece)
    for cid, data in ((wrapped, piece), (same, encode_leaf(piece))):
        path = storage.file_path(cid)
        assert path is None or path.read_bytes() == data


def test_a_rotten_inline_block_is_healed_by_adding_it(storage: LocalStorage, directory: Path) -> None:
    [cid] = publish_blocks(storage, b"inline")
    with sqlite3.connect(directory / "store.db") as connection:
        connection.execute("UPDATE block SET data = x'00' WHERE multihash = ?", (cid.multihash,))
    for _ in range(2):
        with pytest.raises(IntegrityError, match="Add the content again"):
            storage.blocks.get(cid)
    publish_blocks(storage, b"inline")
    assert storage.blocks.get(cid) == b"inline"
    storage.collect_garbage()
    assert storage.scrub().problems == ()


class FailingCommit(Disk):
    """The commit after a file got its second name fails."""

    fails = False

    def link(self, source: Path, destination: Path) -> None:
        super().link(source, destination)
        self.fails = True

    def commit(self, connection: sqlite3.Connection) -> None:
        if self.fails:
            self.fails = False
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        super().commit(connection)


def test_what_could_not_be_set_aside_keeps_its_sound_leaves(directory: Path) -> None:
    with open_local_storage(directory, disk=FailingCommit()) as storage:
        root = publish_file(storage, unequal())
        overwrite(object_path(storage, root), 2500, b"\xff")
        for _ in range(2):
            with pytest.raises(IntegrityError):
                storage.file_path(root)
        leaves = [CID.of(unequal()[start : start + 1000]) for start in range(0, 5000, 1000)]
        found = []
        for leaf in leaves:
            with suppress(IntegrityError):
                found.append(storage.blocks.get(leaf))
        assert len(found) == 4


def test_gc_goes_on_beside_a_pack_that_is_gone(storage: LocalStorage) -> None:
    blocks = [number.to_bytes(2, "big") * 500 for number in range(80)]
    cids = publish_blocks(storage, *blocks, owner=None)
    storage.pins.add(Pin(USER, cids[0]))
    [name] = files_of(storage)
    (storage.directory / name).unlink()
    garbage = publish_blocks(storage, os.urandom(70_000), owner=None)
    storage.collect_garbage()
    assert not storage.blocks.has(garbage[0])
    with pytest.raises(IntegrityError):
        storage.blocks.get(cids[0])


def test_damage_among_many_blocks_ends_there_and_is_noted(storage: LocalStorage) -> None:
    root = publish_file(storage, unequal())
    leaves = [cid for cid, _ in walk_blocks(storage.blocks, root) if cid.codec == RAW]
    overwrite(object_path(storage, root), 2500, b"rot")
    blocks = storage.blocks.get_many(leaves)
    assert [CID.of(next(blocks)) for _ in range(2)] == leaves[:2]
    with pytest.raises(IntegrityError, match=f"{leaves[2]} .* is damaged between bytes 2000 and 3000"):
        next(blocks)
    assert rows_of(storage, "SELECT count(*) FROM place WHERE damaged") == [(1,)]


def test_many_blocks_can_be_read_while_they_move(storage: LocalStorage) -> None:
    root = publish_file(storage, unequal())
    leaves = [cid for cid, _ in walk_blocks(storage.blocks, root) if cid.codec == RAW]
    blocks = storage.blocks.get_many(leaves)
    read = [next(blocks)]
    object_path(storage, root).rename(storage.directory / "away")  # still open in the generator
    read += blocks
    assert b"".join(read) == unequal()
    with pytest.raises(IntegrityError, match="is missing"):
        list(storage.blocks.get_many(leaves))


def test_reading_many_blocks_leaves_no_file_open(storage: LocalStorage) -> None:
    roots = [publish_file(storage, unequal() + bytes([number]) * 1000) for number in range(40)]
    leaves = [cid for root in roots for cid, _ in walk_blocks(storage.blocks, root) if cid.codec == RAW]
    before = len(os.listdir("/proc/self/fd"))
    blocks = storage.blocks.get_many(leaves)
    for cid in leaves[:-1]:
        assert cid.matches(next(blocks))
    assert before < len(os.listdir("/proc/self/fd")) <= before + 32
    blocks.close()
    assert len(os.listdir("/proc/self/fd")) == before
