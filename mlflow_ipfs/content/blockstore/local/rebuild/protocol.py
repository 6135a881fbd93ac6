"""The order of things, so that a kill or a loss of power at any moment leaves a store that can be rebuilt.

1. Shut everybody out: the three locks, and nobody with an open session.
2. Build the new index in ``tmp``, whole and durable, while the old one stays where it is.
3. Move files of which nothing could be placed to ``quarantine``.
4. Move the old index to ``quarantine``: ``store.db`` first. Without it nothing opens the store, so its log is never
   read alone. A mark lies in the folder until the log and the rest have followed.
5. Rename the new index into its place.

Killed before 4, the store has its old index; between 4 and 5 it has none, and is rebuilt from what was set aside.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mlflow_ipfs.content.blockstore.local import layout as layouts
from mlflow_ipfs.content.blockstore.local.creating import is_read_only
from mlflow_ipfs.content.blockstore.local.faults import database_faults, disk_faults
from mlflow_ipfs.content.blockstore.local.layout import Layout
from mlflow_ipfs.content.blockstore.local.note_table import KEY_PREFIX
from mlflow_ipfs.content.blockstore.local.open_publications import LAST, PREFIX
from mlflow_ipfs.content.blockstore.local.rebuild.aside import finish_setting_aside, set_index_aside
from mlflow_ipfs.content.blockstore.local.rebuild.draft import IndexDraft
from mlflow_ipfs.content.blockstore.local.rebuild.looking import Look, OldIndexes, open_old_indexes
from mlflow_ipfs.content.blockstore.local.rebuild.names import KINDS, take_names
from mlflow_ipfs.content.blockstore.local.rebuild.report import RebuildReport
from mlflow_ipfs.content.blockstore.local.rebuild.roots import RootFinder
from mlflow_ipfs.content.blockstore.local.reserve import free_reserve, is_nearly_full, make_reserve
from mlflow_ipfs.content.blockstore.local.sessions import Session, remove_dead_sessions
from mlflow_ipfs.content.system.disk import Disk
from mlflow_ipfs.content.system.locking import FileLock, LockFile
from mlflow_ipfs.errors import ImmutableError, StoreBusyError, StoreFormatError

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator

OWNER: Final = "recovered/"
_TIME: Final = "%Y%m%dT%H%M%SZ"
_KEPT_META: Final = ("created_at",)
_SIZE: Final = "SELECT (SELECT coalesce(sum(size), 0) FROM place) + (SELECT coalesce(sum(length(data)), 0) FROM block WHERE data NOT NULL)"


def rebuild_index(
    path: str | os.PathLike[str],
    *,
    timeout_seconds: float = 60.0,
    cut_sizes: Iterable[int] = (),
    progress: Callable[[int], None] | None = None,
    disk: Disk | None = None,
) -> RebuildReport:
    """Make a new index for a store, from its files and from what is left of the old one.

    Args:
        path: the store's folder.
        timeout_seconds: how long to wait for each lock.
        cut_sizes: sizes in bytes that files may have been cut into, beside the profiles' and those in old indexes.
        progress: told how many bytes were read since it was told last.
        disk: takes every step on the disk; for tests.

    Raises:
        StoreBusyError: somebody uses the store.
        StoreFormatError: there is no store, or one of a newer version.
        StoreFullError: there is no room for a new index; the store is as it was.
        ImmutableError: the store is on a read-only mount.
    """
    disk = disk or Disk()
    layout = _find_store(Path(path))
    with database_faults(layout), disk_faults(layout.folder), _alone(layout, disk, timeout_seconds):
        finish_setting_aside(layout, disk)
        if is_nearly_full(layout, disk):
            free_reserve(layout, disk)
        with ExitStack() as stack:
            sources = open_old_indexes(layout, _read_store_id(layout))
            stack.callback(sources.close)
            session = Session(layout, disk)
            stack.callback(session.end)
            report = _Rebuild(layout, disk, sources, session).run(cut_sizes, progress)
        make_reserve(layout, disk)
    return report


def _find_store(folder: Path) -> Layout:
    """Check that a store is there that may be written to, whatever is missing in it."""
    if not folder.is_dir():
        msg = f"there is no store at {folder}"
        raise StoreFormatError(msg)
    layout = Layout(folder.resolve())
    layouts.check_platform(layout.folder)
    is_one = layouts.is_store(layout) or layout.database.exists() or (layout.files.is_dir() and layout.backup.is_dir())
    if not is_one:
        msg = f"{folder} holds no store: neither {layout.format_file.name} nor {layout.database.name}, nor its folders"
        raise StoreFormatError(msg)
    if is_read_only(layout):
        msg = f"the store {layout.folder} is on a read-only mount and cannot be changed"
        raise ImmutableError(msg)
    return layout


def _read_store_id(layout: Layout) -> str | None:
    """The id in ``format.json``; None if that is gone or unreadable.

    Raises:
        StoreFormatError: the store is of a newer version.
    """
    try:
        return layouts.read_format(layout)
    except FileNotFoundError:
        return None
    except StoreFormatError as error:
        if "upgrade" in str(error):
            raise
        return None


@contextmanager
def _alone(layout: Layout, disk: Disk, timeout_seconds: float) -> Iterator[None]:
    """Keep everybody else out of a store."""
    layouts.make_lock_file(layout.write_lock)
    layout.make_all(disk)
    with ExitStack() as stack:
        for lock in _locks(layout, timeout_seconds):
            stack.enter_context(lock.exclusive())
        _check_no_sessions(layout)
        remove_dead_sessions(layout, disk)
        yield


def _locks(layout: Layout, timeout_seconds: float) -> list[FileLock]:
    """All locks of a store, in the order in which a gc and publications take them."""
    return [
        FileLock(layout.gc_lock, timeout_seconds=timeout_seconds, purpose="is collecting garbage"),
        FileLock(layout.publish_lock, timeout_seconds=timeout_seconds, purpose="is publishing or deleting"),
        FileLock(layout.write_lock, timeout_seconds=timeout_seconds, purpose="is writing to the store"),
    ]


def _check_no_sessions(layout: Layout) -> None:
    for path in layout.sessions.iterdir():
        try:
            holder = path.read_text("ascii", "replace").strip()
            file = LockFile(path)
        except FileNotFoundError:  # it has just ended
            continue
        try:
            if not file.try_lock():
                is_named = holder and not path.name.startswith(PREFIX)  # those hold another number
                who = f"process {holder}" if is_named else "another process"
                msg = f"{who} uses the store {layout.folder}: end it, and every other program that uses the store, and try again"
                raise StoreBusyError(msg)
        finally:
            file.release()


class _Rebuild:
    """One rebuild. Nobody else is in the store."""

    def __init__(self, layout: Layout, disk: Disk, sources: OldIndexes, session: Session) -> None:
        self._layout = layout
        self._disk = disk
        self._sources = sources
        self._session = session
        self._now = time.strftime(_TIME, time.gmtime())
        self._store_id = (
            _read_store_id(layout)
            or next((source.store_id for source in sources.usable if source.store_id), None)
            or layouts.new_store_id()
        )

    def run(self, cut_sizes: Iterable[int], progress: Callable[[int], None] | None) -> RebuildReport:
        new_index = self._session.draft()
        draft = IndexDraft(self._layout, self._disk, self._session.draft(), self._session.draft(), self._store_id)
        try:
            look = Look(self._layout, self._disk, draft, self._sources, cut_sizes=cut_sizes, progress=progress)
            look.run()
            finder = RootFinder(draft)
            finder.forget_healed()
            finder.take_spare_blocks()
            lost = take_names(draft, self._sources.usable)
            finder.take_spare_blocks()
            names = {kind.table: _count(draft, f"SELECT count(*) FROM {kind.table}") for kind in KINDS}  # noqa: S608 - names from a table
            incomplete = finder.find_incomplete()
            recovered = finder.pin_unreached(f"{OWNER}{self._now}", look.find_garbage())
            self._write_meta(draft)
            report = RebuildReport(
                store_id=self._store_id,
                files=_count(draft, "SELECT count(*) FROM place"),
                blocks=_count(draft, "SELECT count(*) FROM block"),
                size_bytes=_count(draft, _SIZE),
                names=names,
                sources=self._sources.uses(),
                recovered_owner=f"{OWNER}{self._now}" if recovered else None,
                recovered=tuple(recovered),
                recovered_incomplete=tuple(finder.incomplete_among(recovered)),
                lost=tuple(lost),
                incomplete=tuple(incomplete),
                damaged=tuple(look.damaged),
            )
            self._write(draft, new_index)
        finally:
            draft.close()
        set_aside = look.set_aside_unplaced()
        return replace(report, set_aside=tuple(set_aside), old_index=self._put_in_place(new_index))

    def _write_meta(self, draft: IndexDraft) -> None:
        """Values that go on: a number of a condemnation must be larger than all before it."""
        found = [source.meta for source in self._sources.usable]
        values = {key: meta[key] for meta in reversed(found) for key in meta if _is_kept(key)}
        numbers = [int(meta[LAST]) for meta in found if meta.get(LAST, "").isdecimal()]
        if numbers:
            values[LAST] = str(max(numbers))
        draft.connection.executemany("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", values.items())

    def _put_in_place(self, new_index: Path) -> Path | None:
        layout, disk = self._layout, self._disk
        old_index = set_index_aside(layout, disk, self._now)
        disk.rename(new_index, layout.database)
        disk.sync_folder(layout.folder)
        try:
            layouts.read_format(layout)
        except (FileNotFoundError, StoreFormatError):
            layouts.write_format(layout, disk, self._store_id)
        return old_index

    def _write(self, draft: IndexDraft, new_index: Path) -> None:
        """Write the index, and a backup of it: those that are there do not have what was recovered."""
        draft.finish()
        draft.write_copy(new_index)
        copy = self._session.draft()
        with suppress(OSError, sqlite3.Error):  # without room for two, one will do
            draft.write_copy(copy)
            self._disk.rename(copy, self._layout.backup / f"store-{self._now}.db")  # named as in backups.py
            self._disk.sync_folder(self._layout.backup)


def _count(draft: IndexDraft, query: str) -> int:
    number: int = draft.connection.execute(query).fetchone()[0]
    return number


def _is_kept(key: str) -> bool:
    return key in _KEPT_META or key.startswith(KEY_PREFIX)
