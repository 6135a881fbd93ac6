"""The directory of a copy of a store: files that are not there yet, hashed, and an index that fits them."""

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
    """Writes one copy.

    Args:
        disk: takes every step.
        directory: the copy's directory.
        work: an empty directory on the same file system, for drafts.
        progress: told how many bytes were copied or hashed since it was told last.
        verify_rows: whether the index may say of sound files what is not so: if it isn't that of an open store.
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
        refuse_used(self.directory)
        former = {file.name: file for file in read_files(index)} if (index := self.directory / INDEX).exists() else {}
        self._copier = FileCopier(self.disk, self.directory, self.work, former, self.progress)

    def lacks(self, file: BackupFile) -> bool:
        """Tell whether a file still has to be copied."""
        return not self._copier.has(file)

    def write(
        self, index: Path, files: Collection[BackupFile], sources: Mapping[int, Path], *, verify: bool
    ) -> ScrubReport:
        """Copy what is missing, hash it, and fit the index to the copied files.

        Args:
            index: the copy's index, not yet in its place; it is changed.
            files: what the index names.
            sources: where those can be read that are missing, by row; one that is not here is lost.
            verify: hash what was copied. What is lost is looked at in any case.

        Returns:
            What is wrong with the copy though it is as the original.

        Raises:
            IntegrityError: the copy's disk does not give back what was written to it.
            StoreFullError: it has no room.
        """
        missing = [file for file in files if self.lacks(file)]
        self._copier.copy((file, sources[file.id]) for file in missing if file.id in sources)
        lost = {file.id for file in missing if file.id not in sources} | self._copier.unreadable
        new = {file.id for file in files if file.name not in self._copier.former} if verify else set()
        looked_at = new | lost | ({file.id for file in missing} if verify else set())
        report = ScrubReport(0, 0, ())
        if verify or lost:
            report = self._check_files(index, looked_at)
        bad = [cid for cid, _ in report.problems]
        unsure = set() if verify else {file.id for file in missing if file.is_damaged}
        with BackupIndex(index) as cloned:
            self._refuse_bad_copies(cloned.files_of(bad), files, sources)
            cloned.restamp(self._stamps(files), unsure)
            cloned.mark_damaged(bad)
        return report

    @property
    def copied(self) -> list[BackupFile]:
        """What was copied."""
        return self._copier.copied

    def _refuse_bad_copies(
        self, suspects: Collection[int], files: Collection[BackupFile], sources: Mapping[int, Path]
    ) -> None:
        """A damaged original is copied as it is. A copy that differs from it is another matter."""
        for file in files:
            path = self.directory / file.name
            if file.id not in suspects or file.id not in sources or status_of(path) is None:
                continue
            if file.id not in self._copier.unreadable and not is_copy_of(self.disk, path, sources[file.id]):
                self.disk.remove(path)
                msg = (
                    f"{path} did not come out as it was written: look at that disk. What was there before is untouched"
                )
                raise IntegrityError(msg)

    def _check_files(self, index: Path, only: Collection[int]) -> ScrubReport:
        """Hash files of the copy, and all blocks in its index, wherever that lies. Changes nothing."""
        where = _Apart(self.directory, index)
        lock = FileLock(where.write_lock, timeout_seconds=0, purpose="is nobody's")
        database = Database(where, self.disk, lock, timeout_seconds=1, read_only=True)
        context = StoreContext(where, self.disk, database, Session(where, self.disk), lock, lock, lock, "", 0)
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


def refuse_used(directory: Path) -> None:
    """Somebody may be reading a copy as a store, but must not find another index under his feet.

    Raises:
        StoreBusyError: somebody is.
    """
    if (directory / "sessions").is_dir() and inspection.count_sessions(directory).live:
        msg = f"{directory} is in use as a store; end the programs that have it open"
        raise StoreBusyError(msg)


@dataclass(frozen=True, slots=True)
class _Apart(Layout):
    """A store whose index lies elsewhere."""

    index: Path

    @property
    def database(self) -> Path:
        return self.index
