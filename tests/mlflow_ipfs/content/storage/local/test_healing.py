"""What is damaged is replaced: by what another store has, or by sound blocks that lie elsewhere."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from mlflow_ipfs.content.blocks.base import BlockReader
from mlflow_ipfs.content.cid import CID
from mlflow_ipfs.content.files.file_reader import open_unixfs
from mlflow_ipfs.content.storage.local import open_local_storage
from mlflow_ipfs.content.storage.local.reading import inspection
from mlflow_ipfs.content.storage.memory import MemoryStorage
from mlflow_ipfs.content.store import ContentStore
from mlflow_ipfs.content.system import mounts
from mlflow_ipfs.content.system.disk import Disk
from mlflow_ipfs.errors import IntegrityError, NotFoundError
from support.storages import check_sound, files_of, publish_blocks, publish_file

if TYPE_CHECKING:
    from pathlib import Path

    from mlflow_ipfs.content.storage.base import Storage
    from mlflow_ipfs.content.storage.local import LocalStorage

DATA = os.urandom(5000)


@pytest.fixture
def source() -> Storage:
    """Another store with the same content."""
    memory = MemoryStorage()
    publish_file(memory, DATA)
    publish_file(memory, DATA, wrapped=True)
    publish_blocks(memory, *(number.to_bytes(2, "big") * 1000 for number in range(50)))
    return memory


def damage(directory: Path, offset: int = 1500, *, keep_stamp: bool = False) -> None:
    """Change a byte in every file of the store."""
    for path in directory.glob("files/*/*"):
        status = path.stat()
        path.chmod(0o644)
        with path.open("r+b") as file:
            file.seek(offset)
            byte = file.read(1)[0]
            file.seek(offset)
            file.write(bytes([byte ^ 1]))
        if keep_stamp:
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_block_is_read_from_the_source_and_kept(storage: LocalStorage, source: Storage, wrapped: bool) -> None:
    root = publish_file(storage, DATA, wrapped=wrapped)
    damage(storage.directory, keep_stamp=True)
    storage.heal_from(source.blocks)
    assert open_unixfs(storage.blocks, root).read() == DATA
    storage.heal_from(None)
    assert open_unixfs(storage.blocks, root).read() == DATA
    check_sound(storage)


@pytest.mark.parametrize("keep_stamp", [False, True])
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_file_is_put_together_again(
    storage: LocalStorage, source: Storage, directory: Path, wrapped: bool, keep_stamp: bool
) -> None:
    root = publish_file(storage, DATA, wrapped=wrapped)
    damage(directory, keep_stamp=keep_stamp)
    with open_local_storage(directory, verify_always=True) as other:
        other.heal_from(source.blocks)
        path = other.file_path(root)
        assert path is not None
        assert path.read_bytes() == DATA
    assert storage.file_path(root) == path
    storage.collect_garbage()
    assert open_unixfs(storage.blocks, root).read() == DATA
    check_sound(storage)


def test_a_file_that_is_gone_comes_back(storage: LocalStorage, source: Storage) -> None:
    root = publish_file(storage, DATA)
    path = storage.file_path(root)
    assert path is not None
    path.unlink()
    storage.heal_from(source.blocks)
    again = storage.file_path(root)
    assert again is not None
    assert again.read_bytes() == DATA


def test_a_longer_file_needs_no_source(storage: LocalStorage) -> None:
    root = publish_file(storage, DATA)
    path = storage.file_path(root)
    assert path is not None
    path.chmod(0o644)
    with path.open("ab") as file:
        file.write(b"appended by somebody")
    again = storage.file_path(root)
    assert again is not None
    assert again.read_bytes() == DATA


def test_scrub_heals_and_says_so(storage: LocalStorage, source: Storage) -> None:
    root = publish_file(storage, DATA)
    publish_blocks(storage, *(number.to_bytes(2, "big") * 1000 for number in range(50)))
    damage(storage.directory, keep_stamp=True)
    storage.heal_from(source.blocks)
    report = storage.scrub()
    assert report.problems == ()
    assert CID(1, 0x70, root.multihash) in report.healed
    assert len(report.healed) == 2  # the file, and one block of the pack
    assert storage.scrub().healed == ()
    assert storage.scrub().problems == ()


def test_what_the_source_lacks_stays_a_problem(storage: LocalStorage) -> None:
    root = publish_file(storage, DATA)
    damage(storage.directory, keep_stamp=True)
    storage.heal_from(MemoryStorage().blocks)
    with pytest.raises(IntegrityError):
        open_unixfs(storage.blocks, root).read()
    assert len(storage.scrub().problems) == 1


class Liar(BlockReader):
    """A source that gives other bytes."""

    def get(self, cid: CID) -> bytes:
        del cid
        return b"other bytes"

    def has(self, cid: CID) -> bool:
        del cid
        return True


def test_a_source_that_lies_is_not_believed(storage: LocalStorage) -> None:
    root = publish_file(storage, DATA)
    damage(storage.directory, keep_stamp=True)
    storage.heal_from(Liar())
    with pytest.raises(IntegrityError):
        open_unixfs(storage.blocks, root).read()


def test_what_was_never_here_is_not_fetched(storage: LocalStorage, source: Storage) -> None:
    storage.heal_from(source.blocks)
    with pytest.raises(NotFoundError):
        storage.blocks.get(CID.of(b"\0\1" * 1000))


def test_two_stores_heal_each_other(tmp_path: Path) -> None:
    with open_local_storage(tmp_path / "a") as first, open_local_storage(tmp_path / "b") as second:
        roots = [publish_file(store, DATA) for store in (first, second)]
        damage(first.directory, 100, keep_stamp=True)
        damage(second.directory, 4900, keep_stamp=True)
        first.heal_from(second.blocks)
        second.heal_from(first.blocks)
        for store in (first, second):
            assert open_unixfs(store.blocks, roots[0]).read() == DATA
            assert store.scrub().problems == ()
            assert len(files_of(store)) >= 1


class WornDisk(Disk):
    """A disk with a bad sector: the second thousand bytes of every file below ``files``."""

    def __init__(self) -> None:
        self.bad: set[int] = set()

    def open_to_read(self, path: Path | str) -> int:
        descriptor = super().open_to_read(path)
        (self.bad.add if "/files/" in str(path) else self.bad.discard)(descriptor)
        return descriptor

    def read_at(self, descriptor: int, offset: int, length: int) -> bytes:
        if descriptor in self.bad and offset < 2000 and offset + length > 1000:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return super().read_at(descriptor, offset, length)


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_bad_sector_is_damage_and_is_healed(directory: Path, source: Storage, wrapped: bool) -> None:
    with open_local_storage(directory) as storage:
        root = publish_file(storage, DATA, wrapped=wrapped)
        publish_blocks(storage, *(number.to_bytes(2, "big") * 1000 for number in range(50)))
    with open_local_storage(directory, disk=WornDisk()) as worn:
        with pytest.raises(IntegrityError, match="damaged"):
            open_unixfs(worn.blocks, root).read()
        assert worn.scrub().problems
        assert not ContentStore(worn).verify(root).ok
        worn.heal_from(source.blocks)
        report = worn.scrub()
        assert report.healed
        assert report.problems == ()


def test_a_store_on_any_file_system_may_be_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_local_storage(tmp_path / "a") as first, open_local_storage(tmp_path / "b") as second:
        root = publish_file(first, DATA)
        publish_file(second, DATA)
    before = sorted((tmp_path / "b").rglob("*"))
    with open_local_storage(tmp_path / "a") as first:
        damage(first.directory, keep_stamp=True)
        monkeypatch.setattr(mounts, "file_system_type", lambda _: "nfs4")
        with open_local_storage(tmp_path / "b", read_only=True) as second:
            first.heal_from(second.blocks)
            assert open_unixfs(first.blocks, root).read() == DATA
    assert sorted((tmp_path / "b").rglob("*")) == before


def test_nothing_healed_depends_on_the_quarantine(storage: LocalStorage, source: Storage) -> None:
    """Whether the damage was known before there was a source, or not."""
    root = publish_file(storage, DATA)
    damage(storage.directory, keep_stamp=True)
    assert storage.scrub().problems
    assert list((storage.directory / "quarantine").iterdir())
    storage.heal_from(source.blocks)
    assert storage.scrub().problems == ()
    storage.heal_from(None)
    for path in (storage.directory / "quarantine").iterdir():
        path.unlink()
    assert open_unixfs(storage.blocks, root).read() == DATA
    assert storage.scrub().problems == ()
    assert inspection.count_contents(storage.directory).damaged_files == 0
    storage.collect_garbage()
    check_sound(storage)
