"""Moves of files to ``quarantine``. A kill or a power loss at any moment does not lose a file."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Final

from mlflow_ipfs.content.storage.local.repair.rebuild.index_copies import QUARANTINED

if TYPE_CHECKING:
    from pathlib import Path

    from mlflow_ipfs.content.storage.local.index.layout import Layout
    from mlflow_ipfs.content.system.disk import Disk

_INCOMPLETE: Final = "moving"  # a marker file next to a quarantined index whose log may not be moved yet


def move_durably(disk: Disk, source: Path, destination: Path) -> None:
    """Move a file to another directory. At each moment at least one of its names is durable.

    On some file systems a power loss can interrupt a rename between two directories.
    """
    try:
        disk.link(source, destination)
    except OSError:  # no hard links here
        disk.rename(source, destination)
        disk.sync_directory(destination.parent)
    else:
        disk.sync_directory(destination.parent)
        disk.remove(source)
    disk.sync_directory(source.parent)


def quarantine_index(layout: Layout, disk: Disk, stamp: str) -> Path | None:
    """Move the files of the old index to a new directory below ``quarantine``.

    Args:
        layout: the store.
        disk: performs every operation.
        stamp: the time, in the format of the names of backups.

    Returns:
        The directory; None if the store had no index.
    """
    if not any(path.exists() for path in _index_files(layout)):
        return None
    directory = layout.quarantine / f"{QUARANTINED[:-1]}{stamp}-{uuid.uuid4().hex[:8]}"
    disk.make_directory(directory)
    disk.sync_directory(layout.quarantine)
    disk.write_file(directory / _INCOMPLETE, b"")
    _move_index(layout, disk, directory)
    return directory


def finish_interrupted_move(layout: Layout, disk: Disk) -> None:
    """Complete the move of a killed rebuild: a log without its database belongs to the database that was moved last."""
    for marker in layout.quarantine.glob(f"{QUARANTINED}/{_INCOMPLETE}"):
        if not layout.database.exists():
            _move_index(layout, disk, marker.parent)
            continue
        moved = marker.parent / layout.database.name
        if moved.exists() and moved.samefile(layout.database):  # killed before the old name was removed: undo the move
            disk.remove(moved)
        disk.remove(marker)
        disk.sync_directory(marker.parent)


def _move_index(layout: Layout, disk: Disk, directory: Path) -> None:
    for path in _index_files(layout):
        if path.exists():
            move_durably(disk, path, directory / path.name)
    disk.remove(directory / _INCOMPLETE)
    disk.sync_directory(directory)


def _index_files(layout: Layout) -> list[Path]:
    """Return SQLite's files, the database first: without it no program opens the store and reads the log alone."""
    database = layout.database
    return [database, layout.log, database.with_name(f"{database.name}-shm")]
