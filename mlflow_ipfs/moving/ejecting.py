"""Ejection: artifacts of the store become plain files, and MLflow's database names these files.

For each experiment, in this order, so that a process that is killed can be started again:

1. The files of its runs, logged models and traces are written and verified. Files that exist already are compared.
2. One transaction of the database changes the locations of the experiment, if they are still those that were read.

Model versions follow, for each registered model. The store is not changed: until step 2, and for everything that was
left, the former locations work.

The registry id stays in the database, so that the store knows whose the pins are: nothing is deleted before a user says
so, and ``adopt`` finds the content again. The tags of versions stay, because they say which content was registered, and
that remains true. No tag says that a version is frozen.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from mlflow_ipfs.binding.database_forks import find_base
from mlflow_ipfs.binding.databases.artifact_locations import read_lengths, read_locations, write_locations
from mlflow_ipfs.binding.databases.artifact_rows import read_unfinished
from mlflow_ipfs.binding.databases.connections import LOCK_SECONDS, opened_database, shown_uri
from mlflow_ipfs.binding.locations import PROXIED, join_path, scheme_of
from mlflow_ipfs.binding.registry_id import read_registry_id
from mlflow_ipfs.errors import (
    ConflictError,
    IntegrityError,
    InvalidDataError,
    InvalidPathError,
    IsDirectoryError,
    MlflowIpfsError,
    NotDirectoryError,
    NotFoundError,
    PolicyError,
    SourceChangedError,
)
from mlflow_ipfs.moving.eject_rows import RUNNING, count_datasets, find_outside, read_rows
from mlflow_ipfs.moving.ejected_places import STORED_SCHEMES, EjectedPlaces
from mlflow_ipfs.moving.tree_writer import MutableCopy, opened_counter, opened_writer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from sqlalchemy import URL, Connection, Engine

    from mlflow_ipfs.content.store import ContentStore
    from mlflow_ipfs.moving.eject_rows import EjectRow, EjectRows
    from mlflow_ipfs.moving.ejected_places import StoredPlace
    from mlflow_ipfs.moving.tree_writer import TreeWriter

_MAX_PASSES: Final = 5  # over the database: each takes the rows that were made during the one before
_MAX_UPDATES: Final = 3  # of one copy, while its source changes
_ROW_ERRORS: Final = (  # the other rows may be ejected nevertheless
    ConflictError,
    IntegrityError,
    InvalidDataError,
    InvalidPathError,
    IsDirectoryError,
    NotDirectoryError,
    NotFoundError,
    PolicyError,
    SourceChangedError,
)


@dataclass(frozen=True, slots=True)
class EjectOptions:
    """What to eject.

    Attributes:
        directory: the directory to write to, absolute.
        for_server: write ``mlflow-artifacts:/`` locations, for a server with this directory as its destination.
        include_running: include runs that have not ended.
        destination: the ``--artifacts-destination`` of the present server; None: derive it from the store.
        dry_run: write nothing.
    """

    directory: Path
    for_server: bool = False
    include_running: bool = False
    destination: str | None = None
    dry_run: bool = False


@dataclass(slots=True)
class EjectReport:
    """The result of an ejection. The names are keys of ``--json`` output.

    Attributes:
        counts: number of rows that were ejected, by their kind.
        files: number of files written.
        equal_files: number of files that existed already with the same content.
        size_bytes: size of the files written.
        locations: number of locations that were changed in the database.
        left: the reason for each row that was left, by its kind and name.
        elsewhere: number of rows whose artifacts were not in the store, and which stay as they are.
        datasets: number of datasets whose source stays ``ipfs://``.
        needs_destination: whether the server must be started with the directory as ``--artifacts-destination``.
    """

    counts: dict[str, int] = field(default_factory=dict)
    files: int = 0
    equal_files: int = 0
    size_bytes: int = 0
    locations: int = 0
    left: dict[str, str] = field(default_factory=dict)
    elsewhere: int = 0
    datasets: int = 0
    needs_destination: bool = False


def eject_artifacts(
    url: URL, store: ContentStore, options: EjectOptions, *, progress: Callable[[int], None] = lambda _: None
) -> EjectReport:
    """Write the artifacts of a database as plain files, and change its locations to them.

    Args:
        url: MLflow's database.
        store: the store; it is not changed.
        options: what to eject.
        progress: called with the number of bytes just written or compared.

    Raises:
        SettingsError: the database cannot be read, or the meaning of its ``mlflow-artifacts:`` locations is ambiguous.
        StoreFullError: the disk of the directory is full. What was ejected before stays.
        StoreBusyError: another process ejects into the directory, or keeps the database locked.
        MlflowIpfsError: the database cannot be changed. What was ejected before stays.
    """
    with opened_database(url) as connection:
        registry_id, limits = read_registry_id(connection), read_lengths(connection)
        base = find_base(read_locations(connection), store, options.destination, registry_id)
        places = EjectedPlaces(options.directory, registry_id, base, for_server=options.for_server, limits=limits)
    outside = find_outside(url, store, base)
    report = EjectReport(elsewhere=outside.elsewhere, datasets=count_datasets(url))
    engine = sqlalchemy.create_engine(url, poolclass=NullPool, connect_args=_connect_args(url))
    opened = opened_counter if options.dry_run else opened_writer
    try:
        with opened(store, options.directory, progress) as writer:
            ejection = _Ejection(engine, writer, places, options, report)
            for _ in range(1 if options.dry_run else _MAX_PASSES):
                rows = read_rows(url, places, outside.missing, include_running=options.include_running)
                if not ejection.eject(rows):
                    break
            report.files, report.equal_files, report.size_bytes = writer.files, writer.equal_files, writer.size_bytes
    finally:
        engine.dispose()
    return report


@dataclass(slots=True)
class _Ejection:
    engine: Engine
    writer: TreeWriter
    places: EjectedPlaces
    options: EjectOptions
    report: EjectReport
    _done: set[tuple[Any, ...]] = field(default_factory=set)

    def eject(self, rows: EjectRows) -> bool:
        """Eject the rows that were not ejected before. Return False if there are none."""
        self.report.left |= rows.left
        is_new = False
        for experiment in rows.experiments.values():
            if new := self._take_new(experiment):
                self._eject_experiment(new)
                is_new = True
        for model in rows.versions.values():
            if new := self._take_new(model):
                self._eject_model(new, rows)
                is_new = True
        return is_new

    def _take_new(self, rows: Iterable[EjectRow]) -> list[EjectRow]:
        new = [row for row in rows if (row.location.table, row.location.column, *row.location.key) not in self._done]
        self._done.update((row.location.table, row.location.column, *row.location.key) for row in new)
        return new

    def _eject_experiment(self, rows: Sequence[EjectRow]) -> None:
        copies: list[tuple[EjectRow, MutableCopy]] = []
        changes = []
        for row in rows:
            path = self._path_of(row.place)
            uri = self.places.uri_of(path, row.location.uri)
            if not self._attempt(row, partial(self.places.check, row.location, uri)):
                continue
            if row.kind != "experiment":
                assert row.place.mutable is not None, "only model versions have locations without a mutable path"
                copy = MutableCopy(self.writer, row.place.mutable, self.places.directory / path)
                if not self._attempt(row, copy.update):
                    continue
                copies.append((row, copy))
            changes.append((row, uri))
        self._refresh(copies)
        self._commit(changes)
        for row, copy in copies:
            if not self.options.dry_run and not copy.is_current():
                self.report.left[row.label] = (
                    f"its files changed in the store at the last moment; `mlflow-ipfs get {copy.location}` writes the newest"
                )

    def _refresh(self, copies: Iterable[tuple[EjectRow, MutableCopy]]) -> None:
        """Bring copies up to date whose sources changed while other copies were made."""
        for row, copy in copies:
            for _ in range(_MAX_UPDATES):
                if copy.is_current() or not self._attempt(row, copy.update):
                    break
            else:
                self.report.left[row.label] = "its files keep changing; eject again when no program writes to it"

    def _eject_model(self, rows: Sequence[EjectRow], all_rows: EjectRows) -> None:
        """Eject the versions of one registered model."""
        changes: list[tuple[EjectRow, str]] = []
        by_column = {(row.name, row.location.column): row for row in rows}
        for name in dict.fromkeys(row.name for row in rows):
            storage = by_column.get((name, "storage_location"))
            source = by_column.get((name, "source"))
            row = storage or source
            assert row is not None, "the name comes from one of the rows"
            if any(_is_below(row.place, path.root, path.path) for path in all_rows.left_paths):
                self.report.left[row.label] = f"its run or logged model {RUNNING}"
                continue
            self._attempt(row, partial(self._eject_version, storage, source, changes))
        self._commit(changes)

    def _eject_version(
        self, storage: EjectRow | None, source: EjectRow | None, changes: list[tuple[EjectRow, str]]
    ) -> None:
        new_changes = []
        uri = ""
        if storage is not None:
            uri = self.places.uri_of(self._write_version(storage.place), storage.location.uri)
            new_changes.append((storage, uri))
        if source is not None:
            if not uri:
                uri = self.places.uri_of(self._write_version(source.place), source.location.uri)
            elif source.place.cid is None:  # the files of a run, which may differ from the version by now
                uri = self.places.uri_of(self._path_of(source.place), source.location.uri)
            new_changes.append((source, uri))
        for row, new in new_changes:
            self.places.check(row.location, new)
        changes += new_changes

    def _write_version(self, place: StoredPlace) -> str:
        """Write the files of a version. Return their path, relative to the directory."""
        if place.cid is None:
            assert place.mutable is not None, "a place has a mutable path, a CID, or both"
            path = self._path_of(place)
            MutableCopy(self.writer, place.mutable, self.places.directory / path).update()
            return path
        if place.mutable is not None:
            path = self.places.path_of(place.mutable)
            if self.writer.is_equal(place.cid, self.places.directory / path, place.mutable):
                return join_path(path, place.inside)
        path = self.places.frozen_path_of(place)
        self.writer.write_tree(place.cid, self.places.directory / path)
        return join_path(path, place.inside)

    def _path_of(self, place: StoredPlace) -> str:
        assert place.mutable is not None, "the caller has excluded immutable content"
        return self.places.path_of(place.mutable)

    def _attempt(self, row: EjectRow, action: Callable[[], None]) -> bool:
        """Run an action for a row. If it fails because of the row, leave the row and return False."""
        try:
            action()
        except _ROW_ERRORS as error:
            self.report.left[row.label] = str(error)
            return False
        return True

    def _commit(self, changes: Sequence[tuple[EjectRow, str]]) -> None:
        """Change locations in one transaction."""
        wanted = [(row, uri) for row, uri in changes if row.label not in self.report.left]
        if not wanted:
            return
        if not self.options.dry_run:
            self.writer.sync()
            try:
                with self.engine.begin() as connection:
                    wanted = self._change(connection, wanted)
            except SQLAlchemyError as error:
                shown = shown_uri(self.engine.url)
                reason = getattr(error, "orig", None) or error
                msg = (
                    f"the database {shown} could not be changed ({reason}); what was ejected before stays ejected, and the "
                    "other locations still mean the store. Run the command again"
                )
                raise MlflowIpfsError(msg) from error
        for kind, _ in {(row.kind, row.name) for row, _ in wanted}:
            self.report.counts[kind] = self.report.counts.get(kind, 0) + 1
        self.report.needs_destination |= any(scheme_of(uri) == PROXIED for _, uri in wanted)

    def _change(self, connection: Connection, wanted: Sequence[tuple[EjectRow, str]]) -> list[tuple[EjectRow, str]]:
        """Change locations, except those of runs that were started again meanwhile. Return the changed ones."""
        running = set() if self.options.include_running else read_unfinished(connection)
        changed, lost = [], []
        for row, uri in wanted:
            if (row.kind, row.name) in running:
                self.report.left[row.label] = RUNNING
                continue
            count = write_locations(connection, [row.location], lambda _, uri=uri: uri)  # type: ignore[misc] # mypy does not infer the type of a default
            self.report.locations += count
            if count or uri == row.location.uri:
                changed.append((row, uri))
            else:
                lost.append(row)
        if lost:  # deleted, or changed by another program
            stored = {one.key for one in read_locations(connection) if scheme_of(one.uri) in STORED_SCHEMES}
            reason = "another program changed its location meanwhile; eject again"
            self.report.left |= {row.label: reason for row in lost if row.location.key in stored}
        return changed


def _is_below(place: StoredPlace, root: str, path: str) -> bool:
    """Return whether a place can still change and is at or below a mutable path."""
    mutable = place.mutable
    return place.cid is None and mutable is not None and f"{mutable.root}/{mutable.path}/".startswith(f"{root}/{path}/")


def _connect_args(url: URL) -> dict[str, float]:
    return {"timeout": LOCK_SECONDS} if url.get_backend_name() == "sqlite" else {}
