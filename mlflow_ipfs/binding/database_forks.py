"""Forks: a copied database gets a new registry id, and separate claims on all the content it names.

The steps run in this order, so that an interrupted fork can be run again:

1. The new id is recorded in the store.
2. Every file of a run, logged model or trace gets a second row in the mutable tree, below the new id. Every frozen
   version gets a second pin and a second frozen path. No bytes are copied.
3. One transaction of the database changes all ``mfs://`` locations and the id.
4. The location of the database is recorded under the new id, and forgotten under the former one.

``mlflow-artifacts:/…`` locations do not change, because MLflow's clients and servers parse them. The server's
``--artifacts-destination`` defines what they mean. So the copy's server needs another destination: see ``ForkReport``.
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
from mlflow_ipfs.binding.databases.former_locations import forget_all_former_locations
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
from mlflow_ipfs.binding.redaction import hide_secrets, show_url
from mlflow_ipfs.binding.registry.version_pins import OWNER
from mlflow_ipfs.binding.registry_id import new_registry_id, read_registry_id, replace_registry_id
from mlflow_ipfs.content.mfs import MfsPath
from mlflow_ipfs.content.names.entries import Frozen, MfsEntry
from mlflow_ipfs.content.names.kinds import NameKind
from mlflow_ipfs.content.names.pins import Pin
from mlflow_ipfs.content.storage.base import Changes
from mlflow_ipfs.errors import (
    ConflictError,
    InvalidPathError,
    MlflowIpfsError,
    NotFoundError,
    PolicyError,
    SettingsError,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from collections.abc import Set as AbstractSet

    from sqlalchemy import URL, Connection, Engine

    from mlflow_ipfs.binding.databases.claims import Sighting
    from mlflow_ipfs.content.cid import CID
    from mlflow_ipfs.content.store import ContentStore

_BATCH: Final = 1000  # number of names in one commit of the store


@dataclass(frozen=True, slots=True)
class ForkReport:
    """The result of a fork.

    Attributes:
        former_id: the registry id that the database had before the fork.
        registry_id: the registry id that the database has now.
        versions: number of model versions that got a pin for the new id.
        files: number of files that got a row in the mutable trees below the new id.
        locations: number of artifact locations in the database that were changed.
        missing: model versions whose content is not in the store.
        destination: the ``--artifacts-destination`` that the database's server needs from now on; None if the database
            has no artifacts behind a server.
        others: number of other database locations with the former id.
    """

    former_id: str
    registry_id: str
    versions: int
    files: int
    locations: int
    missing: tuple[str, ...]
    destination: str | None
    others: int


def fork_database(
    url: URL, store: ContentStore, destination: str | None, *, even_if_unshared: bool = False
) -> ForkReport:
    """Give a copied database a new registry id and separate claims. No other program may use the database meanwhile.

    Args:
        url: the copy.
        store: the store with the content of the database.
        destination: the current ``--artifacts-destination`` of the copy's server; None: derive it from the store.
        even_if_unshared: fork the database even if the store has seen no other database with its registry id.

    Raises:
        NotFoundError: the database has no registry id, so it claims nothing.
        PolicyError: no other database is known to have the registry id, and ``even_if_unshared`` is False.
        SettingsError: the database cannot be read or is in memory, or the meaning of its ``mlflow-artifacts:``
            locations is ambiguous.
        ConflictError: another program changed the database meanwhile; the fork did not change it.
        MlflowIpfsError: the database cannot be changed.
    """
    with opened_database(url) as connection:
        former_id = read_registry_id(connection)
        if former_id is None:
            msg = (
                f"{show_url(url)} has no registry id, so the store keeps no content for it and a fork is not needed. If "
                "this is the wrong database, name another one"
            )
            raise NotFoundError(msg)
        locations = list(read_locations(connection))
    engine = sqlalchemy.create_engine(url, poolclass=NullPool)
    try:
        sighting = _observe_copy(store, former_id, engine, even_if_unshared=even_if_unshared)
        return _fork(engine, store, sighting, locations, destination)
    except SQLAlchemyError as error:
        reason = hide_secrets(str(getattr(error, "orig", None) or error))
        msg = f"{show_url(url)} could not be changed ({reason}) and is unmodified. Stop the programs that use it and try again"
        raise MlflowIpfsError(msg) from error
    finally:
        engine.dispose()


def _observe_copy(store: ContentStore, registry_id: str, engine: Engine, *, even_if_unshared: bool) -> Sighting:
    """Record the copy's location, and check that the copy has to be forked."""
    sighting = observe(store.storage, registry_id, engine)
    if sighting.location is None:
        msg = "a database in memory cannot be forked; name a database file or a server"
        raise SettingsError(msg)
    if sighting.is_shared or even_if_unshared:
        return sighting
    if claims.is_fork(store.storage, registry_id, sighting.location):
        msg = f"{show_url(engine.url)} is already forked: its registry id {registry_id} is its own. Nothing was changed"
    else:
        msg = (
            f"{show_url(engine.url)} was not changed: the store has seen no other database with its registry id "
            f"{registry_id}. If it is a copy of a database that has not been opened with this store yet, repeat the "
            "command with --even-if-unshared"
        )
    raise PolicyError(msg)


def _fork(
    engine: Engine,
    store: ContentStore,
    sighting: Sighting,
    locations: Sequence[ArtifactLocation],
    destination: str | None,
) -> ForkReport:
    storage, former_id = store.storage, sighting.registry_id
    assert sighting.location is not None, "a database in memory was refused"
    interrupted_id = claims.find_fork(storage, former_id, sighting.location)
    registry_id = interrupted_id or new_registry_id()
    base = find_base(locations, store, destination, former_id, interrupted_id)
    claims.record_fork(storage, registry_id, former_id, sighting.location)
    trees = _Trees(former_id, registry_id, base)
    with opened_database(engine.url) as connection:
        versions = list(_read_versions(connection))
    missing = tuple(version.name for version in versions if not storage.blocks.has(version.cid))
    claimed = [version for version in versions if version.name not in missing]
    files = _claim(store, trees, locations, claimed)
    changed = _change_database(engine, trees, locations)
    with engine.begin() as connection:
        forget_all_former_locations(connection)  # they are the original's: a file that is removed there is lost for it
    observe(storage, registry_id, engine)
    forget(storage, sighting)
    new_destination = str(trees.move(base)) if base is not None else None
    return ForkReport(
        former_id, registry_id, len(claimed), files, changed, missing, new_destination, len(sighting.others)
    )


@dataclass(frozen=True, slots=True)
class _Trees:
    """The mapping from the mutable paths of the original database to those of the copy.

    Attributes:
        former_id: the former registry id.
        registry_id: the new registry id.
        base: the mutable path that ``mlflow-artifacts:/`` meant before the fork; None if the database does not use it.
    """

    former_id: str
    registry_id: str
    base: MfsPath | None

    def move(self, path: MfsPath) -> MfsPath:
        """Return the copy's path for a path that both databases use."""
        first, _, rest = path.path.partition("/")
        below = rest if first == self.former_id else path.path
        return MfsPath(path.root, f"{self.registry_id}/{below}" if below else self.registry_id)

    def move_uri(self, uri: str) -> str:
        """Return the copy's URI for an ``mfs://`` location that both databases use."""
        mutable = before_frozen(uri)
        if scheme_of(mutable) != MFS or self.find(mutable) is None:
            return uri
        return f"{self.move(parse_mfs(mutable))}{uri[len(mutable.rstrip('/')) :] if mutable != uri else ''}"

    def find(self, uri: str) -> MfsPath | None:
        """Return the mutable path that an artifact location means; None if it means no path of the store."""
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


def find_base(
    locations: Iterable[ArtifactLocation],
    store: ContentStore,
    destination: str | None,
    registry_id: str | None,
    interrupted_id: str | None = None,
) -> MfsPath | None:
    """Return the mutable path that ``mlflow-artifacts:/`` means; None if the database does not use it.

    The caller's ``destination`` takes precedence; without one, the path is derived from the files in the store, except
    those that an interrupted fork already added below its new registry id.
    """
    paths = set()
    for location in locations:
        if scheme_of(location.uri) == PROXIED and location.table != "experiments":
            paths.add(split_proxied(before_frozen(location.uri))[1])
    if not paths:
        return None
    if destination is not None:
        if scheme_of(destination) != MFS:
            msg = f"--artifacts-destination {destination!r} is not in the store; write mfs://<root>"
            raise SettingsError(msg)
        base = parse_mfs(destination)
        if not any(store.files.stat(base.join(path)) for path in paths):
            msg = (
                f"the store has none of this database's artifacts in --artifacts-destination {destination}; name the "
                "destination with which its server ran"
            )
            raise SettingsError(msg)
        return base
    bases = find_bases(paths, store, registry_id)
    found = {base for base in bases if base.path.partition("/")[0] != interrupted_id}
    if len(found) > 1:
        shown = ", ".join(sorted(map(str, found)))
        msg = f"the store has artifacts of this database in {shown}; name the server's one with --artifacts-destination"
        raise SettingsError(msg)
    return next(iter(found), None)


def find_bases(paths: AbstractSet[str], store: ContentStore, registry_id: str | None) -> set[MfsPath]:
    """Return every mutable path of the store below which one of the paths exists.

    The tree with the database's own id is left out if the path above it is found too: ``databases convert`` made that path the
    server's, and what has the same names in the tree was ejected since.
    """
    found = set()
    for content in store.roots():
        if content.kind not in {NameKind.FILE, NameKind.FROZEN}:
            continue
        root, *parts = content.name.removeprefix(f"{MFS}://").split("/")
        for start in range(len(parts)):
            if not paths.isdisjoint("/".join(parts[start:end]) for end in range(start + 1, len(parts) + 1)):
                found.add(MfsPath(root, "/".join(parts[:start])))
    return found if registry_id is None else found - {base.join(registry_id) for base in found}


def _claim(
    store: ContentStore, trees: _Trees, locations: Iterable[ArtifactLocation], versions: Sequence[_Version]
) -> int:
    """Add rows, pins and frozen paths for the new id to the store. Return the number of files that got a row."""
    paths = {path for one in locations if one.table != "experiments" and (path := trees.find(one.uri))}
    count = 0
    batch: list[MfsEntry] = []
    for path in _outermost(paths):
        for entry in store.storage.entries.walk(path.root, path.path):
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
        paths_and_cids = [(trees.move(path), version.cid) for version in part if (path := trees.find(version.location))]
        frozen = [Frozen(path.root, path.path, cid) for path, cid in paths_and_cids]
        _commit(store, Changes(pins=pins, frozen=frozen))
    return count


def _commit(store: ContentStore, changes: Changes) -> None:
    with store.storage.publish(hold_existing=True) as publication:
        publication.commit(changes)


def _outermost(paths: Iterable[MfsPath]) -> Iterator[MfsPath]:
    """Yield the paths that are not below another one of the paths."""
    chosen: set[tuple[str, ...]] = set()
    for path in sorted(paths, key=lambda path: (path.root, path.path.split("/"))):
        parts = (path.root, *path.path.split("/"))
        if not any(parts[:length] in chosen for length in range(1, len(parts))):
            chosen.add(parts)
            yield path


def _change_database(engine: Engine, trees: _Trees, expected: Sequence[ArtifactLocation]) -> int:
    """Change the id and all locations in one transaction. Return the number of changed locations.

    Raises:
        ConflictError: another program changed the database since its locations were read.
    """
    with engine.begin() as connection:
        # The id is changed first: from then on no other program can write to a SQLite database.
        is_former = replace_registry_id(connection, trees.former_id, trees.registry_id)
        if not is_former or set(read_locations(connection)) != set(expected):
            msg = (
                f"another program changed {show_url(engine.url)} during the fork, so the fork did not change the database. "
                "Stop the programs that use it and run the command again"
            )
            raise ConflictError(msg)
        return write_locations(connection, expected, trees.move_uri)
