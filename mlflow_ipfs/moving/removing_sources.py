"""Removal of the files that were taken in, from where they were before: only of files that are equal in the store."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mlflow_ipfs.binding.artifacts.artifact_places import proxied_path
from mlflow_ipfs.binding.artifacts.artifact_sources import LocalSource, open_place
from mlflow_ipfs.binding.databases.artifact_rows import COLUMNS, ArtifactRow, iterate_rows, read_dataset_sources
from mlflow_ipfs.binding.databases.former_locations import FormerLocation, read_former_locations
from mlflow_ipfs.binding.locations import IPFS, MFS, PROXIED, cid_of_location, parse_mfs, scheme_of
from mlflow_ipfs.binding.mlflow_compat import PROMPT_SOURCES
from mlflow_ipfs.errors import RemoteError
from mlflow_ipfs.moving.adoption_report import LeftOut
from mlflow_ipfs.moving.location_index import keys_of
from mlflow_ipfs.moving.taking_in import differs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from sqlalchemy import Connection

    from mlflow_ipfs.binding.artifacts.artifact_sources import ArtifactSource, Listing
    from mlflow_ipfs.content.mfs import MfsPath
    from mlflow_ipfs.content.store import ContentStore
    from mlflow_ipfs.moving.adoption_plan import PlannedRow

_DIRECTORIES: Final[Mapping[str, tuple[str, ...]]] = {"run": (), "logged model": ("models",), "trace": ("traces",)}


@dataclass(slots=True)
class RemovalReport:
    """What was removed.

    Attributes:
        files: number of files.
        size_bytes: sum of their sizes.
        kept: the rows of which a file was not removed, with the reason.
    """

    files: int = 0
    size_bytes: int = 0
    kept: list[LeftOut] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Adopted:
    """A row that was taken in, with the mutable path of its files."""

    row: ArtifactRow
    former: FormerLocation
    target: MfsPath


class SourceRemover:
    """Remover of the former files of one database.

    Args:
        store: the store.
        store_id: the id of the store.
        destination: the mutable path that ``mlflow-artifacts:/`` means; None if the database has no such location.
        bases: the directories against which relative locations are resolved.
        progress: called with the number of bytes just compared.
    """

    def __init__(
        self,
        store: ContentStore,
        store_id: str,
        *,
        destination: MfsPath | None,
        bases: Sequence[Path],
        progress: Callable[[int], None],
    ) -> None:
        self._store = store
        self._store_id = store_id
        self._destination = destination
        self._bases = bases
        self._progress = progress

    def remove(self, connection: Connection, planned: Iterable[PlannedRow]) -> RemovalReport:
        """Remove every file of an adopted row that is equal in the store, and then empty directories.

        Args:
            connection: the database.
            planned: the rows of the adoption, with those that it left out.
        """
        rows = list(iterate_rows(connection))
        adopted = list(self._find_adopted(connection, rows))
        needed = self._find_needed(rows, _left_out(planned, adopted), read_dataset_sources(connection))
        connection.rollback()  # a reader would keep MLflow's writers waiting
        above_needed = {above: user for place, user in needed.items() for above in _with_parents(place)}
        report = RemovalReport()
        for one in adopted:
            places = [above for place in _spellings(one.former.place) for above in _with_parents(place)]
            inside = (above_needed.get(place) for place in _spellings(one.former.place))
            user = next(filter(None, inside), None) or next(
                (needed[place] for place in places if place in needed), None
            )
            if user is not None:
                report.kept.append(_kept(one, f"{user} still reads files in {one.former.place}"))
                continue
            try:
                self._remove(one, report)
            except (RemoteError, OSError) as error:
                report.kept.append(_kept(one, str(error)))
        return report

    def _find_adopted(self, connection: Connection, rows: Sequence[ArtifactRow]) -> Iterator[_Adopted]:
        """Yield the rows whose files an adoption took into this store, and which still name them."""
        records = read_former_locations(connection)
        for row in rows:
            record = records.get((COLUMNS[row.kind][0], row.name)) if row.kind in COLUMNS else None
            if record is None or record.store_id != self._store_id:
                continue
            path = proxied_path(row.uri)
            if scheme_of(row.uri) == MFS:
                yield _Adopted(row, record, parse_mfs(row.uri))
            elif path is not None and self._destination is not None:
                yield _Adopted(row, record, self._destination.join(path))

    def _find_needed(
        self, rows: Sequence[ArtifactRow], left_out: Mapping[str, str], datasets: Sequence[tuple[str, str]]
    ) -> dict[str, str]:
        """Return the places from which MLflow still reads files, and for each one the row that names it."""
        needed = dict(left_out)
        for row in rows:
            is_elsewhere = scheme_of(row.uri) not in {MFS, IPFS, PROXIED} and row.uri not in PROMPT_SOURCES
            if is_elsewhere and cid_of_location(row.uri) is None:
                needed |= dict.fromkeys(keys_of(row.uri, self._bases), f"{row.kind} {row.name}")
        needed |= {
            target: user for place, user in needed.items() if _is_local(place) for target in _link_targets(Path(place))
        }
        for name, uri in datasets:
            needed |= dict.fromkeys(keys_of(uri, self._bases), f"dataset {name}")
        return {spelling: user for place, user in needed.items() for spelling in _spellings(place)}

    def _remove(self, one: _Adopted, report: RemovalReport) -> None:
        source = open_place(one.former.place)
        listing = source.list_files()
        reasons = list(listing.problems)
        equal, different = self._compare(one, source, listing)
        reasons += [f"{path!r} differs from the store" for path in different]
        if source.is_local or not reasons:
            removed = source.remove([listing.files[path] for path in equal])
            report.files += len(removed)
            report.size_bytes += sum(file.size_bytes for file in removed)
            stayed = set(equal) - {file.path for file in removed}
            reasons += [f"{path!r} was changed meanwhile" for path in sorted(stayed)]
        if reasons:
            report.kept.append(_kept(one, "; ".join(reasons)))
        elif isinstance(source, LocalSource):
            _remove_empty_parents(source.directory, one.row)

    def _compare(self, one: _Adopted, source: ArtifactSource, listing: Listing) -> tuple[list[str], list[str]]:
        """Return the paths of the files that are equal in the store, and of those that are not."""
        start = len(one.target.path) + 1
        entries = {entry.path[start:]: entry for entry in self._store.files.walk(one.target)}
        equal: list[str] = []
        different: list[str] = []
        if not listing.files:
            return equal, different
        with source.fetched(self._store.storage.make_view_directory) as directory:
            for path, file in listing.files.items():
                entry = entries.get(path)
                is_equal = entry is not None and not differs(self._store, entry, directory / path)
                (equal if is_equal else different).append(path)
                self._progress(file.size_bytes)
        return equal, different


def _left_out(planned: Iterable[PlannedRow], adopted: Iterable[_Adopted]) -> dict[str, str]:
    """Return the places of the rows that the store does not have, and for each one the row."""
    in_store = {(one.row.kind, one.row.name) for one in adopted}
    rows = ((one.row, one.source.place) for one in planned)
    return {place: f"{row.kind} {row.name}" for row, place in rows if (row.kind, row.name) not in in_store}


def _spellings(place: str) -> tuple[str, ...]:
    """Return a place, and the directory to which it leads if a part of it is a symlink."""
    place = place.rstrip("/")
    return (place, os.path.realpath(place)) if _is_local(place) else (place,)


def _is_local(place: str) -> bool:
    return scheme_of(place) == ""


def _link_targets(directory: Path) -> set[str]:
    """Return the files and directories to which symlinks in a directory lead, also those below such a directory."""
    targets: set[str] = set()
    todo = [directory]
    while todo:
        for parent, directories, files in os.walk(todo.pop()):
            links = [path for name in (*directories, *files) if (path := Path(parent, name)).is_symlink()]
            found = {os.path.realpath(path) for path in links} - targets
            targets |= found
            todo += map(Path, found)
    return targets


def _with_parents(place: str) -> Iterator[str]:
    while place:
        yield place
        place = place.rpartition("/")[0]


def _remove_empty_parents(directory: Path, row: ArtifactRow) -> None:
    """Remove the empty directories above a row's files that have MLflow's names for them."""
    for name in (row.name, *_DIRECTORIES[row.kind], row.experiment_id):
        directory = directory.parent
        if directory.name != name:
            return
        try:
            directory.rmdir()
        except OSError:  # not empty
            return


def _kept(one: _Adopted, reason: str) -> LeftOut:
    return LeftOut(one.row.kind, one.row.name, reason)
