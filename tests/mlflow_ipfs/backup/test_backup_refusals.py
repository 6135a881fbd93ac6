"""What is mistyped is refused before anything is made: no folder, no file, not even a parent of one."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
import sqlalchemy

from mlflow_ipfs.backup.backing_up import make_backup, restore_backup
from mlflow_ipfs.content.store import ContentStore
from mlflow_ipfs.errors import MlflowIpfsError, NotFoundError, PolicyError, SettingsError, StoreFormatError
from support.backup_sites import Site

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def site(site: Site) -> Site:
    site.advance(1)
    return site


def tree(folder: Path) -> dict[Path, int]:
    """All that lies in a folder but the working folders of the store itself."""
    apart = folder / "store"
    return {path: path.lstat().st_mtime_ns for path in folder.rglob("*") if not path.is_relative_to(apart)}


@pytest.mark.parametrize("destination", ["new", "new/below/it", "empty"])
@pytest.mark.parametrize(
    ("uri", "error"),
    [
        ("sqlite:///{folder}/nowhere.db", NotFoundError),
        ("sqlite:///{folder}/empty.db", SettingsError),
        ("sqlite:///{folder}/text.db", MlflowIpfsError),
        ("sqlite://", SettingsError),
        ("postgresql://me@127.0.0.1:1/mlflow?connect_timeout=2", MlflowIpfsError),
    ],
)
def test_no_backup_of_a_database_that_is_none(
    site: Site, destination: str, uri: str, error: type[MlflowIpfsError]
) -> None:
    (site.folder / "empty").mkdir()
    (site.folder / "empty.db").touch()
    (site.folder / "text.db").write_text("this is no database, " * 100)
    before = tree(site.folder)
    url = sqlalchemy.make_url(uri.format(folder=site.folder))
    with pytest.raises(error):
        make_backup(ContentStore(site.storage), site.folder / destination, url, timeout_seconds=1)
    assert tree(site.folder) == before


def test_no_backup_into_what_is_none(site: Site) -> None:
    site.back_up()
    (site.folder / "other").mkdir()
    other = Site(site.folder / "other")
    other.back_up()
    (site.folder / "full").mkdir()
    (site.folder / "full/mine").touch()
    (site.folder / "linked").symlink_to("backup", target_is_directory=True)
    shutil.copytree(site.folder / "backup", site.folder / "newer")
    (site.folder / "newer/backup.json").write_text('{"format": 9}')
    before = tree(site.folder)
    refused = {"full": PolicyError, "other/backup": PolicyError, "newer": StoreFormatError, "store/x": PolicyError}
    for name, error in refused.items():
        with pytest.raises(error):
            site.back_up(to=name)
        with pytest.raises(error):
            make_backup(ContentStore(site.storage), site.folder / name, None, timeout_seconds=1)
    assert tree(site.folder) == before
    other.storage.close()


def test_no_restore_of_what_is_none_and_none_over_anything(site: Site) -> None:
    site.back_up()
    make_backup(ContentStore(site.storage), site.folder / "alone", None, timeout_seconds=1)
    (site.folder / "full").mkdir()
    (site.folder / "full/mine").touch()
    before = tree(site.folder)
    new = site.folder / "new/store"
    url = sqlalchemy.make_url(f"sqlite:///{site.folder}/new/mlflow.db")
    inside = sqlalchemy.make_url(f"sqlite:///{new}/mlflow.db")
    postgres = sqlalchemy.make_url("postgresql://me@127.0.0.1:1/mlflow")
    attempts: dict[str, Callable[[], object]] = {
        "is no backup": lambda: restore_backup(site.folder / "nowhere", new, url),
        "has no backup.json": lambda: restore_backup(site.folder / "full", new, url),
        "has no database": lambda: restore_backup(site.folder / "alone", new, url),
        "of a sqlite database": lambda: restore_backup(site.folder / "backup", new, postgres),
        "mlflow.db is there already": lambda: restore_backup(site.folder / "backup", new, site.url),
        "full is there already": lambda: restore_backup(site.folder / "backup", site.folder / "full", url),
        "mine is there already": lambda: restore_backup(site.folder / "backup", site.folder / "full/mine", url),
        "would lie in": lambda: restore_backup(site.folder / "backup", new, inside),
        "lie in each other": lambda: restore_backup(site.folder / "backup", site.folder / "backup/new", url),
    }
    for message, attempt in attempts.items():
        with pytest.raises(MlflowIpfsError, match=message):
            attempt()
        assert tree(site.folder) == before, message


@pytest.mark.parametrize("name", ["loop", "loop/below", "long" * 75])
def test_paths_that_nothing_can_have_are_refused(site: Site, name: str) -> None:
    site.back_up()
    backup, path = site.folder / "backup", site.folder / name
    (site.folder / "loop").symlink_to("loop")
    before = tree(site.folder)
    url = sqlalchemy.make_url(f"sqlite:///{path}")
    with pytest.raises(PolicyError, match=name):
        restore_backup(backup, path, None)
    with pytest.raises(PolicyError, match=name):
        restore_backup(path, site.folder / "there", None)
    with pytest.raises(PolicyError, match=name):
        make_backup(ContentStore(site.storage), path, None, timeout_seconds=1)
    if name.startswith("loop"):
        with pytest.raises(PolicyError, match=name):
            restore_backup(backup, site.folder / "there", url)
        with pytest.raises(PolicyError, match=name):
            make_backup(ContentStore(site.storage), site.folder / "new", url, timeout_seconds=1)
    assert tree(site.folder) == before


@pytest.mark.parametrize("name", ["store", "next"])
def test_no_backup_is_made_through_a_link(site: Site, name: str) -> None:
    site.back_up()
    backup, elsewhere = site.folder / "backup", site.folder / "elsewhere"
    if name == "store":
        (backup / name).rename(elsewhere)
    else:  # decided, and not yet moved to its place
        elsewhere.mkdir()
        (backup / "backup.json").rename(elsewhere / "backup.json")
        (backup / "backup.json").write_bytes((elsewhere / "backup.json").read_bytes())
    (backup / name).symlink_to(elsewhere)
    before = tree(site.folder)
    with pytest.raises(PolicyError, match="is a link"):
        site.back_up()
    assert tree(site.folder) == before
