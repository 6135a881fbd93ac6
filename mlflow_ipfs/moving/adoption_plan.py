"""The plan of an adoption: which rows of MLflow's database are taken in, from where, and to which mutable paths."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import sqlalchemy

from mlflow_ipfs.binding.artifacts.artifact_places import (
    DEFAULT_DESTINATION,
    configured_destination,
    find_common_root,
    local_path,
    proxied_path,
)
from mlflow_ipfs.binding.artifacts.artifact_sources import LocalSource, RemoteSource, open_place
from mlflow_ipfs.binding.database_forks import find_bases
from mlflow_ipfs.binding.databases.artifact_locations import ArtifactLocation
from mlflow_ipfs.binding.databases.artifact_rows import (
    COLUMNS,
    LOCATION_TAG,
    ArtifactRow,
    iterate_rows,
    read_unfinished,
)
from mlflow_ipfs.binding.databases.former_locations import FormerLocation, read_former_locations
from mlflow_ipfs.binding.locations import IPFS, MFS, PROXIED, join_path, parse_mfs, scheme_of
from mlflow_ipfs.errors import InvalidPathError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from sqlalchemy import Connection

    from mlflow_ipfs.binding.artifacts.artifact_sources import ArtifactSource, Listing
    from mlflow_ipfs.content.mfs import MfsPath
    from mlflow_ipfs.content.store import ContentStore

_MAX_LOCATION_LENGTH: Final = 200  # width of the column runs.artifact_uri, the shortest one
UNFINISHED: Final = (
    "it has not ended, so its program may still write to the present location; adopt again when it has ended, or use "
    "--include-running if no program writes to it any more"
)


@dataclass(frozen=True, slots=True)
class PlannedRow:
    """A run, logged model or trace to take in.

    Attributes:
        row: the row of the database.
        source: the place where its files are.
        target: the mutable path that the files get.
        new_uri: the artifact location that the row gets; unchanged for ``mlflow-artifacts:``, and for a row that an earlier
            pass has taken in.
        problem: the reason why the row is left out; None if it can be taken in.
        former: the record of an earlier pass; None if no pass has taken in the row.
    """

    row: ArtifactRow
    source: ArtifactSource
    target: MfsPath
    new_uri: str
    problem: str | None
    former: FormerLocation | None

    @property
    def location(self) -> ArtifactLocation:
        """The row's location in the database."""
        table, column = COLUMNS[self.row.kind]
        key = (self.row.name, LOCATION_TAG) if table == "trace_tags" else (self.row.name,)
        return ArtifactLocation(table, column, key, self.row.uri, self.row.experiment_id)

    @property
    def keeps_location(self) -> bool:
        """Whether the location names the store already, so that clients find each file there as soon as it is copied."""
        return self.new_uri == self.row.uri

    def record(
        self, listing: Listing, stored: AbstractSet[str], store_id: str, *, is_unfinished: bool
    ) -> FormerLocation:
        """Return the record that the row was taken in.

        Args:
            listing: the files of the source.
            stored: the marks of the files of the store that are equal to files of the source.
            store_id: the id of the store.
            is_unfinished: whether a program may still write to the source.
        """
        table, _ = COLUMNS[self.row.kind]
        earlier = self.earlier(store_id)
        marks = frozenset(file.mark for file in listing.files.values())
        if earlier is not None:
            marks, stored = marks | earlier.marks, stored | earlier.stored
        place, fingerprint = self.source.place, listing.fingerprint
        return FormerLocation(
            table,
            self.row.name,
            self.row.uri,
            place,
            fingerprint,
            store_id,
            marks,
            frozenset(stored),
            is_unfinished,
        )

    def earlier(self, store_id: str) -> FormerLocation | None:
        """Return the record of an earlier pass that took the row into a store, if the row still names the store.

        The files whose marks it has are neither copied nor compared again: clients may have changed or deleted them in
        the store since.
        """
        former = self.former
        return former if former is not None and self.keeps_location and former.store_id == store_id else None


@dataclass(slots=True)
class PlannedExperiment:
    """An experiment with the rows to take in.

    Attributes:
        experiment_id: its id.
        name: its name.
        location: its artifact location.
        new_location: the artifact location that it gets; unchanged for ``mlflow-artifacts:``.
        rows: its rows.
    """

    experiment_id: str
    name: str
    location: str
    new_location: str
    rows: list[PlannedRow] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Plan:
    """The plan of an adoption.

    Attributes:
        experiments: the experiments, in the order of their numbers.
        destination: the mutable path that ``mlflow-artifacts:/`` means for the store; None if the database has no such
            location.
        has_direct: whether the database names ``mfs://`` locations afterwards, which only clients with this package read.
        unfinished: number of rows that are taken in although a program may still write to their former directory.
    """

    experiments: Sequence[PlannedExperiment]
    destination: MfsPath | None
    has_direct: bool
    unfinished: int


class Planner:
    """Maker of plans for one database.

    Args:
        root: the tree of clients without a server.
        registry_id: the registry id of the database.
        bases: the directories against which relative locations are resolved.
        artifacts: the directory or URI of the files behind ``mlflow-artifacts:``, as the user names it; None to find it.
        environ: the environment variables with MLflow's settings.
        store: the store; None if it does not exist yet.
        include_unfinished: whether rows are taken in to which a program may still write.
    """

    def __init__(
        self,
        root: MfsPath,
        registry_id: str,
        bases: Sequence[Path],
        *,
        artifacts: str | None,
        environ: Mapping[str, str],
        store: ContentStore | None,
        include_unfinished: bool,
    ) -> None:
        self._root = root
        self._registry_id = registry_id
        self._tree = root.join(registry_id)  # as ContentTrackingStore names experiments of a client without a server
        self._bases = bases
        self._artifacts = artifacts
        self._environ = environ
        self._store = store
        self._include_unfinished = include_unfinished

    def plan(self, connection: Connection) -> Plan:
        """Read the database, and return the plan. Nothing is changed.

        Raises:
            SettingsError: the files behind ``mlflow-artifacts:`` cannot be found, or their mutable path is ambiguous.
            InvalidPathError: the setting MLFLOW_IPFS_ROOT is too long for MLflow's columns.
        """
        named = [row for row in iterate_rows(connection) if row.kind != "model version"]
        rows = [row for row in named if scheme_of(row.uri) not in {MFS, IPFS}]
        paths = {path for row in rows if (path := proxied_path(row.uri)) is not None}
        if self._artifacts and not paths:
            msg = (
                "--artifacts names the files of a server, but no location in the database is mlflow-artifacts:; leave "
                "--artifacts out"
            )
            raise SettingsError(msg)
        destination, is_known = self._find_destination(paths)
        artifacts = self._find_artifacts(is_known=is_known, is_server=len(paths) == len(rows)) if paths else ""
        experiments = {
            experiment_id: PlannedExperiment(experiment_id, name, uri, self._relocate(experiment_id, uri))
            for experiment_id, name, uri in _read_experiments(connection)
        }
        former = read_former_locations(connection)
        planned = [
            one
            for row in named
            if (one := self._plan_row(row, destination, artifacts, former.get((COLUMNS[row.kind][0], row.name))))
        ]
        unfinished = read_unfinished(connection)
        for one in _with_absent_roots(planned):
            row = one.row
            assert row.experiment_id is not None, "only model versions have no experiment"
            is_left = (row.kind, row.name) in unfinished and not (one.keeps_location or self._include_unfinished)
            experiments[row.experiment_id].rows.append(_with_problem(one, UNFINISHED) if is_left else one)
        ordered = sorted(experiments.values(), key=lambda one: int(one.experiment_id))
        has_direct = any(scheme_of(row.uri) == MFS for row in named) or len(paths) < len(rows)
        taken = (one for experiment in ordered for one in experiment.rows if one.problem is None)
        still_written = sum((one.row.kind, one.row.name) in unfinished for one in taken)
        return Plan(ordered, destination, has_direct, still_written)

    def _relocate(self, experiment_id: str, uri: str) -> str:
        """Return the location that an experiment gets."""
        if not uri or scheme_of(uri) in {MFS, IPFS, PROXIED}:
            return uri
        return str(self._tree.join(experiment_id))

    def _plan_row(
        self, row: ArtifactRow, destination: MfsPath | None, artifacts: str | None, former: FormerLocation | None
    ) -> PlannedRow | None:
        """Return the plan for a row; None if the row has no files outside the store, and its location stays."""
        if scheme_of(row.uri) in {MFS, IPFS}:
            return self._plan_again(row, former)
        if scheme_of(row.uri) != PROXIED:
            source, problem = self._find_source(row)
            target = self._tree.join(_path_below(row))
            _check_length(str(target))
            return PlannedRow(row, source, target, str(target), problem, former)
        path = proxied_path(row.uri)
        assert destination is not None, "the destination is known if a row is proxied"
        # Without --artifacts, the place of the first call counts: a directory with the default name may be another one.
        recorded = former.place if former is not None and not self._artifacts else None
        if not path or (artifacts is None and recorded is None):
            unknown = "name the place of the server's artifacts with --artifacts"
            problem = unknown if path else f"its location {row.uri!r} is malformed; correct it in the database"
            return PlannedRow(row, RemoteSource(row.uri), destination.join(path or ""), row.uri, problem, former)
        target = destination.join(path)
        former = self._former_if_stored(former, target)
        source = open_place(recorded or f"{str(artifacts).rstrip('/')}/{path}")
        if isinstance(source, LocalSource) and not source.directory.exists():
            if not row.has_artifacts or (self._store is not None and self._store.files.stat(target) is not None):
                return None
            problem = _missing(source.directory)
            return PlannedRow(row, source, target, row.uri, problem, former)
        return PlannedRow(row, source, target, row.uri, None, former)

    def _plan_again(self, row: ArtifactRow, former: FormerLocation | None) -> PlannedRow | None:
        """Return the plan for a row that an earlier pass has taken in, if its former place may have more files.

        A program that logs to the run since then may have written them there. In a bucket only the places of runs are
        listed that had not ended: listing takes long, and the bucket may not exist any more.
        """
        if former is None or scheme_of(row.uri) != MFS:
            return None
        source = open_place(former.place)
        if isinstance(source, LocalSource):
            listing = source.list_files()
            if not (listing.files or listing.problems):
                return None
        elif not former.is_unfinished:
            return None
        target = parse_mfs(row.uri)
        return PlannedRow(row, source, target, row.uri, None, self._former_if_stored(former, target))

    def _former_if_stored(self, former: FormerLocation | None, target: MfsPath) -> FormerLocation | None:
        """Return a record of an earlier pass; None if the store does not have any of the files: it lost them."""
        return former if self._store is not None and self._store.files.stat(target) is not None else None

    def _find_source(self, row: ArtifactRow) -> tuple[ArtifactSource, str | None]:
        """Return the place of a row's files, and the reason why they cannot be read, if it is known already."""
        if scheme_of(row.uri) not in {"", "file"}:
            return RemoteSource(row.uri), None
        path = local_path(row.uri)
        if path is None:
            return RemoteSource(row.uri), f"{row.uri!r} is on the disk of another host; run the command there"
        candidates = [base / path for base in self._bases]
        directory = next((candidate for candidate in candidates if candidate.exists()), candidates[-1])
        source = LocalSource(directory)
        if directory.exists():
            return source, None
        if row.has_artifacts:
            return source, _missing(directory)
        root = Path(local_path(find_common_root(row)) or path)
        if not any((base / root).parent.exists() for base in self._bases):
            return source, f"{directory} is not on this machine; mount the disk, or run the command where it is"
        return source, None

    def _find_destination(self, paths: AbstractSet[str]) -> tuple[MfsPath | None, bool]:
        """Return the mutable path of ``mlflow-artifacts:/``, and whether the store has files of the database there."""
        if not paths:
            return None, False
        found = find_bases(paths, self._store, self._registry_id) if self._store is not None else set()
        configured = configured_destination(self._environ)
        if scheme_of(configured) == MFS:
            return parse_mfs(configured), bool(found)
        if len(found) > 1:
            shown = ", ".join(sorted(map(str, found)))
            msg = (
                f"the store has artifacts of this database in {shown}; set MLFLOW_ARTIFACTS_DESTINATION to the one that "
                "the server uses"
            )
            raise SettingsError(msg)
        if found:
            return found.pop(), True
        used = self._store is not None and any(entry.name.isdecimal() for entry in self._store.files.list(self._root))
        return self._tree if used else self._root, False  # two databases never share a path

    def _find_artifacts(self, *, is_known: bool, is_server: bool) -> str | None:
        """Return the directory or URI of the files behind ``mlflow-artifacts:``; None if it is not known.

        Args:
            is_known: whether the store has files of the database behind a server.
            is_server: whether all locations of the database are behind a server.
        """
        configured = configured_destination(self._environ)
        named = self._artifacts or ("" if scheme_of(configured) in {MFS, IPFS} else configured)
        if named:
            path = local_path(named) if scheme_of(named) in {"", "file"} else None
            if path is not None and not Path(path).is_dir():
                msg = f"there is no directory {path!r}; name the place of the server's artifacts with --artifacts"
                raise SettingsError(msg)
            return named
        candidates = [base / DEFAULT_DESTINATION for base in self._bases]
        directory = next((one for one in candidates if one.is_dir()), None)
        if directory is None and not is_known and not is_server:
            return None  # `mlflow ui` makes such an experiment in any database
        if directory is None and not is_known:
            shown = " and ".join(map(str, candidates))
            msg = (
                "the database names artifacts behind a server (mlflow-artifacts:), and there is no directory "
                f"{shown}; name the server's --artifacts-destination with --artifacts DIRECTORY-OR-URI"
            )
            raise SettingsError(msg)
        return str(directory or candidates[0])


def _path_below(row: ArtifactRow) -> str:
    """Return the path below the tree that MLflow gives the artifacts of a new row."""
    middle = {"run": row.name, "logged model": f"models/{row.name}", "trace": f"traces/{row.name}"}[row.kind]
    return join_path(row.experiment_id, middle, "artifacts")


def _with_absent_roots(rows: Sequence[PlannedRow]) -> Iterator[PlannedRow]:
    """Yield the rows. Those without a directory are left out, if MLflow has logged files below an absent root of theirs.

    A run does not tell whether files were logged to it, and one without files has no directory. But if files were logged to
    another row of an experiment whose directory is absent, the directory was moved or is not mounted.
    """
    roots = [_absent_root(one) for one in rows]
    absent = {root for one, root in zip(rows, roots, strict=True) if one.row.has_artifacts}
    for one, root in zip(rows, roots, strict=True):
        is_left = root is not None and root in absent and one.problem is None
        yield _with_problem(one, _missing(Path(str(root)))) if is_left else one


def _absent_root(planned: PlannedRow) -> str | None:
    """Return the directory of the row's experiment, if it does not exist; else None."""
    if planned.keeps_location or not isinstance(planned.source, LocalSource) or planned.source.directory.exists():
        return None
    middle = _path_below(planned.row).partition("/")[2]
    root = str(planned.source.directory).removesuffix(f"/{middle}")
    return None if Path(root).exists() else root


def _missing(directory: Path) -> str:
    return f"MLflow has logged files to {directory}, which does not exist; put the files back there"


def _with_problem(planned: PlannedRow, problem: str) -> PlannedRow:
    return PlannedRow(planned.row, planned.source, planned.target, planned.new_uri, problem, planned.former)


def _read_experiments(connection: Connection) -> list[tuple[str, str, str]]:
    """Return id, name and artifact location of every experiment."""
    rows = connection.execute(sqlalchemy.text("SELECT experiment_id, name, artifact_location FROM experiments"))
    return [(str(experiment_id), name or "", location or "") for experiment_id, name, location in rows]


def _check_length(uri: str) -> None:
    if len(uri) > _MAX_LOCATION_LENGTH:
        msg = (
            f"the location {uri!r} has {len(uri)} characters, but MLflow's database stores at most "
            f"{_MAX_LOCATION_LENGTH}; set MLFLOW_IPFS_ROOT to a shorter path"
        )
        raise InvalidPathError(msg)
