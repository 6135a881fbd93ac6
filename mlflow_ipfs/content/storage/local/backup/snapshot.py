"""Snapshot of a store that stays in use: a copy of its index, and a hard link to each of its files.

MLflow's database and the store are written one after the other. To find all content that the database names in the
store, both must be copied in the same state, without a commit of the store in between. Therefore the store's
``write.lock`` is held while the snapshot begins. Usually this takes milliseconds. If MLflow's database is locked, the
snapshot gives up after about a second, releases the lock to waiting writers, and tries again.

The files are copied afterwards, however long that takes. By then each file has a hard link, which gc does not delete.
"""

from __future__ import annotations

import errno
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from mlflow_ipfs.content.storage.local.backup.files import translate_copy_errors
from mlflow_ipfs.content.storage.local.backup.index_copy import BackupFile, BackupIndex
from mlflow_ipfs.content.storage.local.files.open_publications import OpenPublication
from mlflow_ipfs.content.storage.local.index.error_translation import translate_disk_errors
from mlflow_ipfs.content.system.disk import NO_LINKS
from mlflow_ipfs.errors import StoreBusyError

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mlflow_ipfs.content.storage.local.reading.context import StoreContext

_ATTEMPTS: Final = 5
_PAUSE_SECONDS: Final = 0.2  # between two attempts, so that writers of the store get the lock


class Participant(Protocol):
    """Another data source that is copied in the same state as the store: MLflow's database."""

    def begin(self) -> None:
        """Begin to see one state. Give up after a few seconds, because every writer of the store waits meanwhile.

        Raises:
            StoreBusyError: the data source is locked. The caller tries again.
        """

    def copy_during_snapshot(self) -> None:
        """Copy the state now, if a copy has to block the writers of this data source."""

    def copy_after_snapshot(self) -> None:
        """Copy the state now, if a copy does not block writers; or finish the copy made earlier."""

    def end(self) -> None:
        """Release the state. Can be called twice, and without ``begin``."""


class NullParticipant:
    """Participant of a store that is copied alone. All methods are no-ops."""

    def begin(self) -> None:
        """Do nothing."""

    copy_during_snapshot = copy_after_snapshot = end = begin


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Snapshot of a store.

    Attributes:
        index: a copy of the index, which the caller may change.
        taken_at: the time of the snapshot, in seconds since 1970.
        files: the files in the index.
        sources: the paths from which the requested files can be read, by row. A requested file without a path is
            missing in the store itself.
    """

    index: Path
    taken_at: float
    files: list[BackupFile]
    sources: dict[int, Path]


class _FileVanishedError(Exception):
    """A file was deleted before it could be linked."""


def take_snapshot(context: StoreContext, participant: Participant, is_wanted: Callable[[BackupFile], bool]) -> Snapshot:
    """Take a snapshot of a store and of a participant. The caller removes the directory of the copied index.

    Args:
        context: the store.
        participant: copied in the same state.
        is_wanted: returns whether the bytes of a file are needed.

    Raises:
        StoreBusyError: the participant stayed locked until the time limit, or gc deleted files at each attempt.
        StoreFullError: the disk has no space for a copy of the index.
        DiskError: the disk with the store fails.
        ImmutableError: the store is on a read-only mount.
    """
    context.database.check_writable()
    with translate_copy_errors(context.layout.directory), translate_disk_errors(context.layout.directory):
        for _ in range(_ATTEMPTS):
            directory = context.session.draft()
            context.disk.make_directory(directory)
            try:
                return _take_once(context, participant, directory, is_wanted)
            except BaseException as error:
                context.disk.remove_tree(directory)
                if not isinstance(error, _FileVanishedError):
                    raise
            finally:
                participant.end()
    msg = (
        f"files of the store {context.layout.directory} were deleted during each of {_ATTEMPTS} attempts to copy it: "
        "try again when no gc runs"
    )
    raise StoreBusyError(msg)


def _take_once(
    context: StoreContext, participant: Participant, directory: Path, is_wanted: Callable[[BackupFile], bool]
) -> Snapshot:
    index = directory / context.layout.database.name
    # A gc that starts after this line deletes nothing. One that is already running may; then the snapshot is retried.
    publication = OpenPublication(context.layout, context.disk, context.database, relies_on_deletable=True)
    try:
        with _begin_both(context, participant) as connection:
            taken_at = time.time()
            participant.copy_during_snapshot()
            context.disk.close(context.disk.copy_database(connection, index))
        with BackupIndex(index) as backup_index:
            backup_index.drop_unkept()
            files = backup_index.list_files()
        sources = _link_files(context, directory, [file for file in files if is_wanted(file)])
    finally:
        publication.end()
    participant.copy_after_snapshot()
    return Snapshot(index, taken_at, files, sources)


@contextmanager
def _begin_both(context: StoreContext, participant: Participant) -> Iterator[sqlite3.Connection]:
    """Yield a read transaction on the index, in the state that the participant sees."""
    deadline = time.monotonic() + context.database.timeout_seconds
    with ExitStack() as stack:
        while True:
            try:
                connection = stack.enter_context(context.database.snapshot_during(participant.begin))
                break
            except StoreBusyError:
                participant.end()
                if time.monotonic() >= deadline:
                    raise
            time.sleep(_PAUSE_SECONDS)
        yield connection


def _link_files(context: StoreContext, directory: Path, files: list[BackupFile]) -> dict[int, Path]:
    """Create hard links to files. Return the links by row, without files that the store needs and has lost."""
    sources: dict[int, Path] = {}
    for file in files:
        original, link = context.layout.directory / file.name, directory / f"{file.id:x}"
        try:
            context.disk.link(original, link)
            sources[file.id] = link
        except FileNotFoundError:
            if not _is_still_indexed(context, file):
                raise _FileVanishedError from None
        except OSError as error:
            if error.errno == errno.EIO:
                continue  # the disk cannot read the directory entry: treat the file as missing
            if error.errno not in NO_LINKS:
                raise
            sources[file.id] = original  # no hard links here: the copy fails if gc deletes the file meanwhile
    return sources


def _is_still_indexed(context: StoreContext, file: BackupFile) -> bool:
    with context.database.read() as connection:
        row = connection.execute(
            "SELECT 1 FROM place WHERE id = ? AND name = ? AND (condemned_at IS NULL OR condemned_at > 0)",
            (file.id, file.name),
        ).fetchone()
    return row is not None
