"""Scrubbing: damage that no stamp shows is found, wherever the block lies."""

from __future__ import annotations

import os
import sqlite3
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from mlflow_ipfs.content.codecs.dag_pb import Link
from mlflow_ipfs.content.files.file_reader import open_unixfs
from mlflow_ipfs.content.files.node_builder import NodeBuilder
from mlflow_ipfs.content.names.pins import USER, Pin
from mlflow_ipfs.content.profiles import UNIXFS_V1_2025
from mlflow_ipfs.content.storage.base import Changes
from support.storages import check_sound, files_of, multihashes, publish_blocks, publish_file, raw

if TYPE_CHECKING:
    from pathlib import Path

    from mlflow_ipfs.content.cid import CID
    from mlflow_ipfs.content.storage.local import LocalStorage


def flip_unseen(path: Path, needle: bytes) -> None:
    """Flip a bit where ``needle`` stands, and leave size and time as they were: like a bad sector."""
    status = path.stat()
    data = bytearray(path.read_bytes())
    data[data.index(needle)] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    path.chmod(0o444)


def publish_pack(storage: LocalStorage) -> list[CID]:
    blocks = [raw(b"%03d" % number * 400) for number in range(100)]
    with storage.publish() as publication:
        for cid, data in blocks:
            publication.put(cid, data)
        publication.commit(Changes(pins=[Pin(USER, cid) for cid, _ in blocks]))
    return [cid for cid, _ in blocks]


@pytest.mark.parametrize("wrapped", [True, False])
def test_a_file_that_is_a_single_leaf_is_looked_at_like_any(storage: LocalStorage, wrapped: bool) -> None:
    root = publish_file(storage, b"\xff" * 1000, wrapped=wrapped)
    publish_file(storage, b"\xff" * 1000 + b"more", wrapped=wrapped)
    assert storage.scrub().problems == ()
    path = storage.file_path(root)
    assert path is not None
    flip_unseen(path, b"\xff")
    assert [cid.multihash for cid, _ in storage.scrub().problems] == [root.multihash]


def test_a_sound_store_has_no_problems_and_everything_is_read(storage: LocalStorage) -> None:
    publish_pack(storage)
    publish_blocks(storage, b"inline")
    publish_file(storage, os.urandom(50_000))
    read: list[int] = []
    report = storage.scrub(read.append)
    assert report.problems == ()
    assert report.size_bytes == sum(read) == storage.measure_usage([]).all_bytes
    assert report.blocks == len(list(multihashes(storage)))


def test_an_object_of_a_single_leaf_has_no_nodes_to_walk(storage: LocalStorage) -> None:
    for wrapped in (False, True):
        publish_file(storage, os.urandom(1000), wrapped=wrapped)
    report = storage.scrub()
    assert report.problems == ()
    assert report.blocks == 2


def test_a_bad_block_of_a_pack_is_named_and_healed_by_adding_it_again(storage: LocalStorage) -> None:
    cids = publish_pack(storage)
    [name] = files_of(storage)
    flip_unseen(storage.directory / name, b"042" * 400)
    report = storage.scrub()
    assert [cid for cid, _ in report.problems] == [cids[42]]
    assert "damaged between bytes" in report.problems[0][1]
    assert report.blocks == 100
    publish_pack(storage)
    check_sound(storage)


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_bad_object_is_set_aside_and_healed_by_adding_it_again(storage: LocalStorage, *, wrapped: bool) -> None:
    data = os.urandom(30_000)
    root = publish_file(storage, data, wrapped=wrapped)
    path = storage.file_path(root)
    assert path is not None
    flip_unseen(path, data[12_000:12_100])
    assert storage.file_path(root) == path, "the stamp is as it was"
    [(cid, reason)] = storage.scrub().problems
    assert cid.multihash == root.multihash
    assert "quarantine" in reason
    assert not path.exists()
    publish_file(storage, data, wrapped=wrapped)
    assert open_unixfs(storage.blocks, root).read() == data
    assert storage.file_path(root) is not None


def test_bytes_of_an_object_whose_leaves_lie_in_another_one_are_hashed(storage: LocalStorage) -> None:
    data = os.urandom(8000)
    publish_file(storage, data)
    second = publish_file(storage, data, max_links=3)
    path = storage.file_path(second)
    assert path is not None
    flip_unseen(path, data[:100])
    report = storage.scrub()
    assert report.problems == ()
    assert [cid.multihash for cid in report.healed] == [second.multihash]  # from the leaves in the other one
    assert storage.scrub().healed == ()


def test_a_bad_inline_block_is_named(storage: LocalStorage, directory: Path) -> None:
    [cid] = publish_blocks(storage, b"inline")
    with sqlite3.connect(directory / "store.db") as connection:
        connection.execute("UPDATE block SET data = x'00' WHERE multihash = ?", (cid.multihash,))
    assert [problem for problem, _ in storage.scrub().problems] == [cid]


def test_a_missing_file_is_named(storage: LocalStorage) -> None:
    cids = publish_pack(storage)
    [name] = files_of(storage)
    (storage.directory / name).unlink()
    assert {cid for cid, _ in storage.scrub().problems} == set(cids)


@pytest.mark.usefixtures("large_files_begin_early")
def test_who_needs_a_bad_leaf_of_another_file_is_affected(storage: LocalStorage) -> None:
    data = os.urandom(20_000)
    first = publish_file(storage, data)
    second = publish_file(storage, os.urandom(2000) + data[2000:], owner="second")
    third = publish_file(storage, data[:2000] + os.urandom(1000) + data[3000:], owner="third")
    path = storage.file_path(first)
    assert path is not None
    assert (storage.file_path(second), storage.file_path(third)) == (None, None)  # they lie in pieces
    flip_unseen(path, data[:1000])
    [(damaged, _)] = storage.scrub().problems
    assert damaged == first
    assert [name.name for name in storage.find_affected([damaged]).names] == ["third", USER]
    [(leaf, _)] = storage.scrub().problems  # from now on the leaf itself is named
    assert [name.name for name in storage.find_affected([leaf]).names] == ["third", USER]


def test_deep_below_a_thousand_directories_damage_is_found_by_one_walk(storage: LocalStorage) -> None:
    [leaf, sound] = publish_blocks(storage, b"leaf", b"sound", owner=None)
    with storage.publish() as publication:
        nodes = NodeBuilder(publication.put, UNIXFS_V1_2025)
        link = nodes.build_directory([Link(leaf, b"leaf", 4)])
        pins = [Pin("bottom", link.cid)]
        for number in range(1000):
            link = nodes.build_directory([replace(link, name=b"deeper"), Link(sound, b"%d" % number, 5)])
        pins.append(Pin("top", link.cid))
        pins.append(Pin("beside", nodes.build_directory([Link(sound, b"sound", 5)]).cid))
        publication.commit(Changes(pins=pins))
    report = storage.find_affected([leaf])
    assert [name.name for name in report.names] == ["bottom", "top"]
    assert report.unneeded == ()
    assert [name.name for name in storage.find_affected([sound]).names] == ["beside", "top"]


def test_of_one_name_a_hundred_damaged_blocks_are_named_and_all_count_as_needed(storage: LocalStorage) -> None:
    cids = publish_blocks(storage, *[b"%d" % number for number in range(150)], owner=None)
    with storage.publish() as publication:
        directory = NodeBuilder(publication.put, UNIXFS_V1_2025).build_directory(
            [Link(cid, b"%d" % number, 1) for number, cid in enumerate(cids)]
        )
        publication.commit(Changes(pins=[Pin(USER, directory.cid)]))
    report = storage.find_affected(cids)
    assert [len(name.damaged) for name in report.names] == [100]
    assert report.unneeded == ()
