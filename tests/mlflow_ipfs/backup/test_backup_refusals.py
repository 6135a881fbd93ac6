"""What is mistyped is refused before anything is made: no directory, no file, not even a parent of one."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
import sqlalchemy

from mlflow_ipfs.backup.backing_up import make_backup, restore_backup
from mlflow_ipfs.content.store import ContentStore
from mlflow_ipfs.errors import (
    ConflictError,
    MlflowIpfsError,
    NotFoundError,
    PolicyError,
    SettingsError,
    StoreFormatError,
)
from support.backup_sites import Site

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def site(site: Site) -> Site:
    site.advance(1)
    return site


def tree(directory: Path) -> dict[Path, int]:
    """All that lies in a directory but the working directories of the store itself."""
    apart = directory / "store"
    return {path: path.lstat().st_mtime_ns for path in directory.rglob("*") if not path.is_relative_to(apart)}


@pytest.mark.parametrize("destination", ["new", "new/below/it", "empty"])
@pytest.mark.parametrize(
    ("uri", "error"),
    [
        ("sqlite:///{directory}/nowhere.db", NotFoundError),
        ("sqlite:///{directory}/empty.db", SettingsError),
        ("sqlite:///{directory}/text.db", MlflowIpfsError),
        ("sqlite://", SettingsError),
        ("postgresql://me@127.0.0.1:1/mlflow?connect_timeout=2", MlflowIpfsError),
    ],
)
def test_no_backup_of_a_database_that_is_none(
    site: Site, destination: str, uri: str, error: type[MlflowIpfsError]
) -> None:
    (site.directory / "empty").mkdir()
    (site.directory / "empty.db").touch()
    (site.directory / "text.db").write_text("this is no database, " * 100)
    before = tree(site.directory)
    url = sqlalchemy.make_url(uri.format(directory=site.directory))
    with pytest.raises(error):
        make_backup(ContentStore(site.storage), site.directory / destination, url, timeout_seconds=1)
    assert tree(site.directory) == before


def test_no_backup_into_what_is_none(site: Site) -> None:
    site.back_up()
    (site.directory / "other").mkdir()
    other = Site(site.directory / "other")
    other.back_up()
    (site.directory / "full").mkdir()
    (site.directory / "full/mine").touch()
    (site.directory / "linked").symlink_to("backup", target_is_directory=True)
    shutil.copytree(site.directory / "backup", site.directory / "newer")
    (site.directory / "newer/backup.json").write_text('{"format": 9}')
    before = tree(site.directory)
    refused = {"full": ConflictError, "other/backup": ConflictError, "newer": StoreFormatError, "store/x": PolicyError}
    for name, error in refused.items():
        with pytest.raises(error):
            site.back_up(to=name)
        with pytest.raises(error):
            make_backup(ContentStore(site.storage), site.directory / name, None, timeout_seconds=1)
    assert tree(site.directory) == before
    other.storage.close()


def test_no_restore_of_what_is_none_and_none_over_anything(site: Site) -> None:
    site.back_up()
    make_backup(ContentStore(site.storage), site.directory / "alone", None, timeout_seconds=1)
    (site.directory / "full").mkdir()
    (site.directory / "full/mine").touch()
    before = tree(site.directory)
    new = site.directory / "new/store"
    url = sqlalchemy.make_url(f"sqlite:///{site.directory}/new/mlflow.db")
    inside = sqlalchemy.make_url(f"sqlite:///{new}/mlflow.db")
    postgres = sqlalchemy.make_url("postgresql://me@127.0.0.1:1/mlflow")
    attempts: dict[str, Callable[[], object]] = {
        "nowhere does not contain a backup": lambda: restore_backup(site.directory / "nowhere", new, url),
        "backup.json is missing": lambda: restore_backup(site.directory / "full", new, url),
        "does not contain a database": lambda: restore_backup(site.directory / "alone", new, url),
        "contains a sqlite database": lambda: restore_backup(site.directory / "backup", new, postgres),
        "mlflow.db already exists": lambda: restore_backup(site.directory / "backup", new, site.url),
        "full already exists": lambda: restore_backup(site.directory / "backup", site.directory / "full", url),
        "mine already exists": lambda: restore_backup(site.directory / "backup", site.directory / "full/mine", url),
        "would be inside": lambda: restore_backup(site.directory / "backup", new, inside),
        "overlap: restore to another directory": lambda: restore_backup(
            site.directory / "backup", site.directory / "backup/new", url
        ),
    }
    for message, attempt in attempts.items():
        with pytest.raises(MlflowIpfsError, match=message):
            attempt()
        assert tree(site.directory) == before, message


@pytest.mark.parametrize("name", ["loop", "loop/below", "long" * 75])
def test_paths_that_nothing_can_have_are_refused(site: Site, name: str) -> None:
    site.back_up()
    backup, path = site.directory / "backup", site.directory / name
    (site.directory / "loop").symlink_to("loop")
    before = tree(site.directory)
    url = sqlalchemy.make_url(f"sqlite:///{path}")
    with pytest.raises(PolicyError, match=name):
        restore_backup(backup, path, None)
    with pytest.raises(PolicyError, match=name):
        restore_backup(path, site.directory / "there", None)
    with pytest.raises(PolicyError, match=name):
        make_backup(ContentStore(site.storage), path, None, timeout_seconds=1)
    if name.startswith("loop"):
        with pytest.raises(PolicyError, match=name):
            restore_backup(backup, site.directory / "there", url)
        with pytest.raises(PolicyError, match=name):
            make_backup(ContentStore(site.storage), site.directory / "new", url, timeout_seconds=1)
    assert tree(site.directory) == before


@pytest.mark.parametrize("name", ["store", "next"])
def test_no_backup_is_made_through_a_link(site: Site, name: str) -> None:
    site.back_up()
    backup, elsewhere = site.directory / "backup", site.directory / "elsewhere"
    if name == "store":
        (backup / name).rename(elsewhere)
    else:  # decided, and not yet moved to its place
        elsewhere.mkdir()
        (backup / "backup.json").rename(elsewhere / "backup.json")
        (backup / "backup.json").write_bytes((elsewhere / "backup.json").read_bytes())
    (backup / name).symlink_to(elsewhere)
    before = tree(site.directory)
    with pytest.raises(PolicyError, match="is a symbolic link"):
        site.back_up()
    assert tree(site.directory) == before
