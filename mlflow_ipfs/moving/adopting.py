"""Adoption: taking the artifacts that MLflow's database names into the store.

For each experiment, these steps run in this order, so that the adoption can be interrupted at any of them:

1. The files of its rows are imported to the mutable paths that they get. The database does not name these paths yet.
2. Every file is compared with what the store has.
3. One transaction of the database changes the locations of the rows whose files are all in the store, and records
   their former locations.

After the experiments, every model version is frozen as ``create_model_version`` freezes a new one. The old files stay.
"""

from __future__ import annotations

import functools
import os
import socket
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Protocol

from mlflow_ipfs.binding.artifacts.artifact_places import (
    search_directories,
)
from mlflow_ipfs.binding.databases.artifact_locations import ArtifactLocation, has_row, read_locations, write_locations
from mlflow_ipfs.binding.databases.artifact_rows import read_unfinished
from mlflow_ipfs.binding.databases.connections import opened_database
from mlflow_ipfs.binding.databases.former_locations import create_table, record_former_locations
from mlflow_ipfs.binding.databases.sightings import observe
from mlflow_ipfs.binding.registry.registry_store import FreezingRegistryStore
from mlflow_ipfs.binding.registry.unfrozen_versions import count_versions_in
from mlflow_ipfs.binding.registry_id import ensure_registry_id, new_registry_id, read_registry_id
from mlflow_ipfs.config import FreezeMode
from mlflow_ipfs.content.storage.local import LocalStorage
from mlflow_ipfs.content.system.locking import locked_directory
from mlflow_ipfs.errors import PolicyError, StoreBusyError
from mlflow_ipfs.moving.adopted_versions import VersionAdopter, VersionsReport, preview_versions
from mlflow_ipfs.moving.adoption_plan import UNFINISHED, Planner
from mlflow_ipfs.moving.adoption_report import AdoptionReport, ExperimentReport, sort_in
from mlflow_ipfs.moving.database_access import check_adoptable, check_changeable, opened_engine
from mlflow_ipfs.moving.location_index import LocationIndex
from mlflow_ipfs.moving.removing_sources import SourceRemover
from mlflow_ipfs.moving.taking_in import Intake, list_row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from sqlalchemy import URL, Engine

    from mlflow_ipfs.binding.databases.former_locations import FormerLocation
    from mlflow_ipfs.config import Settings
    from mlflow_ipfs.content.store import ContentStore
    from mlflow_ipfs.moving.adoption_plan import Plan, PlannedExperiment
    from mlflow_ipfs.moving.removing_sources import RemovalReport
    from mlflow_ipfs.moving.taking_in import TakenRow

_HOLDER_NOTE: Final = "adopting"  # of the store: which process adopts a database


class Watcher(Protocol):
    """Receiver of the progress of an adoption."""

    def importing(self, name: str) -> AbstractContextManager[Callable[[int], None]]:
        """Return a context manager for one experiment, with a function to call with the number of bytes just read."""

    def removing(self) -> AbstractContextManager[Callable[[int], None]]:
        """Return a context manager for the removal, with a function to call with the number of bytes just compared."""

    def finished(self, experiment: ExperimentReport) -> None:
        """Receive the report of one experiment, when its locations have changed."""


@dataclass(frozen=True, slots=True)
class AdoptionOptions:
    """Options of an adoption.

    Attributes:
        artifacts: the directory or URI of the files behind ``mlflow-artifacts:``; None to find it.
        include_unfinished: whether rows are taken in to which a program may still write.
        remove_sources: whether the files are removed from their former places.
        environ: the environment variables with MLflow's settings.
    """

    artifacts: str | None = None
    include_unfinished: bool = False
    remove_sources: bool = False
    environ: Mapping[str, str] = field(default_factory=dict)


def preview_adoption(
    url: URL, store: ContentStore | None, settings: Settings, options: AdoptionOptions
) -> AdoptionReport:
    """Return what ``adopt_database`` would take in, by the sizes of the files. Nothing is changed or created.

    Args:
        url: the database.
        store: the store; None if it does not exist yet.
        settings: the settings.
        options: the options.

    Raises:
        SettingsError: the database cannot be read, or the place of its artifacts is not known.
        StoreBusyError: another program locked the database for too long.
    """
    with opened_database(url) as connection:
        registry_id = read_registry_id(connection)
        plan = _planner(url, store, settings, options, registry_id or new_registry_id()).plan(connection)
        unfrozen = count_versions_in(connection).unfrozen if settings.freeze is not FreezeMode.OFF else ()
        index = LocationIndex.read(connection, search_directories(url), ())
    store_id = _local(store).store_id if store is not None else ""
    reports = []
    for experiment in plan.experiments:
        report = ExperimentReport(experiment.experiment_id, experiment.name)
        for row in (list_row(planned, store_id) for planned in experiment.rows):
            sort_in(report, row)
        reports.append(report)
    left_out = {f"{one.kind} {one.name}" for report in reports for one in report.left_out}
    versions = preview_versions(unfrozen, index, left_out)
    return AdoptionReport(registry_id, reports, versions, plan.destination, plan.has_direct, plan.unfinished)


def check_adoption(url: URL, settings: Settings, options: AdoptionOptions) -> None:
    """Raise what ``adopt_database`` would raise because of the database or the options, before a store is created."""
    with opened_engine(url) as engine:
        check_adoptable(engine)
        check_changeable(engine)
        with engine.connect() as connection:
            _planner(url, None, settings, options, new_registry_id()).plan(connection)


def adopt_database(
    url: URL, store: ContentStore, settings: Settings, options: AdoptionOptions, watcher: Watcher
) -> AdoptionReport:
    """Take the artifacts that a database names into a store, and freeze its model versions.

    MLflow's programs may use the database meanwhile. An interrupted adoption can be run again. MLflow's client in this
    process must use the database as tracking server.

    Args:
        url: the database.
        store: the store.
        settings: the settings.
        options: the options.
        watcher: receives the progress.

    Raises:
        SettingsError: the database cannot be read, was made by another version of MLflow, or the place of its artifacts
            is not known.
        PolicyError: the database has workspaces, a copy of it uses the store, or the store is not a local one.
        StoreBusyError: another adoption uses the store, or another program locked the database for too long.
        StoreFullError: the disk of the store is full. The experiments that were finished before stay adopted.
        MlflowIpfsError: the database cannot be changed.
    """
    with only_adoption(store), opened_engine(url) as engine:
        check_adoptable(engine)
        registry_id = ensure_registry_id(engine)
        create_table(engine)
        sighting = observe(store.storage, registry_id, engine)
        if sighting.is_shared:  # both would write to the same mutable paths
            msg = f"nothing was adopted: {sighting.explain()}"
            raise PolicyError(msg)
        with engine.connect() as connection:
            plan = _planner(url, store, settings, options, registry_id).plan(connection)
        adopter = _Adopter(engine, store, watcher, include_unfinished=options.include_unfinished)
        reports = [adopter.adopt(experiment) for experiment in plan.experiments]
        versions = _adopt_versions(engine, store, settings, plan, reports)
        removal = _remove_sources(engine, store, plan, watcher) if options.remove_sources else None
    return AdoptionReport(registry_id, reports, versions, plan.destination, plan.has_direct, plan.unfinished, removal)


class _Adopter:
    """Adopter of the experiments of one database."""

    def __init__(self, engine: Engine, store: ContentStore, watcher: Watcher, *, include_unfinished: bool) -> None:
        self._engine = engine
        self._include_unfinished = include_unfinished
        self._store = store
        self._store_id = _local(store).store_id
        self._watcher = watcher

    def adopt(self, experiment: PlannedExperiment) -> ExperimentReport:
        """Take in one experiment, and change its locations in one transaction."""
        report = ExperimentReport(experiment.experiment_id, experiment.name)
        with self._watcher.importing(experiment.name) as progress:
            intake = Intake(self._store, self._store_id, progress)
            taken = intake.take(experiment.rows)
        report.new_bytes = intake.new_bytes
        complete = [row for row in taken if not row.problems and not row.is_known]
        partial = [record for row in taken if row.problems and (record := self._extend_record(row)) is not None]
        if complete or partial or experiment.new_location != experiment.location:
            self._change_locations(experiment, complete, partial)
        deleted = self._find_deleted(row for row in taken if row.problems)
        for row in taken:
            if id(row) not in deleted:
                sort_in(report, row)
        self._watcher.finished(report)
        return report

    def _extend_record(self, row: TakenRow) -> FormerLocation | None:
        """Return the record of an earlier pass with the files that this pass wrote; None if there are none of either.

        The next pass may replace these files, although this one left the row out.
        """
        earlier = row.planned.earlier(self._store_id)
        return replace(earlier, stored=earlier.stored | row.stored) if earlier is not None and row.stored else None

    def _change_locations(
        self, experiment: PlannedExperiment, complete: Sequence[TakenRow], partial: Sequence[FormerLocation]
    ) -> None:
        """Change the locations of an experiment and of its complete rows, and record the former ones.

        Args:
            experiment: the experiment.
            complete: the rows that were taken in.
            partial: the records of rows of which only some files were taken in.
        """
        own = ArtifactLocation(
            "experiments", "artifact_location", (int(experiment.experiment_id),), experiment.location
        )
        records = list(partial)
        with self._engine.begin() as connection:
            write_locations(connection, [own], lambda _: experiment.new_location)
            unfinished = read_unfinished(connection)
            for row in complete:
                planned = row.planned
                is_unfinished = (planned.row.kind, planned.row.name) in unfinished
                if is_unfinished and not (
                    planned.keeps_location or self._include_unfinished
                ):  # a program has resumed the run meanwhile
                    row.problems.append(UNFINISHED)
                    continue
                change = functools.partial(_replace_by, planned.new_uri)
                if planned.keeps_location or write_locations(connection, [planned.location], change):
                    record = planned.record(row.listing, row.stored, self._store_id, is_unfinished=is_unfinished)
                    records.append(record)
                else:
                    row.problems.append("its artifact location was changed meanwhile; adopt again")
            record_former_locations(connection, records)

    def _find_deleted(self, rows: Iterable[TakenRow]) -> set[int]:
        """Return the ``id()`` of the rows that were deleted from the database meanwhile, and delete what was imported of them."""
        with self._engine.connect() as connection:
            deleted = [row for row in rows if not has_row(connection, row.planned.location)]
        for row in deleted:
            if row.planned.problem is None:
                self._store.files.delete(row.planned.target)
        return {id(row) for row in deleted}


def _replace_by(uri: str, former: str) -> str:
    del former
    return uri


def _adopt_versions(
    engine: Engine, store: ContentStore, settings: Settings, plan: Plan, reports: Sequence[ExperimentReport]
) -> VersionsReport:
    """Freeze the versions, and let their sources name the present locations."""
    bases = search_directories(engine.url)
    left_out = [(one.kind, one.name) for report in reports for one in report.left_out]
    registry = FreezingRegistryStore(engine.url.render_as_string(hide_password=False))
    if not registry.list_existing():
        return VersionsReport()
    with engine.connect() as connection:
        index = LocationIndex.read(connection, bases, left_out)
    report = VersionAdopter(registry, store, settings, index, destination=plan.destination).adopt()
    columns = {"source"} if settings.freeze is not FreezeMode.OFF else {"source", "storage_location"}
    with engine.begin() as connection:
        versions = [
            one for one in read_locations(connection) if one.table == "model_versions" and one.column in columns
        ]
        write_locations(connection, versions, index.relocate)
    return report


def _remove_sources(engine: Engine, store: ContentStore, plan: Plan, watcher: Watcher) -> RemovalReport:
    bases = search_directories(engine.url)
    with watcher.removing() as progress, engine.connect() as connection:
        remover = SourceRemover(
            store, _local(store).store_id, destination=plan.destination, bases=bases, progress=progress
        )
        return remover.remove(connection, (row for experiment in plan.experiments for row in experiment.rows))


def _planner(
    url: URL, store: ContentStore | None, settings: Settings, options: AdoptionOptions, registry_id: str
) -> Planner:
    return Planner(
        settings.root,
        registry_id,
        search_directories(url),
        artifacts=options.artifacts,
        environ=options.environ,
        store=store,
        include_unfinished=options.include_unfinished,
    )


@contextmanager
def only_adoption(store: ContentStore) -> Iterator[None]:
    """Let no other process adopt a database into the same store, for the duration of a ``with`` block.

    Raises:
        StoreBusyError: another process adopts a database.
    """
    directory = _local(store).directory
    with ExitStack() as stack:
        try:
            stack.enter_context(locked_directory(directory, "adopts a database into"))
        except StoreBusyError as error:
            holder = store.storage.notes.list(_HOLDER_NOTE).get(_HOLDER_NOTE, "another process")
            msg = f"{holder} adopts a database into {directory}; wait until it ends, or stop it, then try again"
            raise StoreBusyError(msg) from error
        store.storage.notes.set(_HOLDER_NOTE, f"process {os.getpid()} on {socket.gethostname()}")
        yield
        store.storage.notes.delete(_HOLDER_NOTE)


def _local(store: ContentStore) -> LocalStorage:
    if not isinstance(store.storage, LocalStorage):
        msg = "a database can be adopted only into a local store: name the directory of one with --store"
        raise PolicyError(msg)
    return store.storage
