"""One moment of a store that goes on working: its index copied, and its files kept from vanishing.

MLflow's database and the store are written one after the other, so what the one names is in the
other only if both are looked at in the same moment: no commit of the store may come in between.
That moment lasts for milliseconds; for a second if it has to be given up because MLflow's database is locked, since
the store's ``write.lock`` is held while that one is waited for. Then others come first. The bytes are copied afterwards, however long that takes: every
file has got a second name by then, which no gc knows of.
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
_PAUSE_SECONDS: Final = 0.2  # between two tries to find the moment, so that others get the lock


class Participant(Protocol):
    """What has to be copied in the same state as the store: MLflow's database."""

    def begin(self) -> None:
        """Start to see one state. Every writer of the store waits meanwhile, so it gives up after some seconds at most.

        Raises:
            StoreBusyError: not now; to be tried again.
        """

    def copy_during_snapshot(self) -> None:
        """Copy that state, if others have to wait for it."""

    def copy_after_snapshot(self) -> None:
        """Copy it, if nobody has to."""

    def end(self) -> None:
        """Let go of the state. Calling it twice, or without ``begin``, is no error."""


class NullParticipant:
    """The participant of a store that is copied by itself."""

    def begin(self) -> None:
        """Nothing to do."""

    copy_during_snapshot = copy_after_snapshot = end = begin


@dataclass(frozen=True, slots=True)
class Capture:
    """A moment of a store.

    Attributes:
        index: a copy of the index, which is the caller's to change.
        taken_at: when it was, in seconds since 1970.
        files: what the index names.
        kept: where those that were asked for can be read, by row; one that is not here is lost in the store itself.
    """

    index: Path
    taken_at: float
    files: list[BackupFile]
    kept: dict[int, Path]


class _VanishedError(Exception):
    """A file was deleted before it could be kept."""


def capture(context: StoreContext, participant: Participant, is_wanted: Callable[[BackupFile], bool]) -> Capture:
    """Take a moment of a store and of its participant. The directory of the copied index, with what was kept, is the caller's.

    Args:
        context: the store.
        participant: copied in the same state.
        is_wanted: whether the bytes of a file are needed.

    Raises:
        StoreBusyError: the moment could not be found within the time limit.
        StoreFullError: there is no room for a copy of the index.
        DiskError: the disk under the store fails.
        ImmutableError: the store is on a read-only mount.
    """
    context.database.check_writable()
    with translate_copy_errors(context.layout.directory), translate_disk_errors(context.layout.directory):
        for _ in range(_ATTEMPTS):
            directory = context.session.draft()
            context.disk.make_directory(directory)
            try:
                return _capture(context, participant, directory, is_wanted)
            except BaseException as error:
                context.disk.remove_tree(directory)
                if not isinstance(error, _VanishedError):
                    raise
            finally:
                participant.end()
    msg = (
        f"files of the store {context.layout.directory} were deleted {_ATTEMPTS} times while it was being copied; try again "
        "when no gc runs"
    )
    raise StoreBusyError(msg)


def _capture(
    context: StoreContext, participant: Participant, directory: Path, is_wanted: Callable[[BackupFile], bool]
) -> Capture:
    index = directory / context.layout.database.name
    # A gc that starts from here on deletes nothing. One that runs already may: then there is another attempt.
    mark = OpenPublication(context.layout, context.disk, context.database, relies_on_deletable=True)
    try:
        with _moment(context, participant) as connection:
            taken_at = time.time()
            participant.copy_during_snapshot()
            context.disk.close(context.disk.copy_database(connection, index))
        with BackupIndex(index) as cloned:
            cloned.drop_unkept()
            files = cloned.list_files()
        kept = _keep(context, directory, [file for file in files if is_wanted(file)])
    finally:
        mark.end()
    participant.copy_after_snapshot()
    return Capture(index, taken_at, files, kept)


@contextmanager
def _moment(context: StoreContext, participant: Participant) -> Iterator[sqlite3.Connection]:
    """A snapshot of the index, of the moment that the participant shows."""
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


def _keep(context: StoreContext, directory: Path, files: list[BackupFile]) -> dict[int, Path]:
    """Give files second names. Returns these, without those of files that are not there though the store needs them."""
    kept: dict[int, Path] = {}
    for file in files:
        original, link = context.layout.directory / file.name, directory / f"{file.id:x}"
        try:
            context.disk.link(original, link)
            kept[file.id] = link
        except FileNotFoundError:
            if not _is_still_named(context, file):
                raise _VanishedError from None
        except OSError as error:
            if error.errno == errno.EIO:
                continue  # its disk has lost even the name: a file like those that are not there
            if error.errno not in NO_LINKS:
                raise
            kept[file.id] = original  # without links, a gc in the wrong moment makes the copy fail
    return kept


def _is_still_named(context: StoreContext, file: BackupFile) -> bool:
    with context.database.read() as connection:
        row = connection.execute(
            "SELECT 1 FROM place WHERE id = ? AND name = ? AND (condemned_at IS NULL OR condemned_at > 0)",
            (file.id, file.name),
        ).fetchone()
    return row is not None
