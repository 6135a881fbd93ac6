"""Garbage is collected without a pause beside processes that publish, cache, read, pin and forget the same few contents."""

from __future__ import annotations

import os
import random
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import pytest

from mlflow_ipfs.content.dag import walk_blocks
from mlflow_ipfs.content.files.file_reader import open_unixfs
from mlflow_ipfs.content.names.entries import MfsEntry
from mlflow_ipfs.content.names.pins import Pin
from mlflow_ipfs.content.storage.base import Changes
from mlflow_ipfs.content.storage.local import open_local_storage
from mlflow_ipfs.content.store import ContentStore
from mlflow_ipfs.errors import NotFoundError, StoreBusyError
from support.blocks import Blocks
from support.processes import fork_child
from support.soak import soak_round
from support.storages import check_sound, put_file, raw
from support.store_workload import TREE, check_no_residue

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mlflow_ipfs.content.cid import CID
    from mlflow_ipfs.content.storage.local import LocalStorage
    from support.soak import Count

pytestmark = pytest.mark.usefixtures("large_files_begin_early")

SHARED = b"".join(number.to_bytes(4, "big") for number in range(2500))  # ten leaves
# Of one to seventeen leaves; half of the larger ones' are the same.
CONTENTS = [
    SHARED[: number // 2 * 1000 + number // 6 * 4000] + bytes([number]) * (700 + 500 * number) for number in range(12)
]
CACHE_BYTES = 30_000
SMALL = [number.to_bytes(2, "big") * 480 for number in range(90)]  # enough for a pack
LOCK_SECONDS = 20  # how long anybody waits for a lock
BUSY_AT_MOST = 2  # how often one worker may be told that the store is busy


def roots() -> list[CID]:
    blocks = Blocks()
    return [put_file(blocks, content) for content in CONTENTS]


class Worker:
    """One process of the storm.

    Attributes:
        mine: what this process has been promised: the numbers of contents that it gave a name.
    """

    def __init__(self, storage: LocalStorage, number: int) -> None:
        self.storage = storage
        self.store = ContentStore(storage)
        self.owner = f"worker-{number}"
        self.chance = random.Random(f"{soak_round()}-{number}")
        self.roots = roots()
        self.mine: set[int] = set()

    def publish(self) -> None:
        number = self.chance.randrange(1, len(CONTENTS))
        changes = Changes(pins=[Pin(self.owner, self.roots[number])])
        if self.chance.random() < 0.5:
            changes.entries = [MfsEntry(TREE, f"{self.owner}/{number}", self.roots[number], 1, 2, 3)]
        with self.storage.publish() as publication:
            assert put_file(publication, CONTENTS[number]) == self.roots[number]
            if self.chance.random() < 0.3:
                for block in SMALL[:: self.chance.randint(1, 2)]:
                    publication.put(*raw(block + bytes([self.chance.randrange(3)])))
            publication.commit(changes)
        self.mine.add(number)
        self.check(number)
        self.forget()

    def pin(self) -> None:
        number = self.chance.randrange(1, len(CONTENTS))
        with suppress(NotFoundError):  # it may have gone
            self.store.pin(self.roots[number], self.owner)
            self.mine.add(number)
        for kept in self.mine:
            self.check(kept)
        self.forget()

    def read(self) -> None:
        self.check(0)
        path = self.storage.file_path(self.roots[0])
        assert path is not None
        assert path.read_bytes() == CONTENTS[0]

    def read_by_path(self) -> None:
        """Of whatever is there just now."""
        number = self.chance.randrange(1, len(CONTENTS))
        with suppress(NotFoundError):
            path = self.storage.ensure_file(self.roots[number])
            assert path is None or path.read_bytes() == CONTENTS[number]

    def cache(self) -> None:
        """Put something into the cache, and give it a name before it goes, or not."""
        number = self.chance.randrange(1, len(CONTENTS))
        with self.storage.publish(in_cache=True) as publication:
            put_file(publication, CONTENTS[number])
            publication.commit()
        if self.chance.random() < 0.5:
            with suppress(NotFoundError):
                self.storage.pins.add(Pin(self.owner, self.roots[number]))
                self.mine.add(number)
        for kept in self.mine:
            self.check(kept)
        self.forget()

    def collect(self) -> None:
        self.storage.collect_garbage(
            grace_seconds=self.chance.choice((0, 0, 0, 3600)), dry_run=self.chance.random() < 0.2
        )

    def check(self, number: int) -> None:
        """What has a name is whole."""
        for _ in walk_blocks(self.storage.blocks, self.roots[number]):
            pass
        assert open_unixfs(self.storage.blocks, self.roots[number]).read() == CONTENTS[number]

    def forget(self) -> None:
        """Give up some of what this process keeps."""
        if self.mine and self.chance.random() < 0.6:
            number = self.chance.choice(sorted(self.mine))
            self.mine.remove(number)
            self.storage.entries.delete(TREE, f"{self.owner}/{number}")
            self.storage.pins.remove(self.roots[number], self.owner)


def run_worker(directory: Path, number: int, act: Callable[[Worker], None], seconds: float) -> None:
    """Act until the time is over; then everything that is mine must still be whole. Leaves how often it acted."""
    deadline, busy, done = time.monotonic() + seconds, 0, 0
    with open_local_storage(directory, timeout_seconds=LOCK_SECONDS, cache_bytes=CACHE_BYTES) as storage:
        worker = Worker(storage, number)
        while time.monotonic() < deadline:
            try:
                act(worker)
                done += 1
            except StoreBusyError:
                busy += 1
                assert busy <= BUSY_AT_MOST
        for kept in worker.mine:
            worker.check(kept)
    assert done, "this worker never got its turn"
    count_file(directory, number).write_text(str(done))


def count_file(directory: Path, number: int) -> Path:
    return directory.with_name(f"worker-{number}")


def storm(directory: Path, seconds: float, count: Count = lambda _what, _number: None) -> None:
    acts = [
        Worker.collect, Worker.publish, Worker.publish, Worker.publish, Worker.publish, Worker.read, Worker.read_by_path,
        Worker.cache, Worker.pin, Worker.pin,
    ]  # fmt: skip
    with open_local_storage(directory) as storage, storage.publish() as publication:
        root = put_file(publication, CONTENTS[0])
        publication.commit(Changes(pins=[Pin("all along", root)]))
    children = [fork_child(partial(run_worker, directory, number, act, seconds)) for number, act in enumerate(acts)]
    codes = {
        act.__name__ + f" {number}": os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        for number, (act, child) in enumerate(zip(acts, children, strict=True))
    }
    assert not any(codes.values()), codes
    for number, act in enumerate(acts):
        what = "collections beside others" if act is Worker.collect else "operations beside collections"
        count(what, int(count_file(directory, number).read_text()))
    with open_local_storage(directory) as storage:
        kept = {pin.cid for pin in storage.pins.list()} | {entry.cid for entry in storage.entries.walk(TREE, "")}
        storage.collect_garbage(grace_seconds=0)
        check_sound(storage)
        check_no_residue(storage)
        for content, cid in zip(CONTENTS, roots(), strict=True):
            if cid in kept:
                assert open_unixfs(storage.blocks, cid).read() == content


@pytest.mark.slow
def test_gc_beside_nine_others(directory: Path) -> None:
    storm(directory, seconds=4)


@pytest.mark.soak
def test_gc_beside_nine_others_for_minutes(directory: Path, record_property: Count) -> None:
    storm(directory, seconds=120, count=record_property)
