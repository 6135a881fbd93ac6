"""mfs:// between processes: a frozen directory is one moment of the tree, and stays whole whatever gc runs beside it."""

from __future__ import annotations

import io
import itertools
import os
import time
from functools import partial
from typing import TYPE_CHECKING

import pytest

from mlflow_ipfs.content.files.importer import Importer, ImportOptions
from mlflow_ipfs.content.mfs import MfsPath
from mlflow_ipfs.content.names.entries import MfsEntry
from mlflow_ipfs.content.names.pins import Pin
from mlflow_ipfs.content.storage.base import Changes
from mlflow_ipfs.content.storage.local import open_local_storage
from mlflow_ipfs.content.store import ContentStore
from support.processes import fork_child as start
from support.storages import check_sound, multihashes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from mlflow_ipfs.content.cid import CID
    from mlflow_ipfs.content.storage.local import LocalStorage

RUN = MfsPath("mlflow", "1/run/artifacts")
WRITERS = 3
RACE_SECONDS = 4
OWNER = "model-version:r/m/1"

# Which file has how many bytes: the small one lies in the index, the large one is an object of two leaves.
SIZES = {"small.txt": 40, "deep/down/large.bin": (1 << 20) + 70_000}


def finish(children: list[int]) -> list[int]:
    """Wait for children. Returns their exit codes."""
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def content(writer: int, counter: int, size_bytes: int) -> bytes:
    """What a writer puts in its n-th round: it starts with who and when, and no two are the same anywhere."""
    word = f"writer {writer:04} round {counter:08}\n".encode()
    return (word * (size_bytes // len(word) + 1))[:size_bytes]


def put_pair(storage: LocalStorage, writer: int, counter: int) -> None:
    """Put both files in one publication."""
    with storage.publish() as publication:
        entries = []
        with Importer(publication, ImportOptions()) as importer:
            for path, size_bytes in SIZES.items():
                link = importer.import_stream(io.BytesIO(content(writer, counter, size_bytes))).link
                place = RUN.join(path).path
                entries.append(MfsEntry(RUN.root, place, link.cid, size_bytes, link.size_bytes or 0, time.time_ns()))
        publication.commit(Changes(entries=entries))


def read_round(store: ContentStore, cid: CID) -> tuple[int, int]:
    """Return the writer and the round of a frozen directory, all of whose files must be of that round."""
    with store.open(cid, "small.txt") as file:
        _, writer, _, counter = file.read(len("writer 0000 round 00000000")).split()
    for path, size_bytes in SIZES.items():
        with store.open(cid, path) as file:
            data = file.read()
        found = data[:40].partition(b"\n")[0]
        assert data == content(int(writer), int(counter), size_bytes), f"{path} is of {found!r}, not {writer, counter}"
    assert {entry.name for entry in store.ls(cid)} == {"small.txt", "deep"}
    return int(writer), int(counter)


def write_until(deadline: float, directory: Path, writer: int) -> None:
    with open_local_storage(directory) as storage:
        for counter in itertools.count(1):
            put_pair(storage, writer, counter)
            if time.monotonic() > deadline:
                return


def collect_until(deadline: float, directory: Path) -> None:
    removed = 0
    with open_local_storage(directory) as storage:
        while time.monotonic() < deadline or not removed:
            removed += storage.collect_garbage(grace_seconds=0).removed_blocks
            assert time.monotonic() < deadline + 30, "no gc found anything to remove: this test shows nothing"


def freeze_until(deadline: float, store: ContentStore) -> dict[CID, tuple[int, int]]:
    """Freeze and take snapshots in turn. Returns what each frozen CID holds, as read right away."""
    frozen: dict[CID, tuple[int, int]] = {}
    for number in itertools.count():
        if number % 2:
            cid = store.files.freeze(RUN, OWNER).cid
        else:
            with store.storage.publish() as publication:  # as long as it is open, the snapshot needs no name
                cid = store.files.snapshot(RUN).cid
                read_round(store, cid)
                publication.commit(Changes(pins=[Pin(OWNER, cid)]))
        written = read_round(store, cid)
        assert frozen.setdefault(cid, written) == written
        if time.monotonic() > deadline:
            return frozen
    raise AssertionError


@pytest.mark.slow
def test_a_frozen_directory_is_one_moment_of_the_tree(tmp_path: Path) -> None:
    directory = tmp_path / "store"
    with open_local_storage(directory) as storage:
        put_pair(storage, 0, 0)
    deadline = time.monotonic() + RACE_SECONDS
    children = [start(partial(write_until, deadline, directory, writer)) for writer in range(1, WRITERS + 1)]
    children.append(start(partial(collect_until, deadline, directory)))
    try:
        with ContentStore(open_local_storage(directory)) as store:
            frozen = freeze_until(deadline, store)
    finally:
        codes = finish(children)
    assert codes == [0] * len(children), "a writer or the collector failed; see its traceback"
    assert len(frozen) > 3, "the tree hardly changed: this test shows nothing"

    storage = open_local_storage(directory)
    with ContentStore(storage) as store:
        last = store.files.freeze(RUN, OWNER).cid
        frozen.setdefault(last, read_round(store, last))
        store.files.delete(RUN)
        store.collect_garbage(grace_seconds=0)
        check_sound(storage)
        for cid, written in frozen.items():
            assert store.verify(cid).ok
            assert read_round(store, cid) == written
        for cid in frozen:
            assert storage.pins.remove(cid, OWNER)
        for allowed in list(storage.entries.list_frozen()):
            assert storage.entries.unfreeze(allowed)
        store.collect_garbage(grace_seconds=0)
        assert list(multihashes(storage)) == [], "something else than its names kept the frozen content"


def test_gc_between_looking_at_a_directory_and_freezing_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The race above hardly ever hits this moment: another process replaces the files just seen, and collects them."""
    directory = tmp_path / "store"
    storage = open_local_storage(directory)

    def replace_and_collect() -> None:
        with open_local_storage(directory) as other:
            put_pair(other, 2, 2)
            other.collect_garbage(grace_seconds=0)

    with ContentStore(storage) as store:
        put_pair(storage, 1, 1)
        walk = storage.entries.walk

        def walk_then_collect(root: str, path: str) -> Sequence[MfsEntry]:
            seen = walk(root, path)
            assert finish([start(replace_and_collect)]) == [0]
            return seen

        monkeypatch.setattr(storage.entries, "walk", walk_then_collect)
        cid = store.files.freeze(RUN, OWNER).cid
        store.collect_garbage(grace_seconds=0)
        assert store.verify(cid).ok
        assert read_round(store, cid) == (1, 1)
