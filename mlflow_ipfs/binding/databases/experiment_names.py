"""Names of experiments, read from the MLflow databases that use a store."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import sqlalchemy

from mlflow_ipfs.binding.databases.claims import list_databases
from mlflow_ipfs.binding.databases.connections import opened_database
from mlflow_ipfs.binding.databases.database_locations import SQLITE
from mlflow_ipfs.binding.registry_id import read_registry_id
from mlflow_ipfs.errors import MlflowIpfsError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import URL

    from mlflow_ipfs.content.storage.base import Storage

_REGISTRY_ID: Final = re.compile(r"[0-9a-f]{16}")
_LOCK_SECONDS: Final = 1.0  # a name is not worth a long wait


@dataclass(frozen=True, slots=True)
class ExperimentNames:
    """The names of experiments.

    Attributes:
        by_registry: names by experiment id, for each registry id.
        unmarked: names by experiment id of the one named database, whose server writes trees without a registry id.
    """

    by_registry: dict[str, dict[str, str]] = field(default_factory=dict)
    unmarked: dict[str, str] = field(default_factory=dict)

    def find(self, tree: str) -> str:
        """Return the name of an experiment by its tree, ``mfs://<root>/[<registry id>/]<experiment id>``, else ``""``."""
        *_, above, experiment_id = f"/{tree}".split("/")
        names = self.by_registry.get(above, {}) if _REGISTRY_ID.fullmatch(above) else self.unmarked
        return names.get(experiment_id, "")


def read_experiment_names(storage: Storage, named: URL | None, *, must_read: bool = False) -> ExperimentNames:
    """Read the names of experiments from the SQLite databases of this machine that use the store, and from a named one.

    A database that was moved, or cannot be read, is skipped.

    Args:
        storage: the store.
        named: a database that the user named; None: only those that the store has seen.
        must_read: whether the named database must be readable.

    Raises:
        NotFoundError, SettingsError, StoreBusyError: the named database cannot be read, but must be.
    """
    names = ExperimentNames()
    for url in _seen_databases(storage):
        registry_id, found = _read(url)
        if registry_id is not None:
            names.by_registry[registry_id] = found
    if named is not None:
        registry_id, found = _read(named, must_read=must_read)
        names.unmarked.update(found)
        if registry_id is not None:
            names.by_registry[registry_id] = found
    return names


def _seen_databases(storage: Storage) -> Iterator[URL]:
    for locations in list_databases(storage).values():
        for location in locations:
            if location.kind == SQLITE and location.host == socket.gethostname():
                yield sqlalchemy.URL.create(SQLITE, database=location.name)


def _read(url: URL, *, must_read: bool = False) -> tuple[str | None, dict[str, str]]:
    """Return the registry id of a database and the names of its experiments, by id."""
    try:
        with opened_database(url, _LOCK_SECONDS) as connection:
            rows = connection.execute(sqlalchemy.text("SELECT experiment_id, name FROM experiments"))
            return read_registry_id(connection), {str(experiment_id): str(name) for experiment_id, name in rows}
    except (MlflowIpfsError, ImportError):  # ImportError: its driver is not installed
        if must_read:
            raise
        return None, {}
