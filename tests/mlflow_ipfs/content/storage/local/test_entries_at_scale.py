"""Questions about a mutable tree cost what their answer costs, however large the tree is.

Measured in steps of SQLite's virtual machine, which are the same on every machine.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from mlflow_ipfs.content.names.entries import MfsEntry
from mlflow_ipfs.content.storage.base import Changes
from mlflow_ipfs.content.storage.local import open_local_storage
from support.storages import publish_blocks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow_ipfs.content.storage.local import LocalStorage

pytestmark = pytest.mark.slow

RUNS, FILES = 200, 500  # 100,000 files


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStorage]:
    with open_local_storage(tmp_path_factory.mktemp("large") / "store") as opened:
        [cid] = publish_blocks(opened, b"abc")
        entries = [
            MfsEntry("mlflow", f"0/run{run:04d}/artifacts/deep/{file % 7}/file{file:05d}", cid, 3, 3, 1)
            for run in range(RUNS)
            for file in range(FILES)
        ]
        with opened.publish() as publication:
            publication.commit(Changes(entries=entries))
        yield opened


@contextmanager
def steps(storage: LocalStorage) -> Iterator[list[int]]:
    """Count SQLite's steps, in tens."""
    counted = [0]

    def count() -> None:
        counted[0] += 10

    storage._context.database.close()
    storage._context.database._is_closed = False
    with storage._context.database.read() as connection:
        connection.set_progress_handler(count, 10)
    yield counted
    connection.set_progress_handler(None, 0)


def test_stat_takes_a_few_steps(storage: LocalStorage) -> None:
    for path in ("0", "0/run0100/artifacts", "0/run0100/artifacts/deep/3/file00003", "0/nothing", ""):
        with steps(storage) as counted:
            storage.entries.stat("mlflow", path)
        assert counted[0] < 200, path


def test_listing_takes_steps_for_what_it_names(storage: LocalStorage) -> None:
    with steps(storage) as counted:
        assert len(storage.entries.list("mlflow", "0")) == RUNS
    assert counted[0] < 100 * RUNS
    with steps(storage) as counted:
        assert [item.name for item in storage.entries.list("mlflow", "0/run0100/artifacts")] == ["deep"]
    assert counted[0] < 300
    with steps(storage) as counted:
        assert len(storage.entries.list("mlflow", "0/run0100/artifacts/deep/3")) == 71
    assert counted[0] < 3000


def test_deleting_one_run_leaves_the_others_unread(storage: LocalStorage) -> None:
    with steps(storage) as counted:
        assert storage.entries.delete("mlflow", "0/run0199") == FILES
    assert counted[0] < 100 * FILES
    assert len(storage.entries.list("mlflow", "0")) == RUNS - 1
