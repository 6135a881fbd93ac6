"""A rebuild finds the leaves of a file, by whatever chunker it was cut."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

import pytest

from mlflow_ipfs.content.dag import walk_blocks
from mlflow_ipfs.content.files.chunker import FixedSizeChunker, known_chunkers
from mlflow_ipfs.content.files.file_reader import open_unixfs
from mlflow_ipfs.content.names.pins import Pin
from mlflow_ipfs.content.profiles import PROFILES, UNIXFS_V1_2025, Profile
from mlflow_ipfs.content.storage.base import Changes
from mlflow_ipfs.content.storage.local import open_local_storage
from mlflow_ipfs.content.storage.local.repair.index_backups import make_backup
from mlflow_ipfs.content.storage.local.repair.rebuild import rebuild_index
from mlflow_ipfs.content.store import ContentStore
from support.lost_index import damage, lose_index, one_file
from support.storages import check_sound, put_file, raw, rows_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mlflow_ipfs.content.cid import CID
    from mlflow_ipfs.content.files.chunker import Chunker
    from mlflow_ipfs.content.storage.local import LocalStorage

DATA = random.Random(7).randbytes(2_500_000)


@dataclass(frozen=True)
class IrregularChunker:
    """Cuts of random lengths, which no other chunker makes."""

    seed: int = 1

    def cuts(self, file: BinaryIO, size_bytes: int) -> Iterator[int]:
        del file
        chance, end = random.Random(self.seed), 0
        while end < size_bytes:
            end = min(size_bytes, end + chance.randint(1000, 100_000))
            yield end


@dataclass(frozen=True)
class CutsAtBytes:
    """Cuts where the content says so, as content-defined chunkers do."""

    def cuts(self, file: BinaryIO, size_bytes: int) -> Iterator[int]:
        file.seek(0)
        data, end = file.read(), 0
        while end < size_bytes:
            found = data.find(b"\x00\x00", end + 1000, end + 200_000)
            end = min(size_bytes, found if found > 0 else end + 200_000)
            yield end


def add(storage: LocalStorage, file: Path, chunker: Chunker, profile: Profile = UNIXFS_V1_2025) -> CID:
    file.write_bytes(DATA)
    return ContentStore(storage, profile=profile, chunker=chunker).add(file, pin="user").cid


def check_verifies(directory: Path, root: CID) -> None:
    """The file is whole: its blocks, its bytes, and the file for readers that need a path."""
    with open_local_storage(directory) as storage:
        for _ in walk_blocks(storage.blocks, root):
            pass
        assert open_unixfs(storage.blocks, root).read() == DATA
        path = storage.file_path(root)
        assert path is not None
        assert path.read_bytes() == DATA
        check_sound(storage)
        assert storage.scrub().problems == ()


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
@pytest.mark.parametrize("chunker", known_chunkers(), ids=str)
def test_nodes_are_made_again_by_each_known_chunker(
    directory: Path, tmp_path: Path, chunker: Chunker, profile: Profile
) -> None:
    with open_local_storage(directory) as storage:
        root = add(storage, tmp_path / "file", chunker, profile)
    lose_index(directory, backups=False)
    report = rebuild_index(directory)
    assert report.is_whole
    assert [cid.multihash for cid in report.recovered] == [root.multihash]
    check_verifies(directory, root)


@pytest.mark.parametrize("chunker", [IrregularChunker(), CutsAtBytes(), FixedSizeChunker(77_777)], ids=str)
def test_a_chunker_of_the_caller_is_tried(directory: Path, tmp_path: Path, chunker: Chunker) -> None:
    with open_local_storage(directory) as storage:
        root = add(storage, tmp_path / "file", chunker)
    lose_index(directory, backups=False)
    report = rebuild_index(directory, chunkers=[IrregularChunker(seed=2), chunker])
    assert report.is_whole
    check_verifies(directory, root)


@pytest.mark.parametrize("chunker", [IrregularChunker(), FixedSizeChunker(77_777)], ids=str)
def test_readable_nodes_need_no_chunker(directory: Path, tmp_path: Path, chunker: Chunker) -> None:
    with open_local_storage(directory) as storage:
        root = add(storage, tmp_path / "file", chunker)
        make_backup(storage._context)
    lose_index(directory)
    report = rebuild_index(directory)
    assert report.is_whole
    assert report.recovered == ()
    check_verifies(directory, root)


def publish_with_nodes_in_a_pack(storage: LocalStorage, leaf_bytes: int) -> CID:
    with storage.publish() as publication:
        root = put_file(publication, DATA, leaf_bytes=leaf_bytes)
        for number in range(70):
            publication.put(*raw(number.to_bytes(2, "big") * 500))
        publication.commit(Changes(pins=[Pin("user", root)]))
    return root


def test_nodes_in_packs_need_no_chunker(directory: Path) -> None:
    with open_local_storage(directory) as storage:
        root = publish_with_nodes_in_a_pack(storage, 77_777)
    lose_index(directory, backups=False)
    assert rebuild_index(directory).quarantined == ()
    check_verifies(directory, root)


def test_an_old_index_tells_the_cuts_when_the_nodes_are_lost(directory: Path) -> None:
    with open_local_storage(directory) as storage:
        root = publish_with_nodes_in_a_pack(storage, 77_777)
        make_backup(storage._context)
    lose_index(directory)
    one_file(directory, "pack").unlink()
    report = rebuild_index(directory)
    assert (report.quarantined, report.damaged, report.incomplete) == ((), (), ())
    check_verifies(directory, root)


def test_a_lost_node_among_readable_ones_is_made_again(directory: Path) -> None:
    """Its length is that of a leaf, so that it looks like a damaged wrapped leaf at first."""
    with open_local_storage(directory) as storage:
        root = publish_with_nodes_in_a_pack(storage, 1000)
        nodes = [cid for cid, _ in walk_blocks(storage.blocks, root) if cid.codec == 0x70]
        assert len(nodes) == 4, "a root and three nodes below it"
        place, offset = rows_of(
            storage,
            "SELECT p.name, b.offset FROM block b JOIN place p ON p.id = b.place"
            f" WHERE b.multihash = x'{nodes[1].multihash.hex()}'",
        )[0]
    lose_index(directory, backups=False)
    damage(directory / place, offset + 100)
    report = rebuild_index(directory)
    assert [file.name for file in report.damaged] == [place]
    assert report.incomplete == ()
    with open_local_storage(directory) as storage:
        assert open_unixfs(storage.blocks, root).read() == DATA
        assert storage.file_path(root) is not None
