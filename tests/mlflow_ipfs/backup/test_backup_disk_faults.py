"""The backup's own disk is full or fails: one of our errors, with the path in it, and never half a backup that looks whole."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest

from mlflow_ipfs.errors import DiskError, MlflowIpfsError, NotFoundError, StoreFormatError, StoreFullError
from support.faulty_disk import FaultyDisk

if TYPE_CHECKING:
    from pathlib import Path

    from support.backup_sites import Site

pytestmark = pytest.mark.slow

STEPS = 300
NO_END = f"{STEPS} steps, and each of them failed: no attempt came to its end"
KINDS = {errno.ENOSPC: StoreFullError, errno.EIO: DiskError}


@pytest.fixture
def site(site: Site) -> Site:
    site.advance(1)
    return site


def check_error(error: MlflowIpfsError, number: int, place: Path, step: str | None) -> None:
    assert isinstance(error, KINDS[number]), (step, error)
    # MLflow's database makes a stop beside the store, on whatever disk that is.
    assert str(place) in str(error) or str(place.parent / "store/views") in str(error), (step, error)
    assert "were not changed" in str(error)


@pytest.mark.parametrize("number", KINDS, ids=errno.errorcode.get)
def test_a_first_backup_that_fails_at_any_step_is_none_until_the_next_is_made(site: Site, number: int) -> None:
    failed = set()
    for steps in range(STEPS):
        disk = FaultyDisk(number)
        disk.passing = steps
        name = f"backup-{steps}"
        try:
            site.back_up(disk=disk, to=name)
        except MlflowIpfsError as error:
            check_error(error, number, site.directory / name, disk.failed)
        if (site.directory / name).exists():
            (site.directory / name).rename(site.directory / "backup")
        if disk.failed is None:
            break
        failed.add(disk.failed)
        try:
            assert site.restore(f"restored-{steps}") == 1
        except (NotFoundError, StoreFormatError):
            assert not (site.directory / f"restored-{steps}").exists()
        site.back_up()
        assert site.restore(f"again-{steps}") == 1
        (site.directory / "backup").rename(site.directory / f"done-{steps}")
    else:
        pytest.fail(NO_END)
    assert failed >= {"create", "write", "sync", "sync_directory", "rename", "make_directory"}, failed


@pytest.mark.parametrize("number", KINDS, ids=errno.errorcode.get)
def test_a_backup_that_fails_at_any_step_leaves_one_whole(site: Site, number: int) -> None:
    site.back_up()
    site.advance(2)
    seen = set()
    for steps in range(STEPS):
        disk = FaultyDisk(number)
        disk.passing = steps
        try:
            site.back_up(disk=disk)
        except MlflowIpfsError as error:
            check_error(error, number, site.directory / "backup", disk.failed)
        if disk.failed is None:
            break
        seen.add(site.restore(f"restored-{steps}"))
    else:
        pytest.fail(NO_END)
    assert seen == {1, 2}, "before the decision it is the former one, after it the new one"
    site.back_up()
    assert site.restore("last") == 2


@pytest.mark.parametrize("number", KINDS, ids=errno.errorcode.get)
def test_a_restore_that_fails_at_any_step_goes_on(site: Site, number: int) -> None:
    site.back_up()
    for steps in range(STEPS):
        disk = FaultyDisk(number)
        disk.passing = steps
        name = f"restored-{steps}"
        try:
            site.restore(name, disk=disk)
        except MlflowIpfsError as error:
            check_error(error, number, site.directory / name, disk.failed)
        if disk.failed is None:
            break
        assert site.restore(name) == 1
    else:
        pytest.fail(NO_END)
    assert steps > 15
