"""Forks: a copied database gets a registry id of its own, and claims of its own on everything it names.

In this order, so that a fork that is broken off can be run again:

1. the new id is recorded in the store;
2. every file of a run, logged model or trace gets a second row in the mutable tree, below the new id, and every
   frozen version a second pin and a second frozen path. No bytes are copied;
3. one transaction of the database changes all ``mfs://`` locations and the id;
4. the place is recorded under the new id, and forgotten under the former one.

Locations ``mlflow-artifacts:/…`` stay as they are: MLflow's clients and servers take them apart. What they mean is
decided by the server's ``--artifacts-destination``, so the copy's server needs another one, which the report names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import sqlalchemy
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from mlflow_ipfs.binding.databases import claims
from mlflow_ipfs.binding.databases.artifact_locations import ArtifactLocation, read_locations, write_locations
from mlflow_ipfs.binding.databases.artifact_rows import DELETED_STAGE
from mlflow_ipfs.binding.databases.connections import opened_database
from mlflow_ipfs.binding.databases.sightings import forget, observe
from mlflow_ipfs.binding.locations import (
    MFS,
    PROXIED,
    before_frozen,
    cid_of_location,
    parse_mfs,
    scheme_of,
    split_proxied,
)
from mlflow_ipfs.binding.registry.version_pins import OWNER
from mlflow_ipfs.binding.registry_id import new_registry_id, read_registry_id, replace_registry_id
from mlflow_ipfs.content.mfs import MfsPath
from mlflow_ipfs.content.names.entries import Frozen, MfsEntry
from mlflow_ipfs.content.names.kinds import NameKind
from mlflow_ipfs.content.names.pins import Pin
from mlflow_ipfs.content.storage.base import Changes
from mlflow_ipfs.errors import ConflictError, InvalidPathError, MlflowIpfsError, NotFoundError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sqlalchemy import URL, Connection, Engine

    from mlflow_ipfs.content.cid import CID
    from mlflow_ipfs.content.store import ContentStore

_BATCH: Final = 1000  # names in one commit of the store


@dataclass(frozen=True, slots=True)
class ForkReport:
    """What a fork did.

    Attributes:
        former_id: the registry id that the database had.
        registry_id: the one it has now.
        versions: how many model versions have a pin of their own.
        files: how many files have a row of their own in the mutable trees.
        locations: how many locations in the database were changed.
        missing: model versions whose content is not in the store.
        destination: what the database's server needs as ``--artifacts-destination`` from now on; None if none of the
            database's artifacts goes through a server.
        others: how many other places have the former id.
    """

    former_id: str
    registry_id: str
    versions: int
    files: int
    locations: int
    missing: tuple[str, ...]
    destination: str | None
    others: int


def fork_database(url: URL, store: ContentStore, destination: str | None) -> ForkReport:
    """Give a copied database a registry id and claims of its own. No other program may use it meanwhile.

    Args:
        url: the copy.
        store: where its content is.
        destination: the ``--artifacts-destination`` of the copy's server so far; None: find it out.

    Raises:
        NotFoundError: the database has no registry id, so it claims nothing.
        SettingsError: the database can't be read, or it is not clear what its ``mlflow-artifacts:`` locations mean.
        ConflictError: another program changed the database meanwhile; nothing was changed in it.
    """
    with opened_database(url) as connection:
        former_id = read_registry_id(connection)
        if former_id is None:
            msg = f"{_shown(url)} has no registry id: mlflow-ipfs keeps nothing for it, so there is nothing to fork"
            raise NotFoundError(msg)
        locations = list(read_locations(connection))
    engine = sqlalchemy.create_engine(url, poolclass=NullPool)
    try:
        return _fork(engine, store, former_id, locations, destination)
    except SQLAlchemyError as error:
        reason = getattr(error, "orig", None) or error
        msg = f"{_shown(url)} could not be changed ({reason}); it is as it was. Stop the programs that use it, and try again"
        raise MlflowIpfsError(msg) from error
    finally:
        engine.dispose()


def _fork(
    engine: Engine, store: ContentStore, former_id: str, locations: Sequence[ArtifactLocation], destination: str | None
) -> ForkReport:
    storage = store.storage
    sighting = observe(storage, former_id, engine)
    if sighting.location is None:
        msg = "a database in memory can't be forked: name a file or a server"
        raise SettingsError(msg)
    base = _find_base(locations, store, destination)
    registry_id = claims.find_fork(storage, former_id, sighting.location) or new_registry_id()
    claims.record_fork(storage, registry_id, former_id, sighting.location)
    trees = _Trees(former_id, registry_id, base)
    with opened_database(engine.url) as connection:
        versions = list(_read_versions(connection))
    missing = tuple(version.name for version in versions if not storage.blocks.has(version.cid))
    claimed = [version for version in versions if version.name not in missing]
    files = _claim(store, trees, locations, claimed)
    changed = _change_database(engine, trees, locations)
    observe(storage, registry_id, engine)
    forget(storage, sighting)
    new_destination = str(trees.move(base)) if base is not None else None
    return ForkReport(
        former_id, registry_id, len(claimed), files, changed, missing, new_destination, len(sighting.others)
    )


@dataclass(frozen=True, slots=True)
class _Trees:
    """Where the copy's files were, and where they are from now on.

    Attributes:
        former_id: the former registry id.
        registry_id: the new one.
        base: what ``mlflow-artifacts:/`` has meant; None if it means nothing.
    """

    former_id: str
    registry_id: str
    base: MfsPath | None

    def move(self, place: MfsPath) -> MfsPath:
        """The copy's own place for what is at a place of both databases."""
        first, _, rest = place.path.partition("/")
        below = rest if first == self.former_id else place.path
        return MfsPath(place.root, f"{self.registry_id}/{below}" if below else self.registry_id)

    def move_uri(self, uri: str) -> str:
        """The same for an ``mfs://`` location."""
        mutable = before_frozen(uri)
        if self.find(mutable) is None:
            return uri
        return f"{self.move(parse_mfs(mutable))}{uri[len(mutable.rstrip('/')) :] if mutable != uri else ''}"

    def find(self, uri: str) -> MfsPath | None:
        """The mutable place of a location in the store; None if it has none."""
        mutable = before_frozen(uri)
        try:
            if scheme_of(mutable) == MFS:
                return parse_mfs(mutable)
            if scheme_of(mutable) == PROXIED and self.base is not None:
                return self.base.join(split_proxied(mutable)[1])
        except InvalidPathError:
            pass
        return None


@dataclass(frozen=True, slots=True)
class _Version:
    name: str
    cid: CID
    location: str


def _read_versions(connection: Connection) -> Iterator[_Version]:
    query = sqlalchemy.text(
        "SELECT name, version, storage_location FROM model_versions WHERE coalesce(current_stage, '') != :deleted"
    )
    for name, version, location in connection.execute(query, {"deleted": DELETED_STAGE}):
        cid = cid_of_location(location)
        if cid is not None:
            yield _Version(f"{name}/{version}", cid, location)


def _find_base(locations: Iterable[ArtifactLocation], store: ContentStore, destination: str | None) -> MfsPath | None:
    """Find out what ``mlflow-artifacts:/`` means: as the caller says, or where the store has such paths."""
    paths = set()
    for location in locations:
        if scheme_of(location.uri) == PROXIED and location.table != "experiments":
            paths.add(split_proxied(before_frozen(location.uri))[1])
    if not paths:
        return None
    if destination is not None:
        if scheme_of(destination) != MFS:
            msg = f"--artifacts-destination {destination!r} is not in the store: name it as mfs://<root>"
            raise SettingsError(msg)
        return parse_mfs(destination)
    found = _bases_of(paths, store)
    if len(found) > 1:
        shown = ", ".join(sorted(map(str, found)))
        msg = f"the store has artifacts of this database in {shown}: name the one of its server with --artifacts-destination"
        raise SettingsError(msg)
    return next(iter(found), None)


def _bases_of(paths: set[str], store: ContentStore) -> set[MfsPath]:
    found = set()
    for kept in store.roots():
        if kept.kind not in {NameKind.FILE, NameKind.FROZEN}:
            continue
        root, *parts = kept.name.removeprefix(f"{MFS}://").split("/")
        for start in range(len(parts)):
            if not paths.isdisjoint("/".join(parts[start:end]) for end in range(start + 1, len(parts) + 1)):
                found.add(MfsPath(root, "/".join(parts[:start])))
    return found


def _claim(
    store: ContentStore, trees: _Trees, locations: Iterable[ArtifactLocation], versions: Sequence[_Version]
) -> int:
    """Add the copy's own names to the store. Returns how many files have one."""
    places = {place for one in locations if one.table != "experiments" and (place := trees.find(one.uri))}
    count = 0
    batch: list[MfsEntry] = []
    for place in _outermost(places):
        for entry in store.storage.entries.walk(place.root, place.path):
            moved = trees.move(MfsPath(entry.root, entry.path))
            batch.append(MfsEntry(moved.root, moved.path, entry.cid, entry.size_bytes, entry.dag_bytes, entry.mtime_ns))
            count += 1
            if len(batch) >= _BATCH:
                _commit(store, Changes(entries=batch))
                batch = []
    _commit(store, Changes(entries=batch))
    for start in range(0, len(versions), _BATCH):
        part = versions[start : start + _BATCH]
        pins = [Pin(f"{OWNER}{trees.registry_id}/{version.name}", version.cid) for version in part]
        placed = [(trees.move(place), version.cid) for version in part if (place := trees.find(version.location))]
        _commit(store, Changes(pins=pins, frozen=[Frozen(place.root, place.path, cid) for place, cid in placed]))
    return count


def _commit(store: ContentStore, changes: Changes) -> None:
    with store.storage.publish(hold_existing=True) as publication:
        publication.commit(changes)


def _outermost(places: Iterable[MfsPath]) -> Iterator[MfsPath]:
    """Yield places that are below no other one of them."""
    chosen: set[tuple[str, ...]] = set()
    for place in sorted(places, key=lambda place: (place.root, place.path.split("/"))):
        parts = (place.root, *place.path.split("/"))
        if not any(parts[:length] in chosen for length in range(1, len(parts))):
            chosen.add(parts)
            yield place


def _change_database(engine: Engine, trees: _Trees, expected: Sequence[ArtifactLocation]) -> int:
    """Change the id and all locations in one transaction.

    Raises:
        ConflictError: another program changed the database since its locations were read.
    """
    with engine.begin() as connection:
        # The id first: from here on no other program can write to a SQLite database.
        is_former = replace_registry_id(connection, trees.former_id, trees.registry_id)
        if not is_former or set(read_locations(connection)) != set(expected):
            msg = (
                f"another program changed {_shown(engine.url)} while it was forked; the database is as it was. Stop the "
                "programs that use it, and run the command again"
            )
            raise ConflictError(msg)
        return write_locations(connection, expected, trees.move_uri)


def _shown(url: URL) -> str:
    return url.render_as_string(hide_password=True)
