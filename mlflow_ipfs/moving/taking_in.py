"""Import of the files of planned rows into the store, and the comparison of every file with what the store has.

The files of many small rows are published together, because each publication waits for the disk.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mlflow_ipfs.binding.artifacts.artifact_places import without_user
from mlflow_ipfs.binding.artifacts.artifact_sources import Listing
from mlflow_ipfs.binding.databases.former_locations import stored_mark
from mlflow_ipfs.content.checking.compare import compare_with_disk
from mlflow_ipfs.content.mfs import MfsPath
from mlflow_ipfs.errors import (
    MlflowIpfsError,
    RemoteError,
    StoreBusyError,
    StoreFormatError,
    StoreFullError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from mlflow_ipfs.binding.artifacts.artifact_sources import SourceFile
    from mlflow_ipfs.content.cid import CID
    from mlflow_ipfs.content.names.entries import MfsEntry
    from mlflow_ipfs.content.store import ContentStore
    from mlflow_ipfs.moving.adoption_plan import PlannedRow

_BATCH_FILES: Final = 1000
_BATCH_BYTES: Final = 256 << 20
_OF_THE_STORE: Final = (StoreFullError, StoreBusyError, StoreFormatError)  # these errors stop the adoption
_MAX_SHOWN: Final = 3
_HOW_TO_DECIDE: Final = "rename the other one to keep both, or remove it, then adopt again"


@dataclass(slots=True)
class TakenRow:
    """The outcome for one row.

    Attributes:
        planned: the row.
        files: number of its files.
        size_bytes: sum of their sizes.
        empty_directories: number of directories that are not kept, because they have no files.
        fingerprint: ``Listing.fingerprint`` of the files that were compared with the store.
        is_known: True if an earlier pass took in the row, and no file has changed since.
        problems: the reasons why the row is left out; empty if every file is in the store.
        listing: the files.
        stored: ``stored_mark`` of the files of the store that are equal to files of the source, or that this pass wrote.
    """

    planned: PlannedRow
    files: int = 0
    size_bytes: int = 0
    empty_directories: int = 0
    fingerprint: str = ""
    is_known: bool = False
    problems: list[str] = field(default_factory=list)
    listing: Listing = field(default_factory=Listing)
    stored: set[str] = field(default_factory=set)

    @property
    def reason(self) -> str:
        """The problems as one text; empty if there are none."""
        more = len(self.problems) - _MAX_SHOWN
        return "; ".join(self.problems[:_MAX_SHOWN]) + (f"; and {more:,} more" if more > 0 else "")


class Intake:
    """Importer of rows into one store.

    Args:
        store: the store.
        store_id: the id of the store.
        progress: called with the number of bytes just read.

    Attributes:
        new_bytes: number of bytes that the store did not have before.
    """

    def __init__(self, store: ContentStore, store_id: str, progress: Callable[[int], None]) -> None:
        self._store = store
        self._store_id = store_id
        self._progress = progress
        self._batch: list[tuple[MfsPath, Path]] = []
        self._batch_bytes = 0
        self._failed: dict[MfsPath, str] = {}
        self._created: set[MfsPath] = set()
        self._written: dict[MfsPath, CID] = {}
        self._expected: dict[MfsPath, CID | None] = {}
        self.new_bytes = 0

    def take(self, rows: Iterable[PlannedRow]) -> list[TakenRow]:
        """Import the files of rows, and compare them with the store.

        A file that changes after its import is imported once more. If it changes again, its row has a problem.

        Raises:
            StoreFullError, StoreBusyError, StoreFormatError: the store cannot be written to.
        """
        taken = [self._import(planned) for planned in rows]
        self._flush()
        for row in taken:
            if not row.is_known and (not row.problems or _is_partly_useful(row.planned)):
                self._verify(row)
        return taken

    def _import(self, planned: PlannedRow) -> TakenRow:
        row = TakenRow(planned)
        if planned.problem is not None:
            row.problems.append(planned.problem)
            return row
        listing = _list(row)
        row.is_known = _is_known(row, self._store_id)
        if row.is_known:
            return row
        if row.problems and not _is_partly_useful(planned):
            return row
        if planned.source.is_local:
            self._import_missing(planned, listing, Path(planned.source.place))
        elif listing.files:
            self._import_remote(row, listing)
        return row

    def _import_remote(self, row: TakenRow, listing: Listing) -> None:
        """Import the files of one row through a temporary copy, and compare them with it."""
        planned = row.planned
        try:
            with planned.source.fetched(self._store.storage.make_view_directory) as directory:
                self._import_missing(planned, listing, directory)
                self._flush()
                self._compare_twice(row, listing, directory)
        except RemoteError as error:
            row.problems.append(str(error))

    def _import_missing(self, planned: PlannedRow, listing: Listing, directory: Path) -> None:
        """Import the files that the store does not have with the same size."""
        entries = self._make_way(planned, listing)
        for file in self._new_files(planned, listing):
            entry = entries.get(file.path)
            if entry is None:
                self._created.add(planned.target.join(file.path))
            if entry is None or (entry.size_bytes != file.size_bytes and self._may_replace(planned, entry, file)):
                self._add(planned, file, directory, entry)

    def _add(self, planned: PlannedRow, file: SourceFile, directory: Path, entry: MfsEntry | None) -> None:
        if len(self._batch) >= _BATCH_FILES or self._batch_bytes + file.size_bytes > _BATCH_BYTES:
            self._flush()
        location = planned.target.join(file.path)
        if planned.keeps_location:  # a client may write the file before the batch is published
            self._expected[location] = None if entry is None else entry.cid
        self._batch.append((location, directory / file.path))
        self._batch_bytes += file.size_bytes

    def _flush(self) -> None:
        batch, self._batch, self._batch_bytes = self._batch, [], 0
        self._put(batch)
        self._expected.clear()

    def _put(self, sources: Sequence[tuple[MfsPath, Path]]) -> None:
        """Publish files in one step. If some cannot be imported, publish all others, and record the reasons."""
        if not sources:
            return
        try:
            entries, new_bytes = self._store.files.put_files(
                sources,
                expected={location: self._expected[location] for location, _ in sources if location in self._expected},
                progress=self._progress,
            )
            self._written |= {location: entry.cid for (location, _), entry in zip(sources, entries, strict=True)}
            self.new_bytes += new_bytes
        except _OF_THE_STORE:
            raise
        except (MlflowIpfsError, OSError) as error:
            if len(sources) == 1:
                self._failed[sources[0][0]] = _text_of(error)
                return
            half = len(sources) // 2
            self._put(sources[:half])
            self._put(sources[half:])

    def _verify(self, row: TakenRow) -> None:
        """Compare the files of a row, as they are now, with the store."""
        planned, imported = row.planned, row.fingerprint
        listing = _list(row)
        if not planned.source.is_local:
            if not row.problems and row.fingerprint != imported:
                row.problems.append(f"{planned.source.place} changed while it was read; adopt it again")
            return
        directory = Path(planned.source.place)
        self._compare_twice(row, listing, directory, has_changed=row.fingerprint != imported)
        self._remove_vanished(planned, listing)

    def _compare_twice(self, row: TakenRow, listing: Listing, directory: Path, *, has_changed: bool = False) -> None:
        """Compare files with the store. If they differ, import those that changed once more, and compare again."""
        if has_changed or self._compare(row, listing, directory):
            self._import_changed(row.planned, listing, directory)
            row.problems += self._compare(row, listing, directory)

    def _import_changed(self, planned: PlannedRow, listing: Listing, directory: Path) -> None:
        entries = self._make_way(planned, listing)
        for file in self._new_files(planned, listing):
            entry = entries.get(file.path)
            self._failed.pop(planned.target.join(file.path), None)
            if entry is None or (
                self._may_replace(planned, entry, file) and differs(self._store, entry, directory / file.path)
            ):
                self._add(planned, file, directory, entry)
        self._flush()

    def _remove_vanished(self, planned: PlannedRow, listing: Listing) -> None:
        """Remove files that this pass created in the store, and that the source does not have any more.

        Other files stay: the database may be an older copy, or an ejected one, and the store may have the only copy of them.
        """
        entries = self._entries(planned)
        for path in entries.keys() - listing.files.keys():
            if planned.target.join(path) in self._created and self._has_written(entries[path]):
                self._store.files.delete(planned.target.join(path))

    def _make_way(self, planned: PlannedRow, listing: Listing) -> Mapping[str, MfsEntry]:
        """Delete what makes it impossible to store a file: a file above its path, or a directory at its path.

        Return the files of the row that the store has then. A location that the database names already is not changed.
        """
        entries = self._entries(planned)
        if planned.keeps_location:
            return entries
        blocked = _find_blocked(entries.keys(), listing.files.keys())
        for path in blocked.values():
            self._store.files.delete(planned.target.join(path))
        return self._entries(planned) if blocked else entries

    def _may_replace(self, planned: PlannedRow, entry: MfsEntry, file: SourceFile) -> bool:
        """Return True if a file of the source may replace a different one in the store.

        Clients may have written to a location of the store that the database names. Only ``adopt`` writes to other
        locations before the database names them.
        """
        if not planned.keeps_location or self._has_written(entry):
            return True
        earlier = planned.earlier(self._store_id)
        if earlier is None:
            return file.changed_ns > entry.mtime_ns
        return stored_mark(file.path, entry.cid) in earlier.stored

    def _explain_difference(self, planned: PlannedRow, entry: MfsEntry, file: SourceFile) -> str:
        source = _name_of(planned, file)
        if self._may_replace(planned, entry, file):
            return f"{source} changed while it was read; adopt it again when no process writes to it"
        if planned.earlier(self._store_id) is not None:
            reason = "the file in the store was changed, too"
        elif file.changed_ns:
            reason = "by the clocks of both machines the file in the store is newer"
        else:
            reason = "differs from the file in the store, and its age is not known"
        return f"{source}: {reason}, so that one was kept; {_HOW_TO_DECIDE}"

    def _explain_missing(self, planned: PlannedRow, file: SourceFile, *, blocked_by: str | None, is_file: bool) -> str:
        failure = self._failed.pop(planned.target.join(file.path), None)
        if blocked_by is None:
            return failure or f"{_name_of(planned, file)} is not in the store; adopt it again"
        there = "is a file in the store, but a directory" if is_file else "is a directory in the store, but a file"
        return f"{_name_of(planned, file)}: {blocked_by!r} {there} here, so it was left; {_HOW_TO_DECIDE}"

    def _new_files(self, planned: PlannedRow, listing: Listing) -> list[SourceFile]:
        """Return the files that no earlier pass has taken in."""
        earlier = planned.earlier(self._store_id)
        return listing.without(earlier.marks if earlier is not None else frozenset())

    def _compare(self, row: TakenRow, listing: Listing, directory: Path) -> list[str]:
        """Compare files byte for byte with the store. Return a reason for each one that is not the same there."""
        planned = row.planned
        entries, files = self._entries(planned), self._new_files(planned, listing)
        blocked = _find_blocked(entries.keys(), [file.path for file in files if file.path not in entries])
        problems = []
        for file in files:
            entry, blocked_by = entries.get(file.path), blocked.get(file.path)
            if entry is None:
                is_file = blocked_by in entries
                problems.append(self._explain_missing(planned, file, blocked_by=blocked_by, is_file=is_file))
                self._progress(file.size_bytes)
                continue
            is_equal = not differs(self._store, entry, directory / file.path)
            if is_equal or self._has_written(entry):
                row.stored.add(stored_mark(file.path, entry.cid))
            if not is_equal:
                problems.append(self._explain_difference(planned, entry, file))
            self._progress(file.size_bytes)
        return problems

    def _has_written(self, entry: MfsEntry) -> bool:
        """Return True if a file of the store is as this pass wrote it."""
        return self._written.get(MfsPath(entry.root, entry.path)) == entry.cid

    def _entries(self, planned: PlannedRow) -> Mapping[str, MfsEntry]:
        """Return the files of a row that the store has, by their paths below the row's target."""
        start = len(planned.target.path) + 1
        return {entry.path[start:]: entry for entry in self._store.files.walk(planned.target)}


def _find_blocked(stored: Iterable[str], wanted: Iterable[str]) -> dict[str, str]:
    """Return the files that a store cannot have beside those that it has, and for each one the path in the way."""
    files = set(stored)
    directories = {above for path in files for above in _above(path)}
    blocked = {path: path for path in wanted if path in directories}
    return blocked | {path: above for path in wanted for above in _above(path) if above in files}


def _above(path: str) -> Iterator[str]:
    """Yield the directories above a path."""
    while path := path.rpartition("/")[0]:
        yield path


def differs(store: ContentStore, entry: MfsEntry, source: Path) -> bool:
    """Return True if a file on disk, or the file that a symlink leads to, differs from a file of the store."""
    # compare_with_disk does not follow symlinks, because it also compares content that has symlinks.
    return bool(compare_with_disk(store.storage.blocks, entry.cid, source.resolve()).problems)


def list_row(planned: PlannedRow, store_id: str) -> TakenRow:
    """Return what would be taken in of a row, without reading the files."""
    row = TakenRow(planned)
    if planned.problem is not None:
        row.problems.append(planned.problem)
    else:
        _list(row)
        row.is_known = _is_known(row, store_id)
    return row


def _list(row: TakenRow) -> Listing:
    """List the files of a row, and record their number, sizes, fingerprint and problems instead of earlier ones."""
    try:
        listing = row.planned.source.list_files()
    except RemoteError as error:
        row.problems = [str(error)]
        row.listing = Listing()
        return row.listing
    row.listing = listing
    row.files, row.size_bytes = len(listing.files), listing.size_bytes
    row.empty_directories, row.fingerprint = listing.empty_directories, listing.fingerprint
    row.problems = list(listing.problems)
    return listing


def _is_known(row: TakenRow, store_id: str) -> bool:
    """Return True if an earlier pass has taken in every file of a row, and the row names the store."""
    earlier = row.planned.earlier(store_id)
    return earlier is not None and not row.problems and not row.listing.without(earlier.marks)


def _is_partly_useful(planned: PlannedRow) -> bool:
    """Return True if some files of a row are useful in the store without the others.

    Clients find them if the row's location names the store. Another row's location changes only with all its files.
    """
    return planned.problem is None and planned.keeps_location and planned.source.is_local


def _name_of(planned: PlannedRow, file: SourceFile) -> str:
    return repr(f"{without_user(planned.source.place).rstrip('/')}/{file.path}")


def _text_of(error: MlflowIpfsError | OSError) -> str:
    if isinstance(error, MlflowIpfsError) or not error.strerror:
        return str(error)
    return f"{os.fsdecode(error.filename)!r} cannot be read: {error.strerror}"
