"""The power goes at every step of a rebuild: every name is still there, in one index or after another rebuild."""

from __future__ import annotations

import random
import shutil
from typing import TYPE_CHECKING

import pytest

from mlflow_ipfs.content.files.file_reader import open_unixfs
from mlflow_ipfs.content.storage.local import open_local_storage
from mlflow_ipfs.content.storage.local.repair.rebuild import rebuild_index
from mlflow_ipfs.errors import StoreFormatError
from support.power_loss import Directory, File, Moment, RecordingDisk
from support.storages import check_sound, publish_file

if TYPE_CHECKING:
    from pathlib import Path

    from mlflow_ipfs.content.cid import CID

CONTENTS = [b"content" * 500, b"in the log alone" * 200]


def read_tree(directory: Path) -> Directory:
    """What lies in a directory, all of it durable."""
    tree = Directory()
    for path in directory.iterdir():
        if path.is_dir():
            tree.durable[path.name] = read_tree(path)
        else:
            data = bytearray(path.read_bytes())
            tree.durable[path.name] = File(data, len(data))
    return tree


def make_store(directory: Path, work: Path) -> list[CID]:
    """A store whose log has what its ``store.db`` lacks, with a file that nobody can place."""
    with open_local_storage(work) as storage:
        roots = [publish_file(storage, CONTENTS[0])]
        storage._context.database.checkpoint()
        roots.append(publish_file(storage, CONTENTS[1]))
        (work / "reserve").unlink()
        shutil.copytree(work, directory)
    for path in [*(directory / "sessions").iterdir(), directory / "store.db-shm"]:
        path.unlink()
    junk = directory / "files" / "00"
    junk.mkdir(exist_ok=True)
    (junk / "junk").write_bytes(b"junk")
    return roots


def check_state(directory: Path, roots: list[CID]) -> bool:
    """Check what a disk shows. Returns whether it has an index."""
    for name in ("write", "publish", "gc", "outbox"):  # lock files are made beside Disk, and hold nothing
        (directory / f"{name}.lock").touch()
    has_index = (directory / "store.db").exists()
    if has_index:
        check_names(directory, roots)
    else:
        with pytest.raises(StoreFormatError, match="doctor --rebuild"):
            open_local_storage(directory)
    assert rebuild_index(directory).recovered == ()
    check_names(directory, roots)
    assert list(directory.glob("quarantine/*-junk")), "it has one name at least"
    return has_index


def check_names(directory: Path, roots: list[CID]) -> None:
    with open_local_storage(directory) as storage:
        assert {pin.cid for pin in storage.pins.list()} == set(roots)
        assert [open_unixfs(storage.blocks, root).read() for root in roots] == CONTENTS
        check_sound(storage)


@pytest.mark.slow
def test_the_power_goes_at_any_step(directory: Path, tmp_path: Path) -> None:
    roots = make_store(directory, tmp_path / "work")
    moment = Moment([], root=read_tree(directory))
    disk = RecordingDisk(directory)
    rebuild_index(directory, disk=disk)
    moment.events = disk.events
    with_index: list[bool] = []
    moves_from = next(number for number, event in enumerate(disk.events) if event.kind == "link")
    while True:
        # Before anything is moved, only drafts come and go.
        for style in ("least", "random") if moment.step >= moves_from or moment.step % 8 == 0 else ():
            target = tmp_path / f"{moment.step}-{style}"
            moment.build(target, style, random.Random(f"{moment.step}-{style}"))
            try:
                with_index.append(check_state(target, roots))
            except BaseException as error:
                last = [
                    (event.kind, *event.arguments[:2]) for event in disk.events[max(0, moment.step - 5) : moment.step]
                ]
                error.add_note(f"power lost after step {moment.step} of {len(disk.events)} ({last}), style {style}")
                raise
            shutil.rmtree(target)
        if moment.step == len(disk.events):
            break
        moment.advance()
    assert False in with_index
    assert with_index[-1]
