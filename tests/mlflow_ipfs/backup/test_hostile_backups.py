"""A backup that is damaged, or was made to do harm: a sound store comes of it, or one of our errors and nothing else."""

from __future__ import annotations

import random
import shutil
import sqlite3
import tempfile
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import sqlalchemy
from hypothesis import given, note
from hypothesis import strategies as st

from mlflow_ipfs.backup.backing_up import restore_backup
from mlflow_ipfs.backup.backup_directory import find_store
from mlflow_ipfs.content.cid import CID
from mlflow_ipfs.content.dag import walk_blocks
from mlflow_ipfs.content.storage.local import open_local_storage
from mlflow_ipfs.content.storage.local.index.cache_rows import record_cache_change
from mlflow_ipfs.errors import IntegrityError, MlflowIpfsError, NotFoundError, StoreFormatError
from support import hostile_backups
from support.backup_sites import Site
from support.storages import multihashes, put_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow_ipfs.content.storage.local import LocalStorage

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def backup(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    site = Site(tmp_path_factory.mktemp("site"))
    hostile_backups.fill(site.storage)
    site.advance(1)
    site.back_up()
    yield site.directory / "backup"
    site.storage.close()


def attempt(directory: Path, *, verify: bool) -> MlflowIpfsError | None:
    """Restore, and look at what came of it. Returns why it was refused."""
    backup = directory / "backup"
    before = outside(directory)
    url = sqlalchemy.make_url(f"sqlite:///{directory}/there/mlflow.db")
    refusal, told = None, set[CID]()
    try:
        _, report, _ = restore_backup(backup, directory / "there/store", url, verify=verify)
        assert report is not None
        told = {cid for cid, _ in report.problems}
    except MlflowIpfsError as error:
        refusal = error
    assert outside(directory) == before
    if refusal is None:
        with open_local_storage(directory / "there/store", create=False) as storage:
            use(storage, is_whole=verify and not told)
        with open_local_storage(directory / "there/store", create=False) as storage:
            found = {cid for cid, _ in storage.scrub().problems}
        assert not verify or found <= told, "what is damaged is told when it is restored"
    elif isinstance(refusal, StoreFormatError):
        assert not [path for path in (directory / "there").rglob("*") if path.is_file()], refusal
        assert not (directory / "there/store").exists()
    else:
        assert not (directory / "there/store/format.json").exists()
    return refusal


def outside(directory: Path) -> dict[Path, tuple[int, int]]:
    """All that is not in the destination."""
    paths = [path for name in ("backup", "outside") for path in (directory / name).rglob("*")]
    return {path: (path.lstat().st_mtime_ns, path.lstat().st_size) for path in paths if not path.is_dir()}


def use(storage: LocalStorage, *, is_whole: bool) -> None:
    """Ask for all that there is: an answer, or one of our errors."""
    for multihash in list(multihashes(storage)):
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
    with suppress(NotFoundError, IntegrityError):
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
        "UPDATE place SET class = 'cache'",
        "UPDATE place SET condemned_at = -1",
        "UPDATE ref SET version = 'latest'",
        "UPDATE pin SET cid = x'0155' WHERE cid = (SELECT min(cid) FROM pin)",
        "UPDATE entry SET cid = 'bafy'",
        "DELETE FROM meta",
        "CREATE UNIQUE INDEX mine ON place (kind) WHERE last_used > 2000000000",
        "CREATE UNIQUE INDEX place_in_cache ON place (kind) WHERE class = 'cache'",
        "CREATE TABLE named (cid)",
        "DROP INDEX block_of_place",
        *hostile_backups.SCHEMAS[4:-1],
    ],
)
def test_what_no_index_has_is_refused(backup: Path, tmp_path: Path, change: str, verify: bool) -> None:
    copy = hostile_backups.copy_of(backup, tmp_path)
    with closing(sqlite3.connect(copy / "store/store.db", isolation_level=None)) as connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.execute(change)
    assert isinstance(attempt(tmp_path, verify=verify), StoreFormatError)


@pytest.mark.parametrize(
    ("table", "rule", "other"),
    [
        ("pin", "PRIMARY KEY (owner, cid)", "PRIMARY KEY (owner, cid), UNIQUE (state) ON CONFLICT IGNORE"),
        ("pin", "owner TEXT NOT NULL", "owner TEXT NOT NULL CHECK (owner NOT LIKE 'new%')"),
        ("pin", "owner TEXT NOT NULL", "owner TEXT COLLATE NOCASE NOT NULL"),
        ("place", "name TEXT NOT NULL UNIQUE", "name TEXT NOT NULL"),
        ("place", "DEFAULT 'owned'", "DEFAULT 'cache'"),
        ("block", "NOT NULL UNIQUE", "NOT NULL UNIQUE ON CONFLICT REPLACE"),
        ("block", "REFERENCES place (id)", "REFERENCES place (id) ON DELETE CASCADE"),
    ],
)
def test_tables_with_other_rules_are_refused(backup: Path, tmp_path: Path, table: str, rule: str, other: str) -> None:
    """Though every row is as it must be: what is written later would be lost, or be refused by SQLite."""
    copy = hostile_backups.copy_of(backup, tmp_path)
    with closing(sqlite3.connect(copy / "store/store.db", isolation_level=None)) as connection:
        objects = "SELECT sql FROM sqlite_master WHERE tbl_name = ? AND sql IS NOT NULL ORDER BY type DESC"
        sql, *indexes = [row[0] for row in connection.execute(objects, (table,))]
        assert rule in sql
        connection.execute("PRAGMA legacy_alter_table = ON")
        connection.execute(f"ALTER TABLE {table} RENAME TO former")
        connection.execute(sql.replace(rule, other))
        connection.execute(f"INSERT OR IGNORE INTO {table} SELECT * FROM former")
        connection.execute("DROP TABLE former")
        for index in indexes:
            connection.execute(index)
    refusal = attempt(tmp_path, verify=True)
    assert isinstance(refusal, StoreFormatError)
    assert repr(table) in str(refusal)


def test_the_tables_of_a_cache_and_of_a_gc_are_accepted(backup: Path, tmp_path: Path) -> None:
    copy = hostile_backups.copy_of(backup, tmp_path)
    with closing(sqlite3.connect(copy / "store/store.db", isolation_level=None)) as connection:
        record_cache_change(connection)
        connection.execute("CREATE TABLE named (seq INTEGER PRIMARY KEY, cid BLOB NOT NULL)")
        connection.execute("ANALYZE")
    assert attempt(tmp_path, verify=True) is None


@pytest.mark.parametrize("key", ["last_condemnation", "cache_changes"])
@pytest.mark.parametrize("value", ["many", "", "-5", "9223372036854775807", "1" + "0" * 5000, "\u0663"])
def test_counts_that_are_no_numbers_begin_anew(backup: Path, tmp_path: Path, key: str, value: str) -> None:
    copy = hostile_backups.copy_of(backup, tmp_path)
    with closing(sqlite3.connect(copy / "store/store.db", isolation_level=None)) as connection:
        connection.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", (key, value))
    assert attempt(tmp_path, verify=True) is None
    with open_local_storage(tmp_path / "there/store", create=False) as storage:
        with storage.publish(in_cache=True) as publication:
            put_file(publication, b"cached" * 1000)
            publication.commit()
        storage.collect_garbage()


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


@pytest.mark.parametrize("name", ["store", "next", "store/files", "store/quarantine"])
def test_no_directory_of_a_backup_is_followed_elsewhere(backup: Path, tmp_path: Path, name: str) -> None:
    """Not even to one in which all is as it must be."""
    copy = hostile_backups.copy_of(backup, tmp_path)
    elsewhere = tmp_path / "outside/directory"
    if (copy / name).exists():
        (copy / name).rename(elsewhere)
    else:  # the next backup, as one that was decided and not yet moved
        shutil.copytree(copy, elsewhere)
    (copy / name).symlink_to(elsewhere)
    refusal = attempt(tmp_path, verify=True)
    assert isinstance(refusal, StoreFormatError)
    assert str(copy / name) in str(refusal)
    with pytest.raises(StoreFormatError, match="instead of a directory"):
        find_store(copy)


@given(seed=st.integers(0, (1 << 32) - 1), count=st.sampled_from([1, 1, 1, 2, 5]), verify=st.booleans())
def test_whatever_is_wrong_with_a_backup(backup: Path, seed: int, count: int, verify: bool) -> None:
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="mlflow-ipfs-test-") as name:
        directory = Path(name)
        copy = hostile_backups.copy_of(backup, directory)
        note("; ".join(hostile_backups.spoil(copy, chance) for _ in range(count)))
        note(repr(attempt(directory, verify=verify)))
