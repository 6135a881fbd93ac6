"""Sightings: records of database locations in the store, which show whether another location has the same registry id."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy

from mlflow_ipfs.binding.databases.claims import Sighting, list_locations, location_key, shared_tree_error
from mlflow_ipfs.binding.databases.connections import PREFIX, opened_database
from mlflow_ipfs.binding.databases.database_locations import SQLITE, DatabaseLocation, with_first_sighting
from mlflow_ipfs.binding.databases.drivers import name_driver
from mlflow_ipfs.binding.databases.probes import find_location, is_gone, is_in_memory
from mlflow_ipfs.binding.redaction import show_url
from mlflow_ipfs.binding.registry_id import read_registry_id
from mlflow_ipfs.errors import ImmutableError, NotFoundError

if TYPE_CHECKING:
    from sqlalchemy import URL
    from sqlalchemy.engine import Engine

    from mlflow_ipfs.content.mfs import MfsPath
    from mlflow_ipfs.content.storage.base import Storage


def observe(storage: Storage, registry_id: str, engine: Engine) -> Sighting:
    """Record the location of a database with a registry id. Return it with the other locations that have the same id.

    Earlier locations that are gone are forgotten: the database was moved from there.

    Raises:
        StoreBusyError, StoreFullError: the location cannot be recorded.
        sqlalchemy.exc.SQLAlchemyError, OSError: the location of the database cannot be determined.
    """
    with engine.connect() as connection:
        location = find_location(connection)
    if location is None:
        return Sighting(registry_id, None, ())
    known = list_locations(storage, registry_id)
    others, former = [], []
    for other in known:
        if other.is_same(location) and not _has_successor(other, location, registry_id, engine):
            location = with_first_sighting(location, other)
            former.append(other)
        elif is_gone(other, registry_id, engine):
            former.append(other)
        else:
            others.append(other)
    with suppress(ImmutableError):  # a read-only store never deletes content, so it needs no record
        if location not in former:
            storage.notes.set(location_key(registry_id, location), location.encode())
        for other in former:
            if other.key != location.key:
                storage.notes.delete(location_key(registry_id, other))
    return Sighting(registry_id, location, tuple(others))


def _has_successor(former: DatabaseLocation, location: DatabaseLocation, registry_id: str, engine: Engine) -> bool:
    """Return True if a renamed database left a copy at its former path, as ``mv db bak; cp bak db`` does."""
    if former.kind != SQLITE or former.name == location.name or is_gone(former, registry_id, engine):
        return False
    try:
        return not Path(former.name).samefile(location.name)
    except OSError:
        return False  # the path vanished just now


def record_move(storage: Storage, url: URL, *, from_any: bool = True) -> Sighting:
    """Record that a database was moved to its current location, and forget other locations with the same id.

    Args:
        storage: the store.
        url: the database.
        from_any: True: forget all other locations. False: forget another location only if there is exactly one, so
            that the former location is unambiguous.

    Returns:
        The sighting before the other locations were forgotten.

    Raises:
        NotFoundError: the database has no registry id.
        SettingsError: the database cannot be read.
    """
    with opened_database(url) as connection:
        registry_id = read_registry_id(connection)
        if registry_id is None:
            msg = (
                f"{show_url(url)} has no registry id, so the store keeps no content for it. "
                "If this is the wrong database, name another one"
            )
            raise NotFoundError(msg)
        sighting = observe(storage, registry_id, connection.engine)
    for location in sighting.others if from_any or len(sighting.others) == 1 else ():
        storage.notes.delete(location_key(registry_id, location))
    return sighting


def check_database_not_shared(storage: Storage, path: MfsPath, backend_uri: str) -> None:
    """Check that the database behind a server, command or client has no copy, before files are deleted for it.

    The paths behind a server do not contain a registry id, and a stock client of a copy has not recorded the copy yet.

    Args:
        storage: the store.
        path: the path of the files to delete.
        backend_uri: the database; other URIs, such as those of servers, pass.

    Raises:
        PolicyError: one database is a copy of the other, and each may need the files.
        StoreBusyError: another program locked the database for too long.
        SettingsError: the database cannot be read.
    """
    backend = backend_uri.removeprefix(PREFIX)
    if not backend.startswith(("sqlite:", "postgresql:", "postgresql+")):
        return
    url = sqlalchemy.make_url(name_driver(backend))
    if is_in_memory(url) or (url.get_backend_name() == SQLITE and not Path(url.database or "").is_file()):
        return
    with opened_database(url) as connection:
        registry_id = read_registry_id(connection)
        if registry_id is None:
            return
        sighting = observe(storage, registry_id, connection.engine)
    if sighting.is_shared:
        raise shared_tree_error(path, sighting)


def forget(storage: Storage, sighting: Sighting) -> None:
    """Record that a registry id is no longer at the sighting's location."""
    if sighting.location is not None:
        storage.notes.delete(location_key(sighting.registry_id, sighting.location))
