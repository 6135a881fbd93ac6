from __future__ import annotations

import sqlite3
from contextlib import closing

from mlflow_ipfs.content.names.kinds import NameKind
from mlflow_ipfs.content.storage.local.index.name_tables import NAME_TABLES
from mlflow_ipfs.content.storage.local.index.schema import create_tables


def test_every_table_that_names_content_is_in_the_list() -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        create_tables(connection, "id")
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        columns = {table: [row[1] for row in connection.execute(f"PRAGMA table_info({table})")] for table in tables}
    with_cid = {table: set(names) for table, names in columns.items() if "cid" in names}
    assert {table.table: set(table.columns) for table in NAME_TABLES} == with_cid


def test_every_kind_has_one_table_and_a_noun() -> None:
    assert [table.kind for table in NAME_TABLES] == list(NameKind)
    assert all(kind.noun for kind in NameKind)
