"""A backup that is damaged, or was made to do harm: a sound store comes of it, or one of our errors and nothing else."""

from __future__ import annotations

import random
import sqlite3
import tempfile
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import sqlalchemy
from hypothesis import given, note
from hypothesis import strategies as st

from mlflow_ipfs.binding.backups import restore_backup
from mlflow_ipfs.content.blockstore.local import open_local_storage
from mlflow_ipfs.content.cid import CID
from mlflow_ipfs.content.dag import walk_blocks
from mlflow_ipfs.errors import IntegrityError, MlflowIpfsError, NotFoundError, StoreFormatError
from support import hostile_backups
from support.backup_sites import Site

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow_ipfs.content.blockstore.local import LocalStorage


@pytest.fixture(scope="module")
def backup(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    site = Site(tmp_path_factory.mktemp("site"))
    hostile_backups.fill(site.storage)
    site.advance(1)
    site.back_up()
    yield site.folder / "backup"
    site.storage.close()


def attempt(folder: Path, *, verify: bool) -> MlflowIpfsError | None:
    """Restore, and look at what came of it. Returns why it was refused."""
    backup = folder / "backup"
    before = outside(folder)
    url = sqlalchemy.make_url(f"sqlite:///{folder}/there/mlflow.db")
    refusal, problems = None, 0
    try:
        _, report, _ = restore_backup(backup, folder / "there/store", url, verify=verify)
        problems = len(report.problems) if report is not None else 0
    except MlflowIpfsError as error:
        refusal = error
    assert outside(folder) == before
    if refusal is None:
        with open_local_storage(folder / "there/store", create=False) as storage:
            use(storage, is_whole=verify and not problems)
        with open_local_storage(folder / "there/store", create=False) as storage:
            assert storage.scrub().healed is not None
    elif isinstance(refusal, StoreFormatError):
        assert not [path for path in (folder / "there").rglob("*") if path.is_file()], refusal
        assert not (folder / "there/store").exists()
    else:
        assert not (folder / "there/store/format.json").exists()
    return refusal


def outside(folder: Path) -> dict[Path, tuple[int, int]]:
    """All that isn't in the destination."""
    paths = [path for name in ("backup", "outside") for path in (folder / name).rglob("*")]
    return {path: (path.lstat().st_mtime_ns, path.lstat().st_size) for path in paths if not path.is_dir()}


def use(storage: LocalStorage, *, is_whole: bool) -> None:
    """Ask for all that there is: an answer, or one of our errors."""
    for multihash in list(storage.blocks.multihashes()):
        try:
            storage.blocks.get(CID(1, 0x55, multihash))
        except (IntegrityError, NotFoundError):
            assert not is_whole
    roots = [pin.cid for pin in storage.pins.list()] + [ref.cid for ref in storage.refs.list()]
    roots += [frozen.cid for frozen in storage.entries.list_frozen()]
    for root in roots:
        try:
            for _ in walk_blocks(storage.blocks, root):
                pass
            storage.file_path(root)
        except NotFoundError:
            pass  # a row is gone, and nothing tells that there was one
        except IntegrityError:
            assert not is_whole
    storage.entries.walk("mlflow", "a")
    with suppress(NotFoundError, IntegrityError):
        storage.measure_usage([roots])
        storage.collect_garbage(grace_seconds=0)


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize(
    "change",
    [
        "UPDATE block SET length = 4611686018427387904 WHERE data IS NULL",
        "UPDATE block SET length = -1 WHERE data IS NULL",
        "UPDATE block SET offset = -4096 WHERE data IS NULL",
        "UPDATE block SET offset = 'many' WHERE data IS NULL",
        "UPDATE block SET id = 4611686018427387904 WHERE id = 1",
        "UPDATE block SET form = 7",
        "UPDATE block SET multihash = x'00' WHERE id = 1",
        "UPDATE block SET place = 99 WHERE place IS NOT NULL",
        "UPDATE place SET size = 9223372036854775807",
        "UPDATE place SET size = 'large'",
        "UPDATE place SET mtime_ns = 1e300",
        "UPDATE place SET name = 'files/00/' || hex(zeroblob(200)) WHERE id = 1",
        "UPDATE place SET name = '../../outside/made' WHERE id = 1",
        "UPDATE ref SET version = 'latest'",
        "UPDATE pin SET cid = x'0155' WHERE cid = (SELECT min(cid) FROM pin)",
        "UPDATE entry SET cid = 'bafy'",
        "DELETE FROM meta",
        *hostile_backups.SCHEMAS[4:-1],
    ],
)
def test_what_no_index_has_is_refused(backup: Path, tmp_path: Path, change: str, verify: bool) -> None:
    copy = hostile_backups.copy_of(backup, tmp_path)
    with closing(sqlite3.connect(copy / "store/store.db", isolation_level=None)) as connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.execute(change)
    assert isinstance(attempt(tmp_path, verify=verify), StoreFormatError)


def test_code_in_an_index_is_left_out(backup: Path, tmp_path: Path) -> None:
    copy = hostile_backups.copy_of(backup, tmp_path)
    with closing(sqlite3.connect(copy / "store/store.db", isolation_level=None)) as connection:
        for number, statement in enumerate(hostile_backups.SCHEMAS[1:4]):
            connection.execute(statement.replace("mine", f"mine{number}"))
    assert attempt(tmp_path, verify=True) is None


def test_a_row_that_tells_the_wrong_place_is_found(backup: Path, tmp_path: Path) -> None:
    """Though the object, in which the block lies elsewhere, is whole."""
    copy = hostile_backups.copy_of(backup, tmp_path)
    with closing(sqlite3.connect(copy / "store/store.db", isolation_level=None)) as connection:
        query = (
            "UPDATE block SET offset = offset + 1 WHERE id = (SELECT b.id FROM block b JOIN place p ON p.id = b.place"
        )
        connection.execute(f"{query} WHERE p.kind = 'object' AND b.offset = 1000 LIMIT 1)")
    url = sqlalchemy.make_url(f"sqlite:///{tmp_path}/there/mlflow.db")
    _, report, _ = restore_backup(copy, tmp_path / "there/store", url)
    assert report is not None
    assert len(report.problems) == 1


@given(seed=st.integers(0, (1 << 32) - 1), count=st.sampled_from([1, 1, 1, 2, 5]), verify=st.booleans())
def test_whatever_is_wrong_with_a_backup(backup: Path, seed: int, count: int, verify: bool) -> None:
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="mlflow-ipfs-test-") as name:
        folder = Path(name)
        copy = hostile_backups.copy_of(backup, folder)
        note("; ".join(hostile_backups.spoil(copy, chance) for _ in range(count)))
        note(repr(attempt(folder, verify=verify)))
