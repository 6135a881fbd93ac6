"""What a restore removes, of a backup that turns out to be damaged: what it has made, and nothing else."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from mlflow_ipfs.backup.backing_up import restore_backup
from mlflow_ipfs.errors import ConflictError, StoreFormatError
from support.backup_sites import KilledError, MortalDisk, Site
from support.storages import SteppedDisk

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

STEPS = 300


@pytest.fixture
def backup(site: Site) -> Path:
    site.advance(1)
    site.back_up()
    return site.directory / "backup"


def cut_index(backup: Path) -> None:
    index = backup / "store/store.db"
    os.truncate(index, index.stat().st_size // 2)


def put_strangers(directory: Path) -> dict[Path, str]:
    """Files of somebody else. Returns what is in them."""
    files = {directory / name: f"in {name}" for name in ("mine.txt", "mydir/x", "store.db.mine", "format.json.old.new")}
    for path, text in files.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return files


def begin(target: Path, store_id: str) -> None:
    """What a broken-off restore leaves."""
    (target / "restoring/drafts").mkdir(parents=True)
    (target / "restoring/store_id").write_text(store_id)
    (target / "files").mkdir()


@pytest.mark.parametrize("is_damaged", [True, False])
def test_a_strangers_file_among_what_is_left_of_a_restore_is_refused_and_survives(
    site: Site, backup: Path, is_damaged: bool
) -> None:
    target = site.directory / "there"
    begin(target, site.storage.store_id)
    strangers = put_strangers(target)
    if is_damaged:
        cut_index(backup)
    with pytest.raises(ConflictError, match=r"was not made by the interrupted restore"):
        restore_backup(backup, target, None)
    assert {path: path.read_text() for path in strangers} == strangers
    for path in strangers:
        path.unlink()
    (target / "mydir").rmdir()
    if is_damaged:
        with pytest.raises(StoreFormatError):
            restore_backup(backup, target, None)
        assert list(target.iterdir()) == []
    else:
        restore_backup(backup, target, None)


def test_a_strangers_file_that_comes_in_the_midst_of_a_restore_survives_its_end(site: Site, backup: Path) -> None:
    target = site.directory / "there"
    strangers: dict[Path, str] = {}

    def come(step: str) -> None:
        if step == "make_directory" and (target / "restoring/store_id").exists() and not strangers:
            strangers.update(put_strangers(target))

    cut_index(backup)
    with pytest.raises(StoreFormatError):
        restore_backup(backup, target, None, disk=SteppedDisk(come))
    assert strangers
    assert {path for path in target.rglob("*") if path.is_file()} == set(strangers)
    assert {path: path.read_text() for path in strangers} == strangers


@pytest.mark.parametrize("name", ["restoring/mine", "restoring/store_id.mine.new"])
def test_a_directory_that_happens_to_be_called_restoring_is_nobodys_leftover(
    site: Site, backup: Path, name: str
) -> None:
    target = site.directory / "there"
    (target / "restoring/drafts").mkdir(parents=True)
    (target / name).write_text("mine")
    with pytest.raises(ConflictError, match="already exists"):
        restore_backup(backup, target, None)
    assert (target / name).read_text() == "mine"


@pytest.mark.slow
def test_whatever_a_restore_leaves_at_any_step_is_known_as_its_own(site: Site, backup: Path) -> None:
    """Else it would neither go on nor tidy up."""
    for steps in range(STEPS):
        target = site.directory / f"there-{steps}"
        try:
            restore_backup(backup, target, None, disk=MortalDisk(steps))
        except KilledError:
            index = backup / "store/store.db"
            whole = index.read_bytes()
            was_store = (target / "format.json").exists()
            cut_index(backup)
            if not was_store:
                with pytest.raises(StoreFormatError):
                    restore_backup(backup, target, None)
                assert not target.exists() or list(target.iterdir()) == [], steps
            index.write_bytes(whole)
        else:
            break
    else:
        pytest.fail("no restore came to its end")


def make_directory(path: Path) -> None:
    path.mkdir()


def make_noise(path: Path) -> None:
    path.write_bytes(b"\xff\xfe")


def make_link(path: Path) -> None:
    path.symlink_to("nowhere")


@pytest.mark.parametrize("make", [make_directory, make_noise, make_link, os.mkfifo])
def test_a_directory_that_no_restore_has_left_is_refused(
    site: Site, backup: Path, make: Callable[[Path], None]
) -> None:
    """Whatever lies where the store's id would be: a pipe is not waited for."""
    owner = site.directory / "there/restoring/store_id"
    owner.parent.mkdir(parents=True)
    make(owner)
    with pytest.raises(ConflictError, match="already exists"):
        restore_backup(backup, site.directory / "there", None)
    assert os.path.lexists(owner)
