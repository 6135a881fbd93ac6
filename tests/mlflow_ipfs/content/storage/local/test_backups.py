"""Copies of the index: when they are made, and that they are whole."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from typing import TYPE_CHECKING

import pytest

from mlflow_ipfs.content.storage.local import open_local_storage
from mlflow_ipfs.content.storage.local.repair.index_backups import DUE_SECONDS, KEPT, list_backups, make_backup
from mlflow_ipfs.content.system import disk
from mlflow_ipfs.content.system.disk import Disk
from support.storages import check_sound, publish_blocks, publish_file

if TYPE_CHECKING:
    from pathlib import Path

    from mlflow_ipfs.content.storage.local import LocalStorage


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in (directory / "backup").iterdir())


def test_a_copy_in_the_place_of_the_index_has_everything(storage: LocalStorage, directory: Path) -> None:
    publish_file(storage, b"object" * 5000)
    [cid] = publish_blocks(storage, b"inline", owner="me")
    storage.refs.set("a", cid, expected_version=0)
    backup = make_backup(storage._context)
    assert backup is not None
    storage.close()
    for path in directory.glob("store.db*"):
        path.unlink()
    backup.rename(directory / "store.db")
    with open_local_storage(directory) as restored:
        assert restored.refs.get("a").cid == cid
        assert restored.blocks.get(cid) == b"inline"
        assert len(list(restored.pins.list())) == 2
        check_sound(restored)


def test_a_gc_makes_one_and_only_the_newest_stay(storage: LocalStorage, directory: Path) -> None:
    storage.collect_garbage(dry_run=True)
    assert names(directory) == []
    made = []
    for _ in range(KEPT + 2):
        storage.collect_garbage()
        made.append(names(directory)[-1])
    assert made == sorted(set(made))
    assert names(directory) == made[2:]


def test_a_copy_of_the_future_does_not_count_as_newer(storage: LocalStorage, directory: Path) -> None:
    """A clock that was wrong for a while must not be the end of all backups."""
    for year in (2097, 2098, 2099):
        (directory / "backup" / f"store-{year}0101T000000Z.db").write_bytes(b"made when the clock was wrong")
    backup = make_backup(storage._context)
    assert backup is not None
    assert backup.exists()
    assert list_backups(storage._context.layout)[0] == backup


def test_closing_makes_one_a_day_if_something_was_written(directory: Path) -> None:
    with open_local_storage(directory):
        pass
    assert names(directory) == []
    for _ in range(2):
        with open_local_storage(directory) as storage:
            publish_file(storage, os.urandom(5000))
    [name] = names(directory)
    old = time.time() - DUE_SECONDS - 60
    os.utime(directory / "backup" / name, (old, old))
    with open_local_storage(directory) as storage:
        assert list(storage.pins.list())
    assert names(directory) == [name], "nothing was written"
    (directory / "backup" / name).rename(directory / "backup" / "store-20000101T000000Z.db")
    with open_local_storage(directory) as storage:
        publish_file(storage, os.urandom(5000))
    assert len(names(directory)) == 2


def test_closing_makes_one_if_only_small_content_was_written(directory: Path) -> None:
    """Content of a few bytes is stored in the index, without a draft: the index is the only place that has it."""
    with open_local_storage(directory) as storage:
        publish_blocks(storage, b"small")
    assert len(list((directory / "backup").iterdir())) == 1


def test_a_copy_is_one_consistent_state_while_others_write(storage: LocalStorage, directory: Path) -> None:
    stop = threading.Event()

    def write() -> None:
        with open_local_storage(directory) as other:
            number = 0
            while not stop.is_set():
                number += 1
                publish_blocks(other, b"%d" % number, owner="writer")

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(20):
            backup = make_backup(storage._context)
            assert backup is not None
            with sqlite3.connect(backup) as connection:
                assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
                blocks, pins = (connection.execute(f"SELECT count(*) FROM {t}").fetchone()[0] for t in ("block", "pin"))
                assert blocks == pins
            connection.close()
    finally:
        stop.set()
        thread.join()


class FullDisk(Disk):
    def free_bytes(self, path: Path) -> int:
        return 1 << 30 if path.name != "store" else 1000


class DiskThatLosesNames(Disk):
    def rename(self, source: Path, destination: Path) -> None:
        if destination.parent.name == "backup":
            raise OSError(5, "Input/output error", str(destination))
        super().rename(source, destination)


@pytest.mark.parametrize("disk", [FullDisk(), DiskThatLosesNames()])
def test_a_copy_that_cannot_be_made_stops_nothing(
    directory: Path, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    with open_local_storage(directory, disk=disk) as storage:
        publish_blocks(storage, b"a")
        storage.collect_garbage()
        assert "no backup" in caplog.text
    assert names(directory) == []
    with open_local_storage(directory) as storage:
        assert list_backups(storage._context.layout) == []
        check_sound(storage)


def test_a_copy_ends_though_somebody_writes_without_a_pause(
    storage: LocalStorage, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_blocks(storage, *(number.to_bytes(2, "big") * 500 for number in range(60)))
    monkeypatch.setattr(disk, "_COPY_PAGES", 1)
    steps: list[int] = []

    class WrittenBetween(sqlite3.Connection):
        """Another connection commits between every two steps of a copy."""

        def backup(self, target: sqlite3.Connection, *, pages: int = -1, **_: object) -> None:
            def write(*_: object) -> None:
                steps.append(len(steps))
                assert len(steps) < 500, "the copy begins anew each time"
                publish_blocks(other, len(steps).to_bytes(2, "big"))

            super().backup(target, pages=pages, progress=write)

    connect = sqlite3.connect
    with open_local_storage(directory) as other:
        monkeypatch.setattr(sqlite3, "connect", lambda *args, **kw: connect(*args, factory=WrittenBetween, **kw))
        with open_local_storage(directory) as writer:
            assert make_backup(writer._context) is not None
    assert len(steps) > 20
