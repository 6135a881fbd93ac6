"""A rebuild reads packs and objects: what is good in them is used, what is bad is named, what has no place is kept."""

from __future__ import annotations

import os
import random
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from mlflow_ipfs.content.cid import CID, DAG_CBOR
from mlflow_ipfs.content.codecs.dag_cbor import encode_dagcbor
from mlflow_ipfs.content.dag import walk_blocks
from mlflow_ipfs.content.files.chunker import FixedSizeChunker
from mlflow_ipfs.content.files.file_reader import open_unixfs
from mlflow_ipfs.content.names.kinds import NameKind
from mlflow_ipfs.content.names.pins import Pin
from mlflow_ipfs.content.storage.base import Changes
from mlflow_ipfs.content.storage.local import open_local_storage
from mlflow_ipfs.content.storage.local.repair.index_backups import make_backup
from mlflow_ipfs.content.storage.local.repair.rebuild import LeftName, rebuild_index
from mlflow_ipfs.content.system.disk import Disk
from mlflow_ipfs.errors import IntegrityError
from support.lost_index import (
    damage,
    lose_index,
    make_pack,
    one_file,
)
from support.storages import (
    files_of,
    publish_blocks,
    publish_file,
    put_file,
    raw,
    rows_of,
)

if TYPE_CHECKING:
    from pathlib import Path

    from mlflow_ipfs.content.storage.local import LocalStorage


@pytest.mark.parametrize("where", ["length", "cid", "block", "header"])
@pytest.mark.parametrize("backup", [True, False])
def test_a_damaged_byte_in_a_pack_costs_one_block(directory: Path, where: str, backup: bool) -> None:
    with open_local_storage(directory) as storage:
        blocks = make_pack(storage)
        offsets = [row[0] for row in rows_of(storage, "SELECT offset FROM block ORDER BY offset")]
        if backup:
            make_backup(storage._context)
    lose_index(directory, backups=backup)
    pack = one_file(directory, "pack")
    damage(pack, {"length": offsets[40] - 38, "cid": offsets[40] - 20, "block": offsets[40] + 7, "header": 3}[where])
    report = rebuild_index(directory)
    [file] = report.damaged
    assert file.name == f"files/{pack.parent.name}/{pack.name}"
    with open_local_storage(directory) as storage:
        bad = [cid for cid, block in blocks if not is_good(storage, cid, block)]
        if where == "header" or (backup and where != "block"):
            assert bad == [], "the block itself is good, and an old index knows where it is"
        else:
            assert bad == [blocks[40][0]]
        storage.collect_garbage(grace_seconds=0)
        publish_blocks(storage, *(block for _, block in blocks))
        assert all(is_good(storage, cid, block) for cid, block in blocks), "adding it again heals"


def is_good(storage: LocalStorage, cid: CID, block: bytes) -> bool:
    try:
        return storage.blocks.get(cid) == block
    except OSError:
        return False


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_damaged_leaf_of_an_object_is_known_as_damaged(directory: Path, wrapped: bool) -> None:
    data = random.Random(1).randbytes(5000)
    with open_local_storage(directory) as storage:
        root = publish_file(storage, data, wrapped=wrapped)
        make_backup(storage._context)
    lose_index(directory)
    damage(one_file(directory, "object"), 2500)
    report = rebuild_index(directory)
    assert [file.reason for file in report.damaged] == ["1 of its 5 leaves do not hash to their CIDs"]
    assert report.incomplete == (LeftName(NameKind.PIN, "user", root),)
    with open_local_storage(directory) as storage:
        with pytest.raises(IntegrityError):
            open_unixfs(storage.blocks, root).read()
        assert open_unixfs(storage.blocks, root).read(2000) == data[:2000]
        storage.collect_garbage(grace_seconds=0)
        publish_file(storage, data, wrapped=wrapped)
        assert open_unixfs(storage.blocks, root).read() == data
        path = storage.file_path(root)
        assert path is not None
        assert path.read_bytes() == data


@pytest.mark.parametrize("change", ["cut", "grown"])
def test_an_object_of_another_size_is_damaged(directory: Path, change: str) -> None:
    with open_local_storage(directory) as storage:
        root = publish_file(storage, random.Random(1).randbytes(5000))
        make_backup(storage._context)
    lose_index(directory)
    path = one_file(directory, "object")
    path.chmod(0o644)
    os.truncate(path, 3500 if change == "cut" else 5500)
    report = rebuild_index(directory)
    assert len(report.damaged) == 1
    with open_local_storage(directory) as storage:
        assert len(open_unixfs(storage.blocks, root).read(3000)) == 3000
        with suppress(IntegrityError):
            assert storage.file_path(root) != path, "the file is not handed out as it is"


def test_an_object_of_one_leaf(directory: Path) -> None:
    with open_local_storage(directory) as storage:
        roots = [publish_file(storage, b"a" * 1000), publish_file(storage, b"b" * 1000, wrapped=True)]
        roots.append(publish_file(storage, b""))
    lose_index(directory, backups=False)
    report = rebuild_index(directory)
    assert {cid.multihash for cid in report.recovered} == {root.multihash for root in roots}
    with open_local_storage(directory) as storage:
        assert [open_unixfs(storage.blocks, root).read() for root in roots] == [b"a" * 1000, b"b" * 1000, b""]
        assert all(storage.file_path(root) is not None for root in roots)


def test_an_object_that_cannot_be_placed_is_set_aside_and_placed_later(directory: Path) -> None:
    data = random.Random(1).randbytes(5000)
    with open_local_storage(directory) as storage:
        root = publish_file(storage, data, leaf_bytes=777)
    lose_index(directory, backups=False)
    junk = directory / "files" / "ab" / "junk"
    junk.parent.mkdir(exist_ok=True)
    junk.write_bytes(b"junk")
    report = rebuild_index(directory)
    assert len(report.quarantined) == 2
    assert all(file.name.startswith("quarantine/") for file in report.quarantined)
    with open_local_storage(directory) as storage:
        storage.collect_garbage(grace_seconds=0)
        assert all((directory / file.name).exists() for file in report.quarantined), "no gc removes it"
        assert files_of(storage) == set()
    lose_index(directory)
    report = rebuild_index(directory, chunkers=[FixedSizeChunker(777)])
    assert report.quarantined == ()
    with open_local_storage(directory) as storage:
        assert open_unixfs(storage.blocks, root).read() == data
        storage.collect_garbage(grace_seconds=0)
        assert open_unixfs(storage.blocks, root).read() == data


def test_a_node_above_a_gap_stands_in_no_gcs_way(directory: Path) -> None:
    """Without names: of a directory that lacks one file everything else is kept, and a gc can walk."""
    with open_local_storage(directory) as storage:
        data = random.Random(3).randbytes(30_000)
        with storage.publish() as publication:
            root = put_file(publication, data, max_links=3)
            for number in range(70):
                publication.put(*raw(number.to_bytes(2, "big") * 500))
            publication.commit(Changes(pins=[Pin("me", root)]))
        nodes = [cid for cid, _ in walk_blocks(storage.blocks, root) if cid.codec == 0x70]
        place, offset = rows_of(
            storage,
            f"SELECT p.name, b.offset FROM block b JOIN place p ON p.id = b.place WHERE b.multihash = x'{nodes[3].multihash.hex()}'",
        )[0]
        leaves = [cid for cid, _ in walk_blocks(storage.blocks, root) if cid.codec == 0x55]
    lose_index(directory, backups=False)
    (one_file(directory, "object")).unlink()
    damage(directory / place, offset)
    report = rebuild_index(directory)
    assert report.damaged
    assert nodes[0].multihash in {cid.multihash for cid in report.recovered_incomplete}
    with open_local_storage(directory) as storage:
        storage.collect_garbage(grace_seconds=0)
        for node in nodes:
            assert storage.blocks.has(node) == (node != nodes[3])
        assert not any(storage.blocks.has(leaf) for leaf in leaves)


def test_a_bad_sector_is_damage(directory: Path) -> None:
    with open_local_storage(directory) as storage:
        data = random.Random(4).randbytes(5000)
        root = publish_file(storage, data)
        make_backup(storage._context)

    class BadSector(Disk):
        def read_at(self, descriptor: int, offset: int, length: int) -> bytes:
            if os.fstat(descriptor).st_size == 5000 and offset <= 2500 < offset + length:
                raise OSError(5, "Input/output error")
            return super().read_at(descriptor, offset, length)

    report = rebuild_index(directory, disk=BadSector())
    assert [file.reason for file in report.damaged] == ["1 of its 5 leaves do not hash to their CIDs"]
    assert report.incomplete == (LeftName(NameKind.PIN, "user", root),)


def test_progress_tells_of_all_bytes(directory: Path) -> None:
    with open_local_storage(directory) as storage:
        publish_file(storage, os.urandom(50_000))
        make_pack(storage)
    told: list[int] = []
    rebuild_index(directory, progress=told.append)
    assert sum(told) >= sum(path.stat().st_size for path in directory.glob("files/*/*"))


def test_a_node_that_a_gc_moved_as_raw_bytes_is_a_node_again(directory: Path) -> None:
    """A gc moves inline garbage to a pack without knowing what it is; it may get a name again."""
    with open_local_storage(directory) as storage:
        root = publish_file(storage, random.Random(5).randbytes(5000), owner="me")
        storage.pins.remove(root, "me")
        storage.collect_garbage(grace_seconds=3600)
        assert rows_of(storage, "SELECT count(*) FROM block WHERE data IS NOT NULL") == [(0,)]
        storage.pins.add(Pin("again", root))
    lose_index(directory, backups=False)
    assert rebuild_index(directory).recovered == (root,)


def test_links_of_every_codec_are_followed(directory: Path) -> None:
    small, large = raw(b"small"), raw(bytes(range(256)) * 400)
    block = encode_dagcbor({"a": small[0], "b": [large[0], CID.of(b"not here")]})
    top = CID.of(block, DAG_CBOR)
    with open_local_storage(directory) as storage, storage.publish() as publication:
        for cid, data in (small, large, (top, block)):
            publication.put(cid, data)
        publication.commit(Changes(pins=[Pin("me", top)]))
    lose_index(directory, backups=False)
    assert rebuild_index(directory).recovered == (top,)
    with open_local_storage(directory) as storage:
        storage.collect_garbage(grace_seconds=0)
        assert storage.blocks.get(small[0]) == b"small"


def test_of_two_files_with_the_same_content_one_is_enough(directory: Path) -> None:
    data = random.Random(6).randbytes(5000)
    with open_local_storage(directory) as storage:
        root = publish_file(storage, data)
    lose_index(directory)
    [name] = [path for path in directory.glob("files/*/*") if path.suffix != ".car"]
    copy = name.with_suffix(".000000000000")
    shutil.copyfile(name, copy)
    damage(copy, 10)
    report = rebuild_index(directory)
    assert report.incomplete == ()
    with open_local_storage(directory) as storage:
        assert storage.file_path(root) == name
        assert open_unixfs(storage.blocks, root).read() == data
        storage.collect_garbage(grace_seconds=0)
        assert not copy.exists()
        assert storage.file_path(root) == name


@pytest.mark.parametrize("seed", range(30))
def test_random_damage_to_a_pack_costs_no_block_that_it_does_not_touch(directory: Path, seed: int) -> None:
    chance = random.Random(seed)
    with open_local_storage(directory) as storage:
        blocks = make_pack(storage)
        offsets = rows_of(storage, "SELECT multihash, offset, length FROM block ORDER BY offset")
    lose_index(directory, backups=False)
    pack = one_file(directory, "pack")
    start, length = chance.randrange(pack.stat().st_size), chance.choice([1, 30, 3000])
    damage(pack, start, length)
    rebuild_index(directory)
    # Of a frame's length, CID and block nothing was touched.
    untouched = {m for m, offset, size in offsets if offset + size <= start or offset - 38 >= start + length}
    with open_local_storage(directory) as storage:
        for cid, block in blocks:
            if cid.multihash in untouched:
                assert storage.blocks.get(cid) == block
        assert len(untouched) >= len(blocks) - 5
