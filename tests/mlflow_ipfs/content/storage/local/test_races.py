"""Many threads and processes at one store."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mlflow_ipfs.content.cid import CID
from mlflow_ipfs.content.files.file_reader import open_unixfs
from mlflow_ipfs.content.names.pins import USER, Pin
from mlflow_ipfs.content.storage.base import Changes
from mlflow_ipfs.content.storage.local import open_local_storage
from mlflow_ipfs.errors import ConflictError, StoreBusyError
from support.processes import fork_child as start
from support.storages import (
    check_sound,
    files_of,
    multihashes,
    publish_blocks,
    publish_file,
    put_file,
    raw,
    rows_of,
)

if TYPE_CHECKING:
    from mlflow_ipfs.content.storage.local import LocalStorage

pytestmark = pytest.mark.slow


def finish(*children: int) -> None:
    """Wait for children; each must have ended well."""
    for child in children:
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0


def content(number: int) -> bytes:
    return number.to_bytes(4, "big") * 3000


def publish_all(storage: LocalStorage, count: int, owner: str) -> None:
    for number in range(count):
        with storage.publish() as publication:
            root = put_file(publication, content(number))
            for index in range(80 if number % 2 else 2):
                publication.put(*raw(content(number)[: index + 900]))
            publication.commit(Changes(pins=[Pin(owner, root)]))


def test_processes_publish_the_same_content_at_once(directory: Path) -> None:
    open_local_storage(directory).close()
    begin = time.monotonic() + 0.3

    def work() -> None:
        with open_local_storage(directory) as storage:
            time.sleep(max(0, begin - time.monotonic()))
            publish_all(storage, 10, f"process-{os.getpid()}")

    finish(*[start(work) for _ in range(4)])
    with open_local_storage(directory) as storage:
        check_sound(storage)
        assert len(list(storage.pins.list())) == 40
        assert len({pin.cid for pin in storage.pins.list()}) == 10
        assert rows_of(storage, "SELECT count(*) FROM place WHERE kind = 'object'") == [(10,)]
        assert files_of(storage) == {row[0] for row in rows_of(storage, "SELECT name FROM place")}
        for pin in storage.pins.list():
            assert storage.file_path(pin.cid) is not None


def test_threads_publish_at_once_with_one_storage(directory: Path) -> None:
    with open_local_storage(directory) as storage:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda number: publish_all(storage, 6, f"thread-{number}"), range(8)))
        check_sound(storage)
        assert len(list(storage.pins.list())) == 48
        assert files_of(storage) == {row[0] for row in rows_of(storage, "SELECT name FROM place")}


def test_gc_beside_publishers_and_readers(directory: Path) -> None:
    with open_local_storage(directory) as storage:
        [kept] = publish_blocks(storage, b"kept all along")
    stop = time.monotonic() + 2

    def collect() -> None:
        with open_local_storage(directory) as storage:
            while time.monotonic() < stop:
                storage.collect_garbage()
                time.sleep(0.01)

    def publish() -> None:
        with open_local_storage(directory) as storage:
            number = 0
            while time.monotonic() < stop:
                owner = f"{os.getpid()}"
                root = publish_file(storage, content(number % 5), owner=owner)
                assert open_unixfs(storage.blocks, root).read() == content(number % 5)
                path = storage.file_path(root)
                assert path is not None
                assert path.read_bytes() == content(number % 5)
                storage.pins.remove(root, owner)
                publish_blocks(storage, os.urandom(100), owner=None)
                assert storage.blocks.get(kept) == b"kept all along"
                number += 1

    finish(start(collect), *[start(publish) for _ in range(3)])
    with open_local_storage(directory) as storage:
        check_sound(storage)
        storage.collect_garbage()
        assert list(multihashes(storage)) == [kept.multihash]


def test_one_of_two_processes_changes_a_ref(directory: Path) -> None:
    with open_local_storage(directory) as storage:
        [cid] = publish_blocks(storage, b"target")

    def work() -> None:
        with open_local_storage(directory) as storage:
            done = 0
            while done < 10:
                version = next((ref.version for ref in storage.refs.list("counter")), 0)
                try:
                    storage.refs.set("counter", cid, expected_version=version)
                except ConflictError:
                    continue
                done += 1

    finish(*[start(work) for _ in range(3)])
    with open_local_storage(directory) as storage:
        assert storage.refs.get("counter").version == 30


def test_who_holds_the_lock_is_named(directory: Path) -> None:
    storage = open_local_storage(directory, timeout_seconds=0.2)
    reader, writer = os.pipe()

    def hold() -> None:
        with open_local_storage(directory) as other, other._context.database.write():
            os.write(writer, b"x")
            time.sleep(1)

    child = start(hold)
    os.read(reader, 1)
    began = time.monotonic()
    with pytest.raises(StoreBusyError, match=f"process {child} .* is writing") as caught:
        publish_blocks(storage, b"in vain")
    assert 0.15 < time.monotonic() - began < 0.8
    assert f"{directory} is locked" in str(caught.value)
    assert not storage.blocks.has(CID.of(b"in vain"))
    finish(child)
    publish_blocks(storage, b"now")
    storage.close()


def test_gc_names_who_is_collecting(directory: Path) -> None:
    storage = open_local_storage(directory, timeout_seconds=0.2)
    reader, writer = os.pipe()

    def hold() -> None:
        with open_local_storage(directory) as other, other._context.gc_lock.exclusive():
            os.write(writer, b"x")
            time.sleep(0.7)

    child = start(hold)
    os.read(reader, 1)
    with pytest.raises(StoreBusyError, match=f"process {child} "):
        storage.collect_garbage()
    finish(child)
    storage.collect_garbage()
    storage.close()


def test_a_lock_dies_with_its_process(directory: Path) -> None:
    storage = open_local_storage(directory, timeout_seconds=5)
    reader, writer = os.pipe()

    def hold() -> None:
        with open_local_storage(directory) as other, other.publish(), other._context.database.write():
            os.write(writer, b"x")
            time.sleep(60)

    child = start(hold)
    os.read(reader, 1)
    os.kill(child, 9)
    os.waitpid(child, 0)
    publish_blocks(storage, b"right away")
    storage.collect_garbage()
    storage.close()


def test_a_forked_child_uses_its_own_connections_and_session(directory: Path) -> None:
    storage = open_local_storage(directory, timeout_seconds=5)
    publish_file(storage, content(1))
    view = storage.make_view_directory()
    (view / "file").write_text("the parent's")

    def work() -> None:
        assert storage._context.database._idle == []
        publish_file(storage, content(2), owner="child")
        own_view = storage.make_view_directory()
        assert own_view.parent != view.parent
        storage._context.session.end()
        assert not own_view.exists()
        assert view.exists()
        storage.close()

    finish(start(work), start(work))
    assert (view / "file").read_text() == "the parent's"
    publish_file(storage, content(3))
    check_sound(storage)
    assert {pin.owner for pin in storage.pins.list()} == {USER, "child"}
    storage.close()


def test_a_fork_while_another_thread_writes(directory: Path) -> None:
    storage = open_local_storage(directory, timeout_seconds=5)
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            publish_blocks(storage, f"thread {number}".encode())
            number += 1

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for number in range(10):
            data = f"child {number}".encode()
            finish(start(partial(publish_blocks, storage, data)))
            assert storage.blocks.has(CID.of(data))
    finally:
        stop.set()
        thread.join(30)
    check_sound(storage)
    storage.close()


def test_a_publication_of_the_parent_is_left_alone_by_the_child(storage: LocalStorage) -> None:
    with storage.publish() as publication:
        root = put_file(publication, content(1))

        def leave() -> None:
            publication.__exit__(None, None, None)
            with pytest.raises(ValueError, match="ended"):
                publication.put(*raw(b"from the child"))

        finish(start(leave))
        publication.commit(Changes(pins=[Pin(USER, root)]))
    assert storage.file_path(root) is not None
    check_sound(storage)


def test_the_session_of_a_dead_process_is_cleared_away(directory: Path) -> None:
    storage = open_local_storage(directory)
    reader, writer = os.pipe()

    def leave_things() -> None:
        other = open_local_storage(directory)
        (other.make_view_directory() / "file").write_text("left behind")
        publication = other.publish()
        put_file(publication, content(1))
        os.write(writer, b"x")
        time.sleep(60)

    child = start(leave_things)
    os.read(reader, 1)
    own_view = storage.make_view_directory()
    open_local_storage(directory).close()
    assert len(list(directory.glob("views/*"))) == 2, "the living are left alone"
    os.kill(child, 9)
    os.waitpid(child, 0)
    storage.collect_garbage()
    assert list(directory.glob("views/*")) == [own_view.parent]
    assert list(directory.glob("tmp/*/*")) == []
    storage._context.session.end()
    assert list(directory.glob("views/*")) == []
    storage.close()


def test_a_view_outlives_its_store_and_goes_with_its_process(directory: Path) -> None:
    code = """
import sys
from mlflow_ipfs.content.storage.local import open_local_storage
with open_local_storage(sys.argv[1]) as storage:
    view = storage.make_view_directory()
(view / "file").write_text("still there")
print(view)
"""
    project = Path(__file__).parents[5]
    done = subprocess.run(
        [sys.executable, "-c", code, directory], capture_output=True, text=True, check=True, cwd=project
    )
    assert done.stdout.strip().startswith(str(directory))
    assert not Path(done.stdout.strip()).exists()
    assert list(directory.glob("views/*")) == []
    assert list(directory.glob("sessions/*")) == []
