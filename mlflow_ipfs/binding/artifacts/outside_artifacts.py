"""Artifacts that MLflow's database names but the store does not contain.

Whether a row's artifacts are outside the store depends on where they are stored, not on the spelling of the location:

=====================  ================================================================================
location               outside if
=====================  ================================================================================
frozen to a CID        the root block is not in the store
``mfs://``             the database shows that files were logged, and the store has no files there
``mlflow-artifacts:``  the store has no files there, or the server's destination is elsewhere; and one of these is true: the
                       files are on this machine's disk; the database shows that files were logged; no such location of
                       the database is in the store
a path, ``file:``      the directory contains a file, or is on a disk that this machine does not have
anything else          always: a check would need network access and credentials
=====================  ================================================================================

A row that ``adopt`` has taken in is outside, too, if a file in its former directory has been added or changed since.
"""

from __future__ import annotations

import math
import os
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mlflow_ipfs.binding.artifacts.artifact_places import (
    DEFAULT_DESTINATION,
    configured_destination,
    find_common_root,
    local_path,
    printable,
    proxied_path,
    search_directories,
)
from mlflow_ipfs.binding.artifacts.artifact_sources import open_place
from mlflow_ipfs.binding.databases.artifact_rows import (
    COLUMNS,
    ArtifactKind,
    ArtifactRow,
    iterate_rows,
    read_experiments,
)
from mlflow_ipfs.binding.databases.connections import LOCK_SECONDS, opened_database
from mlflow_ipfs.binding.databases.former_locations import read_former_locations
from mlflow_ipfs.binding.locations import (
    IPFS,
    MFS,
    PROXIED,
    IpfsPath,
    before_frozen,
    cid_of_location,
    parse_mfs,
    scheme_of,
)
from mlflow_ipfs.content.names.kinds import NameKind
from mlflow_ipfs.errors import InvalidCIDError, InvalidPathError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from sqlalchemy import URL

    from mlflow_ipfs.binding.databases.former_locations import FormerLocation
    from mlflow_ipfs.content.mfs import MfsPath
    from mlflow_ipfs.content.store import ContentStore

MAX_EXAMPLES: Final = 3
MAX_ROOTS: Final = 20
OTHER_ROOTS: Final = "other places"
_ORDER: Final[tuple[ArtifactKind, ...]] = ("experiment", "run", "logged model", "model version", "trace")


@dataclass(frozen=True, slots=True)
class OutsideGroup:
    """Rows of one kind whose artifacts are below one common root outside the store.

    Attributes:
        kind: what the rows describe.
        place: the common part of their artifact locations, without credentials. The name is a key of ``--json`` output.
        count: number of rows.
        examples: ids of some of the rows, at most ``MAX_EXAMPLES``.
    """

    kind: ArtifactKind
    place: str
    count: int
    examples: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class OutsideArtifact:
    """One row whose artifacts are outside the store.

    Attributes:
        row: the row.
        common_root: the common part of the artifact locations of its kind.
        is_partly_inside: whether the row was taken in, and its former directory has more files.
    """

    row: ArtifactRow
    common_root: str
    is_partly_inside: bool = False


@dataclass(slots=True)
class SearchLimit:
    """A limit of rows and time for one search.

    Attributes:
        max_rows: number of rows of the database that are searched at most.
        max_seconds: duration of the search, from the creation of this object.
        reached: whether the search ended before all rows were searched.
    """

    max_rows: float = math.inf
    max_seconds: float = math.inf
    reached: bool = False
    _started: float = field(default_factory=time.monotonic)

    def cut(self, rows: Iterable[ArtifactRow]) -> Iterator[ArtifactRow]:
        """Yield the rows up to the limit."""
        for number, row in enumerate(rows):
            if number >= self.max_rows or time.monotonic() - self._started > self.max_seconds:
                self.reached = True
                return
            yield row


def find_outside_artifacts(
    database: URL,
    store: ContentStore,
    *,
    environ: Mapping[str, str] | None = None,
    timeout_seconds: float = LOCK_SECONDS,
) -> tuple[OutsideGroup, ...]:
    """Return the rows of MLflow's database whose artifacts the store does not contain, in groups.

    Args:
        database: MLflow's database. The database is not changed.
        store: the store to search.
        environ: the environment variables with MLflow's settings; None: those of this process.
        timeout_seconds: how long to wait for a program that locks a SQLite database.

    Raises:
        StoreBusyError: another program locked the database for too long.
        SettingsError: the database cannot be read.
    """
    return group(iterate_outside_artifacts(database, store, environ=environ, timeout_seconds=timeout_seconds))


def iterate_outside_artifacts(
    database: URL,
    store: ContentStore,
    *,
    environ: Mapping[str, str] | None = None,
    timeout_seconds: float = LOCK_SECONDS,
    limit: SearchLimit | None = None,
) -> Iterator[OutsideArtifact]:
    """Yield every row whose artifacts are outside the store, and then the experiments that have such rows.

    Args:
        database: MLflow's database. Relative locations are also resolved against the directory of a SQLite file.
        store: the store to search.
        environ: the environment variables with MLflow's settings; None: those of this process.
        timeout_seconds: how long to wait for a program that locks a SQLite database.
        limit: ends the search early; None: search everything.

    Raises:
        StoreBusyError: another program locked the database for too long.
        SettingsError: the database cannot be read.
    """
    limit = limit or SearchLimit()
    with opened_database(database, timeout_seconds) as connection:
        # All rows are read first: MLflow's writers wait for a reader of SQLite, and directory scans may take minutes.
        experiments = read_experiments(connection)
        former = read_former_locations(connection)
        rows = [
            row
            for row in limit.cut(iterate_rows(connection))
            if row.has_artifacts or scheme_of(row.uri) != MFS or _record_of(row, former) is not None
        ]
    bases = search_directories(database)
    proxied = _Proxied.find(rows, store, os.environ if environ is None else environ, bases)
    affected: dict[str, str] = {}
    for row in limit.cut(rows):
        common_root = find_common_root(row)
        record = _record_of(row, former)
        is_lost = record is not None and _is_lost(row, store)
        is_changed = record is not None and _has_changed(record, is_lost=is_lost)
        if record is not None and is_changed:
            common_root = find_common_root(replace(row, uri=record.place))
        if is_changed or _is_outside(row, common_root, store, proxied, bases):
            yield OutsideArtifact(row, common_root, is_changed and not is_lost)
            if row.experiment_id is not None:
                affected.setdefault(row.experiment_id, common_root)
    for experiment_id, common_root in affected.items():
        location = experiments.get(experiment_id, "")
        yield OutsideArtifact(ArtifactRow("experiment", experiment_id, experiment_id, location, True), common_root)  # noqa: FBT003


def _record_of(row: ArtifactRow, former: Mapping[tuple[str, str], FormerLocation]) -> FormerLocation | None:
    """Return the record that a row was taken in from a directory of this machine; None if there is none."""
    record = former.get((COLUMNS[row.kind][0], row.name)) if row.kind in COLUMNS else None
    return record if record is not None and open_place(record.place).is_local else None


def _is_lost(row: ArtifactRow, store: ContentStore) -> bool:
    """Return whether a row names a mutable path of which the store has no file."""
    return scheme_of(row.uri) == MFS and store.files.stat(parse_mfs(before_frozen(row.uri))) is None


def _has_changed(record: FormerLocation, *, is_lost: bool) -> bool:
    """Return whether a row's former directory has files that were not taken in, or that the store has lost."""
    listing = open_place(record.place).list_files()
    return bool(listing.problems or listing.without(frozenset() if is_lost else record.marks))


def group(artifacts: Iterable[OutsideArtifact]) -> tuple[OutsideGroup, ...]:
    """Count rows by kind and common root. The rows of a kind beyond ``MAX_ROOTS`` roots form one group."""
    found: dict[tuple[ArtifactKind, str], tuple[int, tuple[str, ...]]] = {}
    roots: Counter[ArtifactKind] = Counter()
    for artifact in artifacts:
        kind = artifact.row.kind
        key = kind, printable(artifact.common_root)
        if key not in found and roots[kind] >= MAX_ROOTS:
            key = kind, OTHER_ROOTS
        if key not in found:
            roots[kind] += 1
        count, examples = found.get(key, (0, ()))
        found[key] = count + 1, (*examples, printable(artifact.row.name))[:MAX_EXAMPLES]
    ordered = sorted(found.items(), key=lambda item: (_ORDER.index(item[0][0]), item[0][1]))
    return tuple(OutsideGroup(kind, common_root, *counted) for (kind, common_root), counted in ordered)


def describe(outside: OutsideGroup) -> str:
    """Return a group as text for users: ``3 runs in s3://bucket, for example 1f2e``."""
    noun = outside.kind if outside.count == 1 else f"{outside.kind}s"
    return f"{outside.count:,} {noun} in {outside.place}, for example {', '.join(outside.examples)}"


def _is_outside(
    row: ArtifactRow, common_root: str, store: ContentStore, proxied: _Proxied, bases: tuple[Path, ...]
) -> bool:
    scheme = scheme_of(row.uri)
    frozen_to = cid_of_location(row.uri)
    try:
        if frozen_to is not None:
            return not store.storage.blocks.has(frozen_to)
        if scheme == IPFS:
            return not store.storage.blocks.has(IpfsPath.parse(row.uri).cid)
        if scheme == MFS:
            found = parse_mfs(before_frozen(row.uri))
            return row.has_artifacts and store.files.stat(found) is None
        if scheme == PROXIED:
            return proxied.is_outside(row)
    except (InvalidCIDError, InvalidPathError):  # not a valid location in any store
        return True
    if scheme in {"", "file"}:
        return _is_on_disk(row, common_root, bases)
    return True


class _Proxied:
    """The known files behind ``mlflow-artifacts:`` locations, which do not name the server's destination."""

    def __init__(self, stored: set[str], directories: tuple[Path, ...], *, is_store: bool) -> None:
        self._stored = stored
        self._directories = directories
        self._is_store = is_store or bool(stored)

    @classmethod
    def find(
        cls, rows: Iterable[ArtifactRow], store: ContentStore, environ: Mapping[str, str], bases: tuple[Path, ...]
    ) -> _Proxied:
        """Search the store for files at the proxied locations of the database."""
        wanted = {path for row in rows if (path := proxied_path(row.uri)) is not None}
        destination = configured_destination(environ)
        directories = [base / DEFAULT_DESTINATION for base in bases]
        if destination and scheme_of(destination) in {"", "file"}:
            directories.append(Path(local_path(destination) or destination))
        is_store = scheme_of(destination) == MFS
        stored: set[str] = set()
        if wanted and (is_store or not destination):  # the store may still have what was ejected to another destination
            stored = _stored_among(wanted, store, parse_mfs(destination) if is_store else None)
        return cls(stored, tuple(directories), is_store=is_store)

    def is_outside(self, row: ArtifactRow) -> bool:
        """Return True if the files of a row are not in the store."""
        path = proxied_path(row.uri)
        if path is None:
            return True
        if path in self._stored:
            return False
        on_disk = any(_has_file(directory / path) for directory in self._directories)
        return on_disk or row.has_artifacts or not self._is_store


def _stored_among(wanted: set[str], store: ContentStore, base: MfsPath | None) -> set[str]:
    """Return the wanted paths that have files below a mutable path; None: below any one of the store."""
    found: set[str] = set()
    above = [] if base is None else [base.root, *filter(None, base.path.split("/"))]
    for root in store.roots():
        if root.kind is not NameKind.FILE:
            continue
        parts = root.name.removeprefix(f"{MFS}://").split("/")
        if parts[: len(above)] != above:
            continue
        for start in [len(above)] if above else range(1, len(parts)):
            found |= wanted.intersection("/".join(parts[start:end]) for end in range(start + 1, len(parts) + 1))
    return found


def _is_on_disk(row: ArtifactRow, common_root: str, bases: tuple[Path, ...]) -> bool:
    """Return True if a directory contains files, or if this machine cannot determine it."""
    path, root = local_path(row.uri), local_path(common_root)
    if path is None or root is None:  # on the disk of another host
        return True
    if any(_has_file(base / path) for base in bases):
        return True
    if Path(path).is_absolute():
        return row.kind != "model version" and not Path(root).parent.exists()
    return row.kind != "model version" and not any((base / root).exists() for base in bases)


def _has_file(path: Path) -> bool:
    if path.is_file():
        return True
    unreadable: list[OSError] = []
    for _, _, files in os.walk(path, onerror=unreadable.append, followlinks=False):
        if files:
            return True
    return any(not isinstance(error, FileNotFoundError | NotADirectoryError) for error in unreadable)
