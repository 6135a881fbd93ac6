"""An index opened for reading alone: what is in its log counts, and nothing appears beside it for no reason."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from mlflow_ipfs.content.storage.local import open_local_storage
from mlflow_ipfs.content.storage.local.index.index_file import open_index_file, reading_index_file
from mlflow_ipfs.errors import StoreFormatError
from support.storages import publish_blocks

if TYPE_CHECKING:
    from pathlib import Path

COUNT = "SELECT count(*) FROM pin"


@pytest.fixture
def index(tmp_path: Path) -> Path:
    with open_local_storage(tmp_path / "store") as storage:
        publish_blocks(storage, b"kept")
    (tmp_path / "copy").mkdir()
    return (tmp_path / "store/store.db").rename(tmp_path / "copy/store.db")


def test_nothing_is_written_to_it_or_beside_it(index: Path) -> None:
    before = index.read_bytes()
    with reading_index_file(index) as connection:
        assert connection.execute(COUNT).fetchone() == (1,)
        assert [path.name for path in index.parent.iterdir()] == ["store.db"]
    with pytest.raises(StoreFormatError, match="readonly"), reading_index_file(index) as connection:
        connection.execute("DELETE FROM pin")
    assert index.read_bytes() == before


@pytest.mark.parametrize("is_live", [False, True])
def test_what_is_only_in_its_log_is_read(index: Path, *, is_live: bool) -> None:
    with closing(sqlite3.connect(index, isolation_level=None)) as writer:
        writer.execute("DELETE FROM pin")
        with closing(open_index_file(index, is_live=is_live)) as reader:
            assert reader.execute(COUNT).fetchone() == (0,)


def test_what_is_written_while_a_live_index_is_open_is_read(index: Path) -> None:
    with (
        closing(open_index_file(index, is_live=True)) as reader,
        closing(sqlite3.connect(index, isolation_level=None)) as writer,
    ):
        assert reader.execute(COUNT).fetchone() == (1,)
        writer.execute("DELETE FROM pin")
        assert reader.execute(COUNT).fetchone() == (0,)


def test_one_that_is_gone_or_damaged_is_named(index: Path) -> None:
    index.write_bytes(b"something else " * 1000)
    for path in (index, index.with_name("gone.db")):
        with pytest.raises(StoreFormatError, match=path.name), reading_index_file(path) as connection:
            connection.execute(COUNT)
    assert [path.name for path in index.parent.iterdir()] == ["store.db"]
