"""Backups and restores that are killed at any step: what is there is whole, and the next one goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mlflow_ipfs.backup.backing_up import restore_backup
from mlflow_ipfs.errors import NotFoundError, StoreFormatError
from support.backup_sites import KilledError, MortalDisk

if TYPE_CHECKING:
    from support.backup_sites import Site

pytestmark = pytest.mark.slow


def test_a_backup_killed_at_any_step_leaves_a_whole_one(site: Site) -> None:
    """Never the database of one moment and the store of another; and the next one ends well."""
    site.advance(1)
    site.back_up()
    site.advance(2)
    seen = set()
    for steps in range(1000):
        try:
            site.back_up(disk=MortalDisk(steps))
        except KilledError:
            seen.add(site.restore(f"restored-{steps}"))
        else:
            break
    assert seen == {1, 2}, steps
    assert site.back_up() == 0
    assert site.restore("last") == 2


def test_a_first_backup_that_was_killed_is_refused_until_it_is_complete(site: Site) -> None:
    site.advance(1)
    refused = 0
    for steps in range(1000):
        try:
            site.back_up(disk=MortalDisk(steps))
        except KilledError:
            try:
                assert site.restore(f"restored-{steps}") == 1
            except (NotFoundError, StoreFormatError):
                refused += 1
                assert not (site.directory / f"restored-{steps}/store").exists()
        else:
            break
    assert refused > 10
    assert site.restore("last") == 1


def test_a_restore_killed_at_any_step_goes_on(site: Site) -> None:
    site.advance(1)
    site.back_up()
    for steps in range(1000):
        try:
            site.restore(f"restored-{steps}", disk=MortalDisk(steps))
        except KilledError:
            assert site.restore(f"restored-{steps}") == 1
        else:
            break
    assert steps > 15


def test_a_database_that_a_broken_off_restore_left_out_is_restored_by_the_next(site: Site) -> None:
    site.advance(1)
    site.back_up()
    target = site.directory / "there"
    restore_backup(site.directory / "backup", target / "store", None)
    (target / "store/restoring").mkdir()  # as if it had been killed before it tidied up
    (target / "store/restoring/store_id").write_text(site.storage.store_id)
    assert site.restore("there") == 1
