"""The helpers that say whether a store is sound find what they are there to find."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import pytest

from mlflow_ipfs.content.cid import CID, DAG_PB
from mlflow_ipfs.content.codecs.dag_pb import Link, encode_node
from mlflow_ipfs.content.storage.local import open_local_storage
from mlflow_ipfs.content.storage.local.index.name_tables import NAME_TABLES
from mlflow_ipfs.content.system.disk import Disk
from support import storages
from support.storages import METHODS, NO_STEPS, STEPS, SteppedDisk, check_sound, publish_blocks, put_block, steps_except

if TYPE_CHECKING:
    from pathlib import Path

ROWS = {
    "pin": "INSERT INTO pin VALUES ('user', ?, 'confirmed')",
    "ref": "INSERT INTO ref VALUES ('name', ?, 1)",
    "entry": "INSERT INTO entry VALUES (x'61', x'', x'62', ?, 1, 1, 1)",
    "frozen": "INSERT INTO frozen VALUES (x'61', x'62', ?)",
    "outbox": "INSERT INTO outbox (target, action, cid, created_at) VALUES ('t', 'pin', ?, 1)",
}


def test_every_kind_of_name_has_a_case_here() -> None:
    assert set(ROWS) == {table.table for table in NAME_TABLES}


@pytest.mark.parametrize("table", ROWS)
def test_a_name_of_content_that_lacks_a_block_is_found(tmp_path: Path, table: str) -> None:
    with open_local_storage(tmp_path / "store") as storage:
        leaf = CID.of(b"absent")
        node = encode_node([Link(leaf, b"a", 6)], b"\x08\x01")
        cid = CID.of(node, DAG_PB)
        put_block(storage, cid, node)
        check_sound(storage)
        connection = sqlite3.connect(storage.directory / "store.db")
        with connection:
            connection.execute(ROWS[table], (bytes(cid),))
        connection.close()
        with pytest.raises(AssertionError, match=f"table {table} is incomplete: .*{leaf}"):
            check_sound(storage)


def test_content_that_is_whole_passes(tmp_path: Path) -> None:
    with open_local_storage(tmp_path / "store") as storage:
        publish_blocks(storage, b"a", b"b")
        check_sound(storage)


def test_each_method_of_the_disk_is_a_step_or_has_a_reason() -> None:
    assert {*STEPS, *NO_STEPS} == set(METHODS)
    assert not set(STEPS) & NO_STEPS.keys()
    assert {"copy_database", "set_mtime", "make_read_only"} <= set(STEPS)
    assert all(name in vars(SteppedDisk) for name in STEPS)


def test_a_reason_for_something_that_is_no_step_is_refused() -> None:
    with pytest.raises(ValueError, match="not a step of Disk: vanished"):
        steps_except({"vanished": "it is gone"})


def test_a_stepped_disk_tells_of_a_step_and_takes_it(tmp_path: Path) -> None:
    told: list[str] = []
    disk = SteppedDisk(told.append)
    descriptor = disk.create(tmp_path / "file", mode=0o640)
    disk.set_mtime(descriptor, 5)
    disk.close(descriptor)
    assert told == ["create", "set_mtime"]
    assert (tmp_path / "file").stat().st_mtime_ns == 5
    assert tuple(name for name in vars(Disk) if not name.startswith("_")) == storages.METHODS
