"""A rebuild keeps everybody out, and can be killed or run out of room at any step."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from functools import partial
from typing import TYPE_CHECKING

import pytest

from mlflow_ipfs.content.cid import CID
from mlflow_ipfs.content.storage.local import open_local_storage
from mlflow_ipfs.content.storage.local.repair.index_backups import make_backup
from mlflow_ipfs.content.storage.local.repair.rebuild import rebuild_index
from mlflow_ipfs.errors import ImmutableError, NotFoundError, StoreBusyError, StoreFormatError, StoreFullError
from support.faulty_disk import KillingDisk
from support.lost_index import (
    lose_index,
    make_pack,
)
from support.storages import (
    FullDisk,
    SteppedDisk,
    check_sound,
    leftovers,
    publish_blocks,
    publish_file,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mlflow_ipfs.content.names.pins import Pin
    from mlflow_ipfs.content.storage.local import LocalStorage


def test_a_lost_format_file_is_written_again(directory: Path) -> None:
    with open_local_storage(directory) as storage:
        publish_blocks(storage, b"a")
        make_backup(storage._context)
        store_id = storage.store_id
    for broken in (None, b"{"):
        lose_index(directory)
        (directory / "format.json").unlink()
        if broken is not None:
            (directory / "format.json").write_bytes(broken)
        assert rebuild_index(directory).store_id == store_id
        with open_local_storage(directory, create=False) as storage:
            assert storage.store_id == store_id
            check_sound(storage)


def test_lost_locks_and_directories_are_made_again(directory: Path) -> None:
    with open_local_storage(directory) as storage:
        [cid] = publish_blocks(storage, b"a")
    for path in [*directory.glob("*.lock"), directory / "reserve"]:
        path.unlink()
    for name in ("tmp", "views", "sessions", "quarantine"):
        shutil.rmtree(directory / name)
    rebuild_index(directory)
    with open_local_storage(directory) as storage:
        assert storage.blocks.get(cid) == b"a"


def test_what_is_no_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "diary.txt").write_text("mine")
    with pytest.raises(NotFoundError, match="is not a store"):
        rebuild_index(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["diary.txt"]
    with pytest.raises(NotFoundError, match="no store found"):
        rebuild_index(tmp_path / "nothing")


def test_newer_formats_are_refused(directory: Path) -> None:
    open_local_storage(directory).close()
    with sqlite3.connect(directory / "store.db") as connection:
        connection.execute("PRAGMA user_version = 2")
    connection.close()
    with pytest.raises(StoreFormatError, match="upgrade"):
        rebuild_index(directory)
    file = directory / "format.json"
    file.write_text(file.read_text().replace('"min_writer": 1', '"min_writer": 2'))
    (directory / "store.db").unlink()
    with pytest.raises(StoreFormatError, match="upgrade"):
        rebuild_index(directory)


def test_an_index_of_another_store_is_not_used(directory: Path, tmp_path: Path) -> None:
    with open_local_storage(tmp_path / "other") as other:
        publish_blocks(other, b"foreign")
    with open_local_storage(directory) as storage:
        publish_blocks(storage, b"own")
        make_backup(storage._context)
    lose_index(directory)
    shutil.copy(tmp_path / "other" / "store.db", directory / "store.db")
    report = rebuild_index(directory)
    assert "it belongs to the store" in report.sources[-1].state
    with open_local_storage(directory) as storage:
        assert not storage.blocks.has(CID.of(b"foreign"))
        assert storage.blocks.has(CID.of(b"own"))


def test_somebody_who_uses_the_store_is_named(directory: Path) -> None:
    code = (
        "import sys; from mlflow_ipfs.content.storage.local import open_local_storage\n"
        f"s = open_local_storage({str(directory)!r}); s.make_view_directory(); print('up', flush=True); sys.stdin.read()"
    )
    open_local_storage(directory).close()
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(StoreBusyError, match=f"process {process.pid} uses the store"):
            rebuild_index(directory, timeout_seconds=0.1)
        process.communicate()
    rebuild_index(directory)


@pytest.mark.parametrize("lock", ["gc_lock", "publish_lock"])
def test_locks_are_waited_for_with_a_limit(storage: LocalStorage, directory: Path, lock: str) -> None:
    started = time.monotonic()
    with getattr(storage._context, lock).exclusive(), pytest.raises(StoreBusyError, match=str(os.getpid())):
        rebuild_index(directory, timeout_seconds=0.2)
    assert time.monotonic() - started < 60


def test_a_program_that_had_the_old_index_open_writes_nothing_into_either(directory: Path) -> None:
    with open_local_storage(directory) as idle:
        assert list(idle.pins.list()) == []
        rebuild_index(directory)
        with pytest.raises(StoreFormatError, match="replaced"):
            publish_blocks(idle, b"too late")
    with open_local_storage(directory) as storage:
        assert not storage.blocks.has(CID.of(b"too late"))
        publish_blocks(storage, b"in time")
        check_sound(storage)


def test_a_full_disk_leaves_the_store_as_it_was(directory: Path) -> None:
    with open_local_storage(directory) as storage:
        [cid] = publish_blocks(storage, b"a")
    for room in range(100):
        disk = FullDisk(room)
        try:
            rebuild_index(directory, disk=disk)
        except (StoreFullError, OSError):
            pass
        else:
            if not disk.refused:
                break
        if not (directory / "store.db").exists():
            rebuild_index(directory)
        with open_local_storage(directory) as storage:
            assert storage.blocks.get(cid) == b"a"
            assert [pin.cid for pin in storage.pins.list()] == [cid]
            assert not leftovers(directory)
    else:
        pytest.fail("it never had enough room")
    assert room > 3


@pytest.fixture
def template(tmp_path: Path) -> Iterator[Path]:
    """A store of which the last writes stand only in the log of its index, and which has a file that nobody placed."""
    directory = tmp_path / "template"
    with open_local_storage(directory) as storage:
        publish_file(storage, b"content" * 1000, owner="first")
        make_pack(storage)
        make_backup(storage._context)
        publish_file(storage, b"later" * 1000, owner="only in the log")
        junk = directory / "files" / "ab" / "junk"
        junk.parent.mkdir(exist_ok=True)
        junk.write_bytes(b"junk")
        assert (directory / "store.db-wal").stat().st_size
        (directory / "reserve").unlink()  # slow to copy
        yield directory


def copy_store(template: Path, directory: Path) -> None:
    shutil.copytree(template, directory, ignore=lambda path, names: names if path.endswith("/sessions") else [])


def check_pins(directory: Path, expected: set[Pin]) -> None:
    with open_local_storage(directory) as storage:
        assert set(storage.pins.list()) == expected
        check_sound(storage)


@pytest.mark.slow
def test_killed_at_each_step(template: Path, directory: Path) -> None:
    with open_local_storage(template) as storage:
        pins = set(storage.pins.list())
    steps: list[str] = []
    copy_store(template, directory)
    rebuild_index(directory, disk=SteppedDisk(steps.append))
    shutil.rmtree(directory)
    moves_from = steps.index("link")  # before that, only drafts come and go
    for number in [*range(0, moves_from, 6), *range(moves_from, len(steps) + 1)]:
        copy_store(template, directory)
        survived = run_until_killed(partial(rebuild_index, directory, disk=KillingDisk(number)))
        assert survived == (number == len(steps))
        if (directory / "store.db").exists():
            check_pins(directory, pins)  # the old index, or the new one: never one without its log
        else:
            with pytest.raises(StoreFormatError, match="doctor --rebuild"):
                open_local_storage(directory)
        assert rebuild_index(directory).recovered == ()
        check_pins(directory, pins)
        assert not list(directory.glob("quarantine/index-*/moving"))
        assert list(directory.glob("quarantine/*-junk"))
        shutil.rmtree(directory)


def run_until_killed(work: Callable[[], object]) -> bool:
    """Run in a child. Returns whether it lived to the end."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:  # noqa: BLE001 - whatever it is, the child must not go on as a test
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, -signal.SIGKILL)
    return code == 0


def test_a_read_only_mount_is_refused(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_local_storage(directory).close()
    monkeypatch.setattr("mlflow_ipfs.content.storage.local.repair.rebuild.protocol.is_read_only", lambda _: True)
    with pytest.raises(ImmutableError, match="read-only"):
        rebuild_index(directory)
