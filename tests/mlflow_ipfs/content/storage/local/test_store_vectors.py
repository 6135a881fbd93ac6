"""Stores that earlier versions made: each later version opens them, reads all of it, publishes and collects.

They come out of git with other modes, times and inodes, without empty directories and without a reserve: like a store
that was copied file by file.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mlflow_ipfs.content.cid import CID
from mlflow_ipfs.content.dag import walk_blocks
from mlflow_ipfs.content.files.file_reader import open_unixfs
from mlflow_ipfs.content.names.entries import Frozen
from mlflow_ipfs.content.names.pins import Pin
from mlflow_ipfs.content.storage.base import Changes
from mlflow_ipfs.content.storage.local import open_local_storage
from mlflow_ipfs.content.storage.local.backup.index_copy import copy_index
from mlflow_ipfs.errors import IntegrityError
from support.storages import check_sound, files_of, multihashes, publish_file, put_file, rows_of

if TYPE_CHECKING:
    from mlflow_ipfs.content.storage.base import Storage
    from mlflow_ipfs.content.storage.local import LocalStorage

VECTORS = Path(__file__).parents[4] / "vectors"
FORMATS = sorted(path.name for path in VECTORS.glob("store-format-*"))


@pytest.fixture(params=FORMATS)
def vector(request: pytest.FixtureRequest, directory: Path) -> dict[str, Any]:
    """What is in the store that has been copied to ``directory``."""
    source = VECTORS / request.param
    shutil.copytree(source / "store", directory, copy_function=shutil.copyfile)  # modes and times are not copied
    expected: dict[str, Any] = json.loads((source / "expected.json").read_text("utf-8"))
    return expected


def check_names(storage: Storage, vector: dict[str, Any]) -> None:
    assert sorted([pin.owner, str(pin.cid), pin.state.value] for pin in storage.pins.list()) == vector["pins"]
    assert sorted([ref.name, str(ref.cid), ref.version] for ref in storage.refs.list()) == vector["refs"]
    assert sorted([item.root, item.path, str(item.cid)] for item in storage.entries.list_frozen()) == vector["frozen"]
    entries = [
        [entry.root, entry.path, str(entry.cid), entry.size_bytes, entry.dag_bytes, entry.mtime_ns]
        for entry in storage.entries.walk("mlflow", "")
    ]
    assert entries == vector["entries"]


def check_files(storage: LocalStorage, vector: dict[str, Any]) -> int:
    """Read every file by block and, where there is one, by path. Returns how many have a path."""
    with_path = 0
    for file in vector["files"]:
        cid = CID.parse(file["cid"])
        data = open_unixfs(storage.blocks, cid).read()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (file["size"], file["sha256"])
        for _ in walk_blocks(storage.blocks, cid):
            pass
        path = storage.file_path(cid)
        if path is not None:
            assert path.read_bytes() == data
            with_path += 1
    return with_path


def test_there_is_a_store_of_each_format() -> None:
    assert FORMATS == ["store-format-1"]
    for name in FORMATS:
        files = [path for path in (VECTORS / name).rglob("*") if path.is_file()]
        assert sum(path.stat().st_size for path in files) < 200_000


def test_everything_is_read(vector: dict[str, Any], directory: Path) -> None:
    with open_local_storage(directory, create=False) as storage:
        assert storage.store_id == vector["store_id"]
        assert len(set(multihashes(storage))) == vector["blocks"]
        check_names(storage, vector)
        assert check_files(storage, vector) == 2, "the two files of more than one chunk"
        check_sound(storage)
        assert {row[0] for row in rows_of(storage, "SELECT kind FROM place")} == {"object", "pack"}
        assert rows_of(storage, "SELECT count(*) > 0 FROM block WHERE data IS NOT NULL") == [(1,)]
        assert any(CID.parse(file["cid"]).version == 0 for file in vector["files"])


def test_gc_drops_only_garbage(vector: dict[str, Any], directory: Path) -> None:
    with open_local_storage(directory, create=False) as storage:
        report = storage.collect_garbage(grace_seconds=0)
        assert report.removed_blocks == 3, "a file of two leaves"
        check_names(storage, vector)
        check_files(storage, vector)
        assert files_of(storage) == {row[0] for row in rows_of(storage, "SELECT name FROM place")}
    with open_local_storage(directory, create=False) as storage:
        check_files(storage, vector)


def test_it_is_added_to(vector: dict[str, Any], directory: Path) -> None:
    known = CID.parse(vector["files"][0]["cid"])
    with open_local_storage(directory, create=False) as storage:
        data = open_unixfs(storage.blocks, known).read()
        assert storage.file_path(known) is not None  # gives it a new stamp; without one it would be written anew
        files = files_of(storage)
        assert publish_file(storage, data, owner="again", leaf_bytes=4096) == known
        assert files_of(storage) == files, "what is there is not written again"
        with storage.publish() as publication:
            root = put_file(publication, b"new" * 2000)
            publication.commit(Changes(pins=[Pin("me", root)], frozen=[Frozen("mlflow", "new", root)]))
        storage.refs.set("models/main", root, expected_version=2)
        assert storage.refs.get("models/main").version == 3
        assert storage.entries.delete("mlflow", "1/run") == len(vector["entries"])
        storage.collect_garbage(grace_seconds=0)
        assert open_unixfs(storage.blocks, root).read() == b"new" * 2000
        check_sound(storage)


def test_a_path_is_read_only_again(vector: dict[str, Any], directory: Path) -> None:
    with open_local_storage(directory, create=False) as storage:
        path = storage.file_path(CID.parse(vector["files"][0]["cid"]))
        assert path is not None
        assert stat.S_IMODE(path.stat().st_mode) & 0o222 == 0


def test_damage_in_it_is_found(vector: dict[str, Any], directory: Path) -> None:
    file = vector["files"][0]
    cid = CID.parse(file["cid"])
    with open_local_storage(directory, create=False) as storage:
        path = storage.file_path(cid)
        assert path is not None
    data = bytearray(path.read_bytes())
    data[5000] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    with open_local_storage(directory, create=False) as storage, pytest.raises(IntegrityError):
        storage.file_path(cid)


def test_the_index_of_an_earlier_version_counts_as_one_of_ours(
    vector: dict[str, Any], directory: Path, tmp_path: Path
) -> None:
    """Whoever restores a backup compares its tables with ours."""
    assert copy_index(directory / "store.db", tmp_path / "copy.db") == vector["store_id"]
