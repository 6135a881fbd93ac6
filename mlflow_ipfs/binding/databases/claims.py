"""Claims of databases on one store: which databases have which registry id, and so may need the same content.

The store has a note ``database/<registry id>/<location>`` for every location where a registry id was seen. It has a
note ``fork/<registry id>`` for every fork, with the id that was forked. While two locations have the same id, nothing
that the id has claimed is deleted: no pins, no frozen paths and no files of the id's tree. ADR 0013 has the reasons.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mlflow_ipfs.binding.databases.database_locations import DatabaseLocation
from mlflow_ipfs.errors import PolicyError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlflow_ipfs.content.mfs import MfsPath
    from mlflow_ipfs.content.storage.base import Storage

SEEN: Final = "database/"
FORKED: Final = "fork/"


@dataclass(frozen=True, slots=True)
class Sighting:
    """The store's knowledge of one database.

    Attributes:
        registry_id: the database's id.
        location: the database's location; None for a database in memory.
        others: other locations with the same id, which may be in use.
    """

    registry_id: str
    location: DatabaseLocation | None
    others: tuple[DatabaseLocation, ...]

    @property
    def is_shared(self) -> bool:
        """True if another database may need the content that this database has claimed."""
        return bool(self.others)

    def explain(self) -> str:
        """Return a message about the shared id, with the commands that resolve it."""
        assert self.location is not None, "a database in memory has no other location"
        others = ", ".join(_name(location) for location in self.others)
        return (
            f"the MLflow databases {_name(self.location)} and {others} have the same registry id {self.registry_id}: one "
            "is a copy of the other. The store keeps everything that either may need, so deletions do not free space. "
            "If both are used, stop the programs that use the copy and run `mlflow-ipfs databases fork "
            f"--backend-store-uri URI-OF-THE-COPY`. If {others} is no longer used, remove it, or run `mlflow-ipfs "
            f"databases moved --backend-store-uri {self.location.uri}`"
        )


def location_key(registry_id: str, location: DatabaseLocation) -> str:
    """Return the key of the note for a registry id at a location."""
    return f"{SEEN}{registry_id}/{location.key}"


def list_locations(storage: Storage, registry_id: str) -> list[DatabaseLocation]:
    """Return every recorded location of a registry id."""
    return [DatabaseLocation.decode(text) for text in storage.notes.list(f"{SEEN}{registry_id}/").values()]


def list_databases(storage: Storage) -> Mapping[str, list[DatabaseLocation]]:
    """Return every registry id that was seen with this store, with its locations."""
    found: dict[str, list[DatabaseLocation]] = {}
    for key, text in storage.notes.list(SEEN).items():
        found.setdefault(key.split("/")[1], []).append(DatabaseLocation.decode(text))
    return found


def forget_database(storage: Storage, registry_id: str) -> None:
    """Delete every note about a registry id."""
    for key in (*storage.notes.list(f"{SEEN}{registry_id}/"), f"{FORKED}{registry_id}"):
        storage.notes.delete(key)


def list_shared(storage: Storage) -> list[Sighting]:
    """Return a sighting for every registry id that was seen at several locations."""
    return [
        Sighting(registry_id, locations[0], tuple(locations[1:]))
        for registry_id, locations in list_databases(storage).items()
        if len(locations) > 1
    ]


def record_fork(storage: Storage, registry_id: str, parent: str, location: DatabaseLocation) -> None:
    """Record that a registry id was forked from its parent id, for the database at a location."""
    storage.notes.set(f"{FORKED}{registry_id}", json.dumps({"from": parent, "place": location.key}))


def is_fork(storage: Storage, registry_id: str, location: DatabaseLocation) -> bool:
    """Return True if a fork of the database at a location created the registry id."""
    text = storage.notes.list(FORKED).get(f"{FORKED}{registry_id}")
    return text is not None and bool(json.loads(text)["place"] == location.key)


def find_fork(storage: Storage, parent: str, location: DatabaseLocation) -> str | None:
    """Return the registry id of an interrupted fork of the database at a location; None if no fork was interrupted."""
    for key, text in storage.notes.list(FORKED).items():
        fields = json.loads(text)
        registry_id = key.removeprefix(FORKED)
        if (fields["from"], fields["place"]) == (parent, location.key) and not list_locations(storage, registry_id):
            return registry_id
    return None


def check_not_shared(storage: Storage, path: MfsPath) -> None:
    """Check that only one database can have files at a path, before they are deleted.

    A path below a registry id belongs to the databases that have the id. A path elsewhere, such as that of an experiment
    with its own ``artifact_location``, may belong to any database; so a copy of any database protects it.

    Raises:
        PolicyError: one database is a copy of the other, and each may need the files.
    """
    owner = path.path.partition("/")[0]
    is_owned = owner in list_databases(storage)
    for sighting in list_shared(storage):
        if not is_owned or sighting.registry_id == owner:
            raise shared_tree_error(path, sighting)


def shared_tree_error(path: MfsPath, sighting: Sighting) -> PolicyError:
    """Return the error for files that two databases may need."""
    return PolicyError(f"nothing was deleted at {path}: {sighting.explain()}")


def list_forks(storage: Storage) -> Mapping[str, str]:
    """Return every registry id that a fork created, with its parent id."""
    notes = storage.notes.list(FORKED)
    return {key.removeprefix(FORKED): str(json.loads(text)["from"]) for key, text in notes.items()}


def find_ancestors(storage: Storage, registry_id: str) -> set[str]:
    """Return the registry ids that a database had before its forks."""
    parents, found = list_forks(storage), {registry_id}
    parent = parents.get(registry_id)
    while parent is not None and parent not in found:
        found.add(parent)
        parent = parents.get(parent)
    return found - {registry_id}


def _name(location: DatabaseLocation) -> str:
    return f"{location.uri} on {location.host}" if location.host else location.uri
