"""Moving things to ``quarantine`` so that no kill and no loss of power can lose them, or tear an index from its log."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Final

from mlflow_ipfs.content.blockstore.local.rebuild.old_index import SET_ASIDE

if TYPE_CHECKING:
    from pathlib import Path

    from mlflow_ipfs.content.blockstore.local.layout import Layout
    from mlflow_ipfs.content.system.disk import Disk

_MARK: Final = "moving"  # a file beside a set-aside index while its log may not have followed yet


def relocate(disk: Disk, source: Path, destination: Path) -> None:
    """Move a file to another folder. At each moment at least one of its names is durable.

    A rename between two folders need not be one step for a disk that loses power.
    """
    try:
        disk.link(source, destination)
    except OSError:  # no hard links here
        disk.rename(source, destination)
        disk.sync_folder(destination.parent)
    else:
        disk.sync_folder(destination.parent)
        disk.remove(source)
    disk.sync_folder(source.parent)


def set_index_aside(layout: Layout, disk: Disk, stamp: str) -> Path | None:
    """Move the files of the old index to a folder of their own.

    Args:
        layout: the store.
        disk: where it is.
        stamp: the time, as backups have it in their names.

    Returns:
        The folder; None if there was no old index.
    """
    if not any(path.exists() for path in _files(layout)):
        return None
    folder = layout.quarantine / f"{SET_ASIDE[:-1]}{stamp}-{uuid.uuid4().hex[:8]}"
    disk.make_folder(folder)
    disk.sync_folder(layout.quarantine)
    disk.write_file(folder / _MARK, b"")
    _move(layout, disk, folder)
    return folder


def finish_setting_aside(layout: Layout, disk: Disk) -> None:
    """Go on where a rebuild was killed: a log without its index belongs to the one that was moved last."""
    for mark in layout.quarantine.glob(f"{SET_ASIDE}/{_MARK}"):
        if not layout.database.exists():
            _move(layout, disk, mark.parent)
            continue
        moved = mark.parent / layout.database.name
        if moved.exists() and moved.samefile(layout.database):  # its old name was still there
            disk.remove(moved)
        disk.remove(mark)
        disk.sync_folder(mark.parent)


def _move(layout: Layout, disk: Disk, folder: Path) -> None:
    for path in _files(layout):
        if path.exists():
            relocate(disk, path, folder / path.name)
    disk.remove(folder / _MARK)
    disk.sync_folder(folder)


def _files(layout: Layout) -> list[Path]:
    """The files that SQLite keeps, the database first: without it nothing opens the store and reads the log alone."""
    database = layout.database
    return [database, layout.log, database.with_name(f"{database.name}-shm")]
