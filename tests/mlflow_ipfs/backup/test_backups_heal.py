"""A backup is often the last sound copy: the next one into the same directory gives back what it has, before it lets go."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mlflow_ipfs.backup.backing_up import make_backup
from mlflow_ipfs.content.files.file_reader import open_unixfs
from mlflow_ipfs.content.storage.local import open_local_storage
from mlflow_ipfs.content.storage.local.publishing.publication import LocalPublication
from mlflow_ipfs.content.store import ContentStore
from mlflow_ipfs.errors import IntegrityError, StoreFullError
from support.storages import publish_blocks, publish_file

if TYPE_CHECKING:
    from pathlib import Path

    from mlflow_ipfs.content.cid import CID
    from mlflow_ipfs.content.storage.local import LocalStorage
    from support.backup_sites import Site

CONTENT = b"".join(number.to_bytes(4, "big") for number in range(5000))


def damage(path: Path) -> None:
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"rot")


@pytest.fixture
def root(site: Site) -> CID:
    """A file that was backed up, and was found damaged since."""
    root = publish_file(site.storage, CONTENT)
    publish_blocks(site.storage, *(b"%d" % number * 1000 for number in range(80)))
    site.back_up()
    path = site.storage.file_path(root)
    assert path is not None
    damage(path)
    assert len(site.storage.scrub().problems) == 1
    return root


def read(storage: LocalStorage, root: CID) -> bytes:
    return open_unixfs(storage.blocks, root).read()


def test_the_store_gets_back_what_the_former_backup_has(site: Site, root: CID) -> None:
    site.back_up()  # without a problem
    assert read(site.storage, root) == CONTENT
    assert site.storage.scrub().problems == ()
    with open_local_storage(site.directory / "backup" / "store", read_only=True) as copy:
        assert read(copy, root) == CONTENT


def test_a_damaged_pack_is_healed_too(site: Site) -> None:
    cids = publish_blocks(site.storage, *(b"%d" % number * 1000 for number in range(80)))
    site.back_up()
    [pack] = site.storage.directory.glob("files/*/*.car")
    damage(pack)
    assert site.storage.scrub().problems
    site.back_up()
    assert all(cid.matches(site.storage.blocks.get(cid)) for cid in cids)
    assert site.storage.scrub().problems == ()


def test_what_cannot_be_brought_back_stays_in_the_backup(
    site: Site, root: CID, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        msg = "the disk is full"
        raise StoreFullError(msg)

    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr(LocalPublication, "put", refuse)
            with pytest.raises(IntegrityError, match=r"scrub --heal-from .*backup"):
                site.back_up()
        with open_local_storage(site.directory / "backup" / "store", read_only=True) as copy:
            assert read(copy, root) == CONTENT
    site.back_up()
    assert read(site.storage, root) == CONTENT


def test_what_the_former_backup_lacks_does_not_stop_the_next(site: Site) -> None:
    site.back_up()
    root = publish_file(site.storage, CONTENT)
    path = site.storage.file_path(root)
    assert path is not None
    damage(path)
    assert len(site.storage.scrub().problems) == 1
    _, report = make_backup(ContentStore(site.storage), site.directory / "backup", site.url, timeout_seconds=1)
    assert report.problems
