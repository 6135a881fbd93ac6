"""Making, recognising and refusing the directory of a local store."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mlflow_ipfs.content.storage.local import open_local_storage
from mlflow_ipfs.content.storage.local.index.schema import APPLICATION_ID
from mlflow_ipfs.content.system import mounts
from mlflow_ipfs.errors import ImmutableError, StoreFormatError
from support.mounted import mounted_tmpfs
from support.storages import publish_blocks, publish_file, rows_of

if TYPE_CHECKING:
    from mlflow_ipfs.content.storage.local import LocalStorage

PROJECT = Path(__file__).parents[5]


def test_a_new_store_has_the_parts_of_the_design(storage: LocalStorage, directory: Path) -> None:
    publish_file(storage, b"x" * 5000)
    names = {path.name for path in directory.iterdir()}
    assert names >= {
        "format.json", "store.db", "files", "tmp", "views", "sessions", "write.lock", "gc.lock", "outbox.lock",
        "quarantine", "backup", "reserve",
    }  # fmt: skip
    fields = json.loads((directory / "format.json").read_text())
    assert fields == {"format": 1, "min_reader": 1, "min_writer": 1, "store_id": storage.store_id}
    tables = {row[0] for row in rows_of(storage, "SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert tables >= {"place", "block", "pin", "ref", "entry", "frozen", "outbox", "session", "meta"}
    assert rows_of(storage, "PRAGMA application_id") == [(APPLICATION_ID,)]
    assert rows_of(storage, "PRAGMA user_version") == [(1,)]
    assert directory.stat().st_mode & 0o777 == 0o700


def test_a_store_is_found_again(directory: Path) -> None:
    with open_local_storage(directory) as first:
        [cid] = publish_blocks(first, b"kept")
    with open_local_storage(directory, create=False) as second:
        assert second.store_id == first.store_id
        assert second.blocks.get(cid) == b"kept"


def test_the_directories_above_are_made(tmp_path: Path) -> None:
    with open_local_storage(tmp_path / "a" / "b" / "c") as storage:
        assert storage.directory == tmp_path / "a" / "b" / "c"


def test_without_create_nothing_is_made(tmp_path: Path) -> None:
    with pytest.raises(StoreFormatError, match="no store"):
        open_local_storage(tmp_path / "nothing", create=False)
    with pytest.raises(StoreFormatError, match="no store"):
        open_local_storage(tmp_path, create=False)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_with_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("do not touch")
    with pytest.raises(StoreFormatError, match="not a store and not empty"):
        open_local_storage(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreFormatError, match="no store"):
        open_local_storage(tmp_path / "file")


@pytest.mark.parametrize("field", ["min_reader", "min_writer"])
def test_a_newer_format_is_refused(storage: LocalStorage, directory: Path, field: str) -> None:
    fields = {"format": 7, "min_reader": 1, "min_writer": 1, "store_id": storage.store_id} | {field: 2}
    (directory / "format.json").write_text(json.dumps(fields))
    with pytest.raises(StoreFormatError, match="format 7.*upgrade"):
        open_local_storage(directory)


def test_a_newer_schema_is_refused(storage: LocalStorage, directory: Path) -> None:
    rows_of(storage, "PRAGMA user_version = 2")
    with pytest.raises(StoreFormatError, match="schema version 2.*upgrade"):
        open_local_storage(directory)


def test_another_program_s_database_is_refused(storage: LocalStorage, directory: Path) -> None:
    rows_of(storage, "PRAGMA application_id = 1")
    with pytest.raises(StoreFormatError, match="another program"):
        open_local_storage(directory)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"min_reader": "x", "min_writer": 1, "store_id": ""}'])
def test_an_unreadable_format_file_is_refused(storage: LocalStorage, directory: Path, text: str) -> None:
    storage.close()
    (directory / "format.json").write_text(text)
    with pytest.raises(StoreFormatError, match=r"format\.json"):
        open_local_storage(directory)


def test_a_store_without_its_index_says_what_to_do(directory: Path) -> None:
    open_local_storage(directory).close()
    (directory / "store.db").unlink()
    with pytest.raises(StoreFormatError, match="backup"):
        open_local_storage(directory)


def test_a_damaged_index_says_what_to_do(directory: Path) -> None:
    open_local_storage(directory).close()
    (directory / "store.db").write_bytes(b"garbage" * 1000)
    with pytest.raises(StoreFormatError, match="backup"):
        open_local_storage(directory)


def test_parts_of_two_stores_do_not_mix(tmp_path: Path) -> None:
    for name in ("a", "b"):
        open_local_storage(tmp_path / name).close()
    (tmp_path / "a" / "store.db").replace(tmp_path / "b" / "store.db")
    with pytest.raises(StoreFormatError, match="different stores"):
        open_local_storage(tmp_path / "b")


def test_an_interrupted_making_is_taken_up(directory: Path) -> None:
    with open_local_storage(directory) as storage:
        [cid] = publish_blocks(storage, b"kept")
    (directory / "format.json").unlink()
    with open_local_storage(directory) as again:
        assert again.store_id == storage.store_id
        assert again.blocks.get(cid) == b"kept"


def test_many_processes_make_one_store(directory: Path) -> None:
    code = "import sys; from mlflow_ipfs.content.storage.local import open_local_storage as o; print(o(sys.argv[1]).store_id)"
    children = [
        subprocess.Popen([sys.executable, "-c", code, directory], stdout=subprocess.PIPE, cwd=PROJECT) for _ in range(4)
    ]
    ids = {child.communicate(timeout=300)[0] for child in children}
    assert [child.returncode for child in children] == [0, 0, 0, 0]
    assert len(ids) == 1


def test_many_threads_make_one_store(directory: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        stores = list(pool.map(lambda _: open_local_storage(directory), range(8)))
    assert len({store.store_id for store in stores}) == 1
    for store in stores:
        store.close()


MOUNTS = """\
22 28 0:21 / /proc rw,relatime - proc proc rw
28 1 254:0 / / rw,relatime - ext4 /dev/vda rw
40 28 0:40 / /mnt/nfs rw shared:1 - nfs4 server:/export rw
41 40 0:41 / /mnt/nfs/local\\040disk rw - xfs /dev/vdb rw
42 28 0:42 / /mnt/ssh rw master:2 propagate_from:1 - fuse.sshfs host: rw
43 28 0:43 / /mnt/twice rw - ext4 /dev/vdc rw
44 28 0:44 / /mnt/twice rw - cifs //server/share rw
45 28 0:45 / /mnt/cluster rw - lustre mgs:/fs rw
46 28 0:46 / /mnt/host rw - 9p hostshare rw
"""


@pytest.mark.parametrize(
    ("directory", "kind", "refused"),
    [
        ("/home/somebody", "ext4", False),
        ("/mnt/nfs", "nfs4", True),
        ("/mnt/nfs/deep/down", "nfs4", True),
        ("/mnt/nfs2", "ext4", False),
        ("/mnt/nfs/local disk/store", "xfs", False),
        ("/mnt/ssh/x", "fuse.sshfs", True),
        ("/mnt/twice/x", "cifs", True),
        ("/mnt/cluster", "lustre", True),
        ("/mnt/host", "9p", True),
    ],
)
def test_the_file_system_of_a_directory(tmp_path: Path, directory: str, kind: str, refused: bool) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(MOUNTS)
    assert mounts.file_system_type(type(tmp_path)(directory), table) == kind
    assert mounts.is_network_file_system(kind) is refused


def test_without_a_mount_table_nothing_is_refused(tmp_path: Path) -> None:
    assert mounts.file_system_type(tmp_path, tmp_path / "no such file") is None


def test_a_network_file_system_is_refused_with_the_way_out(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mounts, "file_system_type", lambda _: "nfs4")
    with pytest.raises(StoreFormatError, match=r"nfs4.*disk of this machine"):
        open_local_storage(directory)
    assert not directory.exists()


def test_a_read_only_mount_can_be_read(tmp_path: Path) -> None:
    with mounted_tmpfs(tmp_path / "disk", size_bytes=64 << 20) as disk:
        with open_local_storage(disk.directory / "store") as storage:
            [cid] = publish_blocks(storage, b"small")
            root = publish_file(storage, b"x" * 5000)
        disk.remount(read_only=True)
        with open_local_storage(disk.directory / "store") as storage:
            assert storage.blocks.get(cid) == b"small"
            path = storage.file_path(root)
            assert path is not None
            assert path.read_bytes() == b"x" * 5000
            for write in (storage.publish, lambda: storage.pins.remove(cid), storage.collect_garbage):
                with pytest.raises(ImmutableError, match="read-only"):
                    write()


def test_a_read_only_mount_with_a_pending_log_is_refused(tmp_path: Path) -> None:
    with mounted_tmpfs(tmp_path / "disk", size_bytes=64 << 20) as disk:
        storage = open_local_storage(disk.directory / "store")
        publish_blocks(storage, b"small")
        copy = disk.directory / "copy"
        shutil.copytree(disk.directory / "store", copy)  # while the log holds changes
        storage.close()
        disk.remount(read_only=True)
        with pytest.raises(StoreFormatError, match="mount it writable"):
            open_local_storage(copy)


def test_sqlite_is_set_up_for_durability(storage: LocalStorage, directory: Path) -> None:
    with storage._context.database.read() as connection:
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
        assert connection.execute("PRAGMA wal_autocheckpoint").fetchone() == (0,)
    plain = sqlite3.connect(directory / "store.db")
    assert plain.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    plain.close()
