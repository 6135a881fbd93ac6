"""Steps of ``doctor --rebuild``. A kill or a power loss at any step leaves a store that can be rebuilt.

1. Take the three locks, and make sure that no other session is open.
2. Build the new index in ``tmp``, complete and durable, while the old one keeps its path.
3. Move files without a usable block to ``quarantine``.
4. Move the old index to ``quarantine``, ``store.db`` first: without it no program opens the store and reads the log
   alone. A marker file stays in the directory in ``quarantine`` until the log is moved, too.
5. Rename the new index to ``store.db``.

After a kill before step 4, the store has its old index. After a kill between steps 4 and 5, it has no index, and the
next rebuild finds the old one in ``quarantine``.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mlflow_ipfs.content.storage.local.files.open_publications import LAST_DELETION_NUMBER, PUBLICATION_PREFIX
from mlflow_ipfs.content.storage.local.files.sessions import Session, remove_dead_sessions
from mlflow_ipfs.content.storage.local.index import layout as layouts
from mlflow_ipfs.content.storage.local.index.creating import check_links, is_read_only
from mlflow_ipfs.content.storage.local.index.error_translation import translate_database_errors, translate_disk_errors
from mlflow_ipfs.content.storage.local.index.layout import Layout, free_reserve, is_nearly_full, make_reserve
from mlflow_ipfs.content.storage.local.index.name_tables import NAME_TABLES
from mlflow_ipfs.content.storage.local.publishing.names import KEY_PREFIX
from mlflow_ipfs.content.storage.local.repair.index_backups import next_backup_name
from mlflow_ipfs.content.storage.local.repair.rebuild.index_copies import IndexCopies, open_index_copies
from mlflow_ipfs.content.storage.local.repair.rebuild.names import Reachability, take_names
from mlflow_ipfs.content.storage.local.repair.rebuild.new_index import NewIndex
from mlflow_ipfs.content.storage.local.repair.rebuild.quarantine import finish_interrupted_move, quarantine_index
from mlflow_ipfs.content.storage.local.repair.rebuild.report import RebuildReport
from mlflow_ipfs.content.storage.local.repair.rebuild.scan import StoreScan
from mlflow_ipfs.content.system.access import translate_access_errors
from mlflow_ipfs.content.system.disk import Disk
from mlflow_ipfs.content.system.locking import FileLock, LockFile
from mlflow_ipfs.errors import ImmutableError, NotFoundError, StoreBusyError, StoreFormatError

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator

    from mlflow_ipfs.content.files.chunker import Chunker
    from mlflow_ipfs.content.storage.local.repair.rebuild.report import LeftFile

OWNER: Final = "recovered/"
_STAMP: Final = "%Y%m%dT%H%M%SZ"
_KEPT_META: Final = ("created_at",)
_MAX_NUMBER_BYTES: Final = 64  # of the process number in a session's file; a hold's file is much longer
_SIZE: Final = "SELECT (SELECT coalesce(sum(size), 0) FROM place) + (SELECT coalesce(sum(length(data)), 0) FROM block WHERE data NOT NULL)"


def rebuild_index(
    path: str | os.PathLike[str],
    *,
    timeout_seconds: float = 60.0,
    chunkers: Iterable[Chunker] = (),
    progress: Callable[[int], None] | None = None,
    disk: Disk | None = None,
) -> RebuildReport:
    """Make a new index for a store, from its files and from copies of the old index.

    Names come from the readable part of ``store.db``. Names of its damaged tables also come from backups. Content
    that no name reaches is pinned with the owner ``recovered/<time>``.

    Args:
        path: the store's directory.
        timeout_seconds: how long to wait for each lock.
        chunkers: chunkers by which files may have been cut, besides the known chunkers and the sizes in the old index.
        progress: called with the number of bytes read since its last call.
        disk: performs every operation on the disk; for tests.

    Raises:
        StoreBusyError: another program uses the store.
        NotFoundError: the path is not a store.
        StoreFormatError: it is a store of a newer version.
        StoreFullError: the disk has no space for a new index. The store is unchanged.
        ImmutableError: the store is on a read-only mount.
        PolicyError: this user has no permission for a file or directory of the store.
    """
    disk = disk or Disk()
    with translate_access_errors(Path(path)):
        layout = _find_store(Path(path))
    with (
        translate_database_errors(layout),
        translate_disk_errors(layout.directory),
        _locked(layout, disk, timeout_seconds),
    ):
        finish_interrupted_move(layout, disk)
        if is_nearly_full(layout, disk):
            free_reserve(layout, disk)
        with ExitStack() as stack:
            copies = open_index_copies(layout, _read_store_id(layout))
            stack.callback(copies.close)
            session = Session(layout, disk)
            stack.callback(session.end)
            report = _Rebuild(layout, disk, copies, session).run(chunkers, progress)
        make_reserve(layout, disk)
    return report


def _find_store(directory: Path) -> Layout:
    """Return the layout of a writable store, which may have lost some of its files."""
    if not directory.is_dir():
        msg = f"no store found at {directory}: name the directory of a store with --store"
        raise NotFoundError(msg)
    layout = Layout(directory.resolve())
    layouts.check_platform(layout.directory)
    check_links(layout)
    is_one = layouts.is_store(layout) or layout.database.exists() or (layout.files.is_dir() and layout.backup.is_dir())
    if not is_one:
        msg = (
            f"{directory} is not a store: it has neither {layout.format_file.name} nor {layout.database.name}, nor the "
            "directories of a store. Name the directory of a store with --store"
        )
        raise NotFoundError(msg)
    if is_read_only(layout):
        msg = f"the store {layout.directory} is on a read-only mount and cannot be changed: mount it writable"
        raise ImmutableError(msg)
    return layout


def _read_store_id(layout: Layout) -> str | None:
    """Return the id in ``format.json``; None if that file is missing or damaged.

    Raises:
        StoreFormatError: a newer version wrote the store.
    """
    try:
        return layouts.read_format(layout)
    except FileNotFoundError:
        return None
    except StoreFormatError as error:
        if error.is_newer:
            raise
        return None


@contextmanager
def _locked(layout: Layout, disk: Disk, timeout_seconds: float) -> Iterator[None]:
    """Keep other programs out of a store, for the length of a ``with``."""
    layouts.make_lock_file(layout.write_lock)
    layout.make_all(disk)
    with ExitStack() as stack:
        for lock in _locks(layout, timeout_seconds):
            stack.enter_context(lock.exclusive())
        _check_no_sessions(layout)
        remove_dead_sessions(layout, disk)
        yield


def _locks(layout: Layout, timeout_seconds: float) -> list[FileLock]:
    """Return the locks of a store, in the order in which gc and publications take them."""
    return [
        FileLock(layout.gc_lock, timeout_seconds=timeout_seconds, purpose="is collecting garbage"),
        FileLock(layout.publish_lock, timeout_seconds=timeout_seconds, purpose="is publishing or rebuilding"),
        FileLock(layout.write_lock, timeout_seconds=timeout_seconds, purpose="is writing to the store"),
    ]


def _check_no_sessions(layout: Layout) -> None:
    """Raise a ``StoreBusyError`` if another program has a session open."""
    for path in layout.sessions.iterdir():
        try:
            with path.open("rb") as text:
                holder = text.read(_MAX_NUMBER_BYTES).decode("ascii", "replace").strip()
            file = LockFile(path)
        except FileNotFoundError:  # it has just ended
            continue
        try:
            if not file.try_lock():
                is_named = holder.isdecimal() and not path.name.startswith(
                    PUBLICATION_PREFIX
                )  # those hold a deletion number
                user = f"process {holder}" if is_named else "another process"
                msg = (
                    f"{user} uses the store {layout.directory}: end it and every other program that uses the store, "
                    "and try again"
                )
                raise StoreBusyError(msg)
        finally:
            file.release()


class _Rebuild:
    """One rebuild. No other program uses the store meanwhile."""

    def __init__(self, layout: Layout, disk: Disk, copies: IndexCopies, session: Session) -> None:
        self._layout = layout
        self._disk = disk
        self._copies = copies
        self._session = session
        self._stamp = time.strftime(_STAMP, time.gmtime())
        self._store_id = copies.store_id or layouts.new_store_id()

    def run(self, chunkers: Iterable[Chunker], progress: Callable[[int], None] | None) -> RebuildReport:
        path = self._session.draft()
        new_index = NewIndex(self._layout, self._disk, self._session.draft(), self._session.draft(), self._store_id)
        try:
            scan = StoreScan(self._layout, self._disk, new_index, self._copies, chunkers=chunkers, progress=progress)
            scan.run()
            report = self._fill(new_index, tuple(scan.damaged))
            self._write(new_index, path)
        finally:
            new_index.close()
        quarantined = scan.quarantine_unusable()
        return replace(report, quarantined=tuple(quarantined), old_index=self._swap(path))

    def _fill(self, new_index: NewIndex, damaged: tuple[LeftFile, ...]) -> RebuildReport:
        """Add names, and pins on content that no name reaches, to an index that has all blocks."""
        reachability = Reachability(new_index)
        reachability.forget_healed()
        lost = take_names(new_index, self._copies.used)
        names = {table.kind: _count(new_index, f"SELECT count(*) FROM {table.table}") for table in NAME_TABLES}  # noqa: S608 - fixed names
        incomplete = reachability.find_incomplete()
        owner = f"{OWNER}{self._stamp}"
        recovered = reachability.pin_unreached(owner, self._find_garbage())
        self._write_meta(new_index)
        return RebuildReport(
            store_id=self._store_id,
            files=_count(new_index, "SELECT count(*) FROM place"),
            blocks=_count(new_index, "SELECT count(*) FROM block"),
            size_bytes=_count(new_index, _SIZE),
            names=names,
            sources=self._copies.uses(),
            are_names_current=self._copies.has_all_names(),
            recovered_owner=owner if recovered else None,
            recovered=tuple(recovered),
            recovered_incomplete=tuple(reachability.incomplete_among(recovered)),
            lost=tuple(lost),
            incomplete=tuple(incomplete),
            damaged=damaged,
        )

    def _find_garbage(self) -> Callable[[bytes], bool]:
        """Return a function that returns whether no name reached a block.

        Only ``store.db`` can answer this, because a backup lacks later names. Without it the function returns False.
        """
        if self._copies.has_all_names() and self._copies.used[0].is_whole("block"):
            return self._copies.used[0].knows
        return lambda _: False

    def _write_meta(self, new_index: NewIndex) -> None:
        """Copy the values that a rebuild keeps. The number of the last tombstone must never decrease."""
        copies = self._copies.used
        values = {key: copy.meta[key] for copy in reversed(copies) for key in copy.meta if _is_kept(key)}
        numbers = [
            int(copy.meta[LAST_DELETION_NUMBER])
            for copy in copies
            if copy.meta.get(LAST_DELETION_NUMBER, "").isdecimal()
        ]
        if numbers:
            values[LAST_DELETION_NUMBER] = str(max(numbers))
        new_index.connection.executemany("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", values.items())

    def _write(self, new_index: NewIndex, path: Path) -> None:
        """Write the index, and a backup of it: older backups do not have the new pins."""
        new_index.finish()
        new_index.write_copy(path)
        draft = self._session.draft()
        with suppress(OSError, sqlite3.Error):  # if the disk has no space for both, the backup is left out
            new_index.write_copy(draft)
            self._disk.rename(draft, self._layout.backup / next_backup_name(self._layout))
            self._disk.sync_directory(self._layout.backup)

    def _swap(self, path: Path) -> Path | None:
        """Replace the old index by the new one. Return the directory in ``quarantine`` with the old one."""
        layout, disk = self._layout, self._disk
        old_index = quarantine_index(layout, disk, self._stamp)
        disk.rename(path, layout.database)
        disk.sync_directory(layout.directory)
        try:
            layouts.read_format(layout)
        except (FileNotFoundError, StoreFormatError):
            layouts.write_format(layout, disk, self._store_id)
        return old_index


def _count(new_index: NewIndex, query: str) -> int:
    number: int = new_index.connection.execute(query).fetchone()[0]
    return number


def _is_kept(key: str) -> bool:
    return key in _KEPT_META or key.startswith(KEY_PREFIX)
