"""Writer of a store copy: it copies the missing files, hashes them, and adapts the index to them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mlflow_ipfs.content.storage.local.backup.files import (
    FileCopier,
    is_copy_of,
    make_real_directory,
    status_of,
    translate_copy_errors,
)
from mlflow_ipfs.content.storage.local.backup.index_copy import BackupFile, BackupIndex, read_files
from mlflow_ipfs.content.storage.local.files.sessions import Session
from mlflow_ipfs.content.storage.local.gc.whole_files import WholeFiles
from mlflow_ipfs.content.storage.local.index.database import Database
from mlflow_ipfs.content.storage.local.index.index_rows import Stamp
from mlflow_ipfs.content.storage.local.index.layout import Layout
from mlflow_ipfs.content.storage.local.publishing.blocks import LocalBlocks
from mlflow_ipfs.content.storage.local.reading import inspection
from mlflow_ipfs.content.storage.local.reading.context import StoreContext
from mlflow_ipfs.content.storage.local.repair.scrubbing import Scrubber
from mlflow_ipfs.content.storage.maintenance import ScrubReport
from mlflow_ipfs.content.system.locking import FileLock
from mlflow_ipfs.errors import IntegrityError, StoreBusyError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from mlflow_ipfs.content.system.disk import Disk

INDEX: Final = Layout(Path()).database.name


@dataclass(slots=True)
class BackupWriter:
    """Writer of one store copy.

    Args:
        disk: performs every operation.
        directory: the directory of the store copy.
        work: an empty directory on the same file system, for drafts.
        progress: called with the number of bytes copied or hashed since its last call.
        verify_rows: whether the index may have wrong rows for undamaged files, because it did not come from an open
            store.
    """

    disk: Disk
    directory: Path
    work: Path
    progress: Callable[[int], None] | None = None
    verify_rows: bool = False
    _copier: FileCopier = field(init=False)

    def __post_init__(self) -> None:
        with translate_copy_errors(self.directory):
            for directory in (self.directory, self.directory / "files", self.directory / "quarantine", self.work):
                make_real_directory(self.disk, directory)
        check_not_in_use(self.directory)
        previous = {file.name: file for file in read_files(index)} if (index := self.directory / INDEX).exists() else {}
        self._copier = FileCopier(self.disk, self.directory, self.work, previous, self.progress)

    def lacks(self, file: BackupFile) -> bool:
        """Return whether a file still has to be copied."""
        return not self._copier.has(file)

    def write(
        self, index: Path, files: Collection[BackupFile], sources: Mapping[int, Path], *, verify: bool
    ) -> ScrubReport:
        """Copy the missing files, hash them, and adapt the index to the copied files.

        Args:
            index: the index of the copy, not yet at its final path. It is changed.
            files: the files in the index.
            sources: the paths from which the missing files can be read, by row. A missing file without a path is lost.
            verify: hash the copied files. Lost files are checked in any case.

        Returns:
            The damage in the copy that the original has, too.

        Raises:
            IntegrityError: the copy's disk does not return the bytes that were written to it.
            StoreFullError: the copy's disk is full.
        """
        missing = [file for file in files if self.lacks(file)]
        self._copier.copy((file, sources[file.id]) for file in missing if file.id in sources)
        lost = {file.id for file in missing if file.id not in sources} | self._copier.unreadable
        new = {file.id for file in files if file.name not in self._copier.previous} if verify else set()
        checked = new | lost | ({file.id for file in missing} if verify else set())
        report = ScrubReport(0, 0, ())
        if verify or lost:
            report = self._check_files(index, checked)
        bad = [cid for cid, _ in report.problems]
        unsure = set() if verify else {file.id for file in missing if file.is_damaged}
        with BackupIndex(index) as backup_index:
            self._refuse_bad_copies(backup_index.files_of(bad), files, sources)
            backup_index.restamp(self._stamps(files), unsure)
            backup_index.mark_damaged(bad)
        return report

    @property
    def copied(self) -> list[BackupFile]:
        """The files that were copied."""
        return self._copier.copied

    def _refuse_bad_copies(
        self, suspects: Collection[int], files: Collection[BackupFile], sources: Mapping[int, Path]
    ) -> None:
        """Raise if a damaged file differs from its source. A file that is damaged like its source is accepted."""
        for file in files:
            path = self.directory / file.name
            if file.id not in suspects or file.id not in sources or status_of(path) is None:
                continue
            if file.id not in self._copier.unreadable and not is_copy_of(self.disk, path, sources[file.id]):
                self.disk.remove(path)
                msg = (
                    f"{path} was not read back as it was written: check that disk. The previous files there were not "
                    "changed"
                )
                raise IntegrityError(msg)

    def _check_files(self, index: Path, only: Collection[int]) -> ScrubReport:
        """Hash files of the copy, and all blocks inside an index of it at another path. Change nothing."""
        layout = _SeparateIndexLayout(self.directory, index)
        lock = FileLock(layout.write_lock, timeout_seconds=0, purpose="is checking a backup")  # never acquired
        database = Database(layout, self.disk, lock, timeout_seconds=1, read_only=True)
        context = StoreContext(layout, self.disk, database, Session(layout, self.disk), lock, lock, lock, "", 0)
        blocks = LocalBlocks(context)
        files = WholeFiles(context, blocks, verify_always=True)
        try:
            return Scrubber(context, blocks, files, self.progress, only, self.verify_rows).run()
        finally:
            context.leases.release_all()
            database.close()

    def _stamps(self, files: Collection[BackupFile]) -> Iterator[tuple[int, Stamp]]:
        for file in files:
            status = status_of(self.directory / file.name)
            if status is not None:
                yield file.id, Stamp.of(status)


def check_not_in_use(directory: Path) -> None:
    """Raise if another program has opened the copy as a store: its index must not be replaced meanwhile.

    Raises:
        StoreBusyError: a program has the copy open.
    """
    if (directory / "sessions").is_dir() and inspection.count_sessions(directory).live:
        msg = f"{directory} is in use as a store: end the programs that have it open"
        raise StoreBusyError(msg)


@dataclass(frozen=True, slots=True)
class _SeparateIndexLayout(Layout):
    """Layout of a store with its index in another directory."""

    index: Path

    @property
    def database(self) -> Path:
        return self.index
