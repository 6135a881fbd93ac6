"""The storage in a directory of this machine, and how it is opened."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Self

from mlflow_ipfs.content.storage.base import DEFAULT_CACHE_BYTES
from mlflow_ipfs.content.storage.files import make_temporary_view_directory
from mlflow_ipfs.content.storage.local.backup.store_copy import BackupReport, back_up_store
from mlflow_ipfs.content.storage.local.files.sessions import Session, is_session_open, remove_dead_sessions
from mlflow_ipfs.content.storage.local.files.views import FileLinker, ViewMode
from mlflow_ipfs.content.storage.local.gc.barrier import remove_leftovers
from mlflow_ipfs.content.storage.local.gc.collecting import collect_garbage
from mlflow_ipfs.content.storage.local.gc.eviction import CachePublication
from mlflow_ipfs.content.storage.local.gc.whole_files import WholeFiles
from mlflow_ipfs.content.storage.local.index.creating import check_database, find_or_create, find_to_read, is_read_only
from mlflow_ipfs.content.storage.local.index.database import Database
from mlflow_ipfs.content.storage.local.index.error_translation import translate_disk_errors
from mlflow_ipfs.content.storage.local.index.layout import make_reserve
from mlflow_ipfs.content.storage.local.index.name_tables import iterate_roots
from mlflow_ipfs.content.storage.local.publishing.blocks import LocalBlocks
from mlflow_ipfs.content.storage.local.publishing.entries import LocalEntries
from mlflow_ipfs.content.storage.local.publishing.holds import LocalHold
from mlflow_ipfs.content.storage.local.publishing.names import LocalNotes, LocalPins, LocalRefs
from mlflow_ipfs.content.storage.local.publishing.publication import LocalPublication
from mlflow_ipfs.content.storage.local.reading.context import StoreContext
from mlflow_ipfs.content.storage.local.reading.marks import measure_usage
from mlflow_ipfs.content.storage.local.repair.affected import find_affected
from mlflow_ipfs.content.storage.local.repair.index_backups import make_backup, make_backup_if_due
from mlflow_ipfs.content.storage.local.repair.scrubbing import Scrubber
from mlflow_ipfs.content.system.access import refused, translate_access_errors
from mlflow_ipfs.content.system.disk import Disk
from mlflow_ipfs.content.system.locking import FileLock

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Collection, Iterator, Sequence
    from types import TracebackType

    from mlflow_ipfs.content.blocks.base import BlockReader
    from mlflow_ipfs.content.cid import CID
    from mlflow_ipfs.content.names.kinds import Root
    from mlflow_ipfs.content.storage.local.backup.snapshot import Participant
    from mlflow_ipfs.content.storage.local.backup.writer import BackupWriter
    from mlflow_ipfs.content.storage.maintenance import AffectedReport, GCReport, ScrubReport, UsageReport


class LocalStorage:
    """An open store in one directory of this machine, returned by ``open_local_storage``. See ``Storage``.

    Many threads may use it, and forked children too. It holds no lock and no transaction between calls.
    """

    def __init__(self, context: StoreContext, *, verify_always: bool, view_mode: ViewMode) -> None:
        self._context = context
        self._blocks = LocalBlocks(context)
        self._pins = LocalPins(context)
        self._refs = LocalRefs(context)
        self._entries = LocalEntries(context)
        self._notes = LocalNotes(context)
        self._files = WholeFiles(context, self._blocks, verify_always=verify_always)
        self._linker = FileLinker(context.disk, view_mode)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"LocalStorage({str(self.directory)!r})"

    @property
    def directory(self) -> Path:
        """The directory of the store."""
        return self._context.layout.directory

    @property
    def store_id(self) -> str:
        """The unique id of the store."""
        return self._context.store_id

    @property
    def blocks(self) -> LocalBlocks:
        """The stored blocks."""
        return self._blocks

    @property
    def pins(self) -> LocalPins:
        """Which content is kept, and for which owner."""
        return self._pins

    @property
    def refs(self) -> LocalRefs:
        """Mutable names for CIDs."""
        return self._refs

    @property
    def entries(self) -> LocalEntries:
        """The mutable file trees."""
        return self._entries

    @property
    def notes(self) -> LocalNotes:
        """Short texts that a layer above keeps in the store."""
        return self._notes

    def publish(self, *, in_cache: bool = False, hold_existing: bool = False) -> LocalPublication:
        """Start a publication. See ``Storage.publish``."""
        kind = CachePublication if in_cache else LocalPublication
        return kind(self._context, hold_existing=hold_existing)

    def hold(self) -> LocalHold:
        """Start a hold. See ``Storage.hold``."""
        self._context.database.check_writable()
        return LocalHold(self._context)

    def session_name(self) -> str:
        """Return the name of this process's session. See ``Storage.session_name``."""
        self._context.database.check_writable()
        with translate_disk_errors(self.directory):
            return self._context.session.name

    def is_session_open(self, name: str) -> bool:
        """Return whether the process of a session still uses the store."""
        with translate_disk_errors(self.directory):
            return is_session_open(self._context.layout, name)

    def heal_from(self, source: BlockReader | None) -> None:
        """Replace damaged blocks, when they are found, by verified blocks of another reader; None ends this."""
        self._context.healing.source = source

    def file_path(self, cid: CID) -> Path | None:
        """Return a read-only path to the undamaged content of a file, or None if it is not stored contiguously."""
        with translate_disk_errors(self.directory):
            return self._files.find_or_heal(cid)

    def ensure_file(self, cid: CID) -> Path | None:
        """Return what ``file_path`` returns; a large file that is stored in pieces is first assembled in the cache."""
        with translate_disk_errors(self.directory):
            return self._files.ensure(cid)

    def ready_file(self, cid: CID) -> Path | None:
        """Return what ``file_path`` returns, at once: None where a file would have to be hashed or assembled first."""
        return self._files.find_ready(cid)

    def link_file(self, source: Path, destination: Path) -> None:
        """Place content from ``file_path`` at ``destination``, which the caller may write to."""
        try:
            self._linker.link_file(source, destination)
        except PermissionError as error:
            if error.filename != str(source):  # the refusal concerns the destination
                raise
            raise refused(self.directory, error) from error

    def make_view_directory(self) -> Path:
        """Make a new empty private directory, removed when this process ends."""
        if self._context.database.read_only:
            return make_temporary_view_directory()
        with translate_disk_errors(self.directory):
            return self._context.session.view_directory()

    def roots(self) -> Iterator[Root]:
        """Yield every name that retains content, by kind and name."""
        with self._context.database.snapshot() as connection:
            yield from iterate_roots(connection)

    def measure_usage(self, groups: Sequence[Sequence[CID]]) -> UsageReport:
        """Return the size of everything below each group of roots."""
        return measure_usage(self._context, self._blocks, groups)

    def scrub(self, progress: Callable[[int], None] | None = None) -> ScrubReport:
        """Read and hash everything in the store."""
        files = WholeFiles(self._context, self._blocks, verify_always=True)
        with translate_disk_errors(self.directory):
            return Scrubber(self._context, self._blocks, files, progress).run()

    def has_known_damage(self) -> bool:
        """Return whether the index records damage that is not healed yet."""
        return bool(self._damaged_places())

    def _damaged_places(self) -> set[int]:
        """Return the ids of files with known damage."""
        with self._context.database.read() as connection:
            return {row[0] for row in connection.execute("SELECT id FROM place WHERE damaged")}

    def heal_known_damage(self, source: BlockReader) -> ScrubReport:
        """Restore known damaged blocks and files from another reader. Reads only damaged files and inline blocks.

        Returns:
            What is damaged or missing afterwards.
        """
        damaged = self._damaged_places()
        files = WholeFiles(self._context, self._blocks, verify_always=True)
        previous = self._context.healing.source
        self.heal_from(source)
        try:
            Scrubber(self._context, self._blocks, files, only=damaged).run()
        finally:
            self.heal_from(previous)
        # Again without the source: if the disk is full, blocks were read from the source but could not be stored.
        return Scrubber(self._context, self._blocks, files, only=damaged).run()

    def find_affected(self, damaged: Collection[CID]) -> AffectedReport:
        """Return the names that need damaged blocks or files."""
        return find_affected(self._context, self._blocks, damaged)

    def back_up(self, writer: BackupWriter, participant: Participant, *, verify: bool = True) -> BackupReport:
        """Copy the whole store and a participant as of one moment. Other processes may write to the store meanwhile."""
        return back_up_store(self._context, self._blocks, writer, participant, verify=verify)

    def collect_garbage(self, *, dry_run: bool = False, grace_seconds: float = 0) -> GCReport:
        """Delete content that no name needs."""
        with translate_disk_errors(self.directory):
            report = collect_garbage(self._context, self._blocks, dry_run=dry_run, grace_seconds=grace_seconds)
        if not dry_run:
            make_backup(self._context)
        return report

    def close(self) -> None:
        """Release files and locks. Views remain until the process ends."""
        if self._context.session.is_open or self._context.database.has_written:  # small content needs no session
            make_backup_if_due(self._context)
        self._context.session.close()
        self._context.leases.release_all()
        self._context.database.close()


def open_local_storage(
    path: str | os.PathLike[str],
    *,
    timeout_seconds: float = 60.0,
    verify_always: bool = False,
    view_mode: ViewMode = "auto",
    cache_bytes: int = DEFAULT_CACHE_BYTES,
    create: bool = True,
    read_only: bool = False,
    disk: Disk | None = None,
) -> LocalStorage:
    """Open the store in a directory.

    Args:
        path: the directory of the store.
        timeout_seconds: how long to wait for a lock.
        verify_always: hash a file each time before its path is returned, even if its stamp is unchanged.
        view_mode: how views share bytes with the store: ``auto``, ``reflink``, ``hardlink`` or ``copy``.
        cache_bytes: the largest size of the cache.
        create: create a store if the directory is empty or does not exist.
        read_only: write nothing and take no locks, so that any file system is suitable. No process may write to the
            store meanwhile.
        disk: performs the operations on the disk; for tests.

    Raises:
        StoreFormatError: the directory holds no store that this version can open, or its file system is not suitable.
        StoreBusyError: another process was still creating or writing the store when the time limit passed.
        StoreFullError: the disk has no room for a new store.
        PolicyError: this user may not use the directory, or a file in it.
    """
    with translate_access_errors(Path(path)):
        return _open(
            Path(path),
            disk or Disk(),
            timeout_seconds=timeout_seconds,
            verify_always=verify_always,
            view_mode=view_mode,
            cache_bytes=cache_bytes,
            create=create,
            read_only=read_only,
        )


def _open(
    path: Path,
    disk: Disk,
    *,
    timeout_seconds: float,
    verify_always: bool,
    view_mode: ViewMode,
    cache_bytes: int,
    create: bool,
    read_only: bool,
) -> LocalStorage:
    if read_only:
        layout, store_id = find_to_read(path)
    else:
        layout, store_id = find_or_create(path, disk, timeout_seconds=timeout_seconds, create=create)
        read_only = is_read_only(layout)
    write_lock = FileLock(layout.write_lock, timeout_seconds=timeout_seconds, purpose="is writing to the store")
    publish_lock = FileLock(layout.publish_lock, timeout_seconds=timeout_seconds, purpose="is publishing or rebuilding")
    gc_lock = FileLock(layout.gc_lock, timeout_seconds=timeout_seconds, purpose="is collecting garbage")
    cache_lock = FileLock(layout.cache_lock, timeout_seconds=timeout_seconds, purpose="is assembling a file")
    database = Database(layout, disk, write_lock, timeout_seconds=timeout_seconds, read_only=read_only)
    check_database(layout, database, store_id)
    if not read_only:
        layout.make_directories(disk)
        remove_dead_sessions(layout, disk)
        make_reserve(layout, disk)
        remove_leftovers(layout, disk, database)
    session = Session(layout, disk)
    context = StoreContext(layout, disk, database, session, publish_lock, gc_lock, cache_lock, store_id, cache_bytes)
    return LocalStorage(context, verify_always=verify_always, view_mode=view_mode)
