"""Frozen model versions in MLflow's database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy

from mlflow_ipfs.binding import mlflow_compat
from mlflow_ipfs.binding.databases.claims import list_forks
from mlflow_ipfs.binding.locations import (
    MFS,
    PROXIED,
    cid_of_location,
    parse_mfs,
    scheme_of,
    split_frozen_uri,
    split_proxied,
)
from mlflow_ipfs.binding.mlflow_compat import SqlModelVersion
from mlflow_ipfs.binding.mlflow_process import Server
from mlflow_ipfs.binding.registry.version_pins import FrozenVersion
from mlflow_ipfs.content.mfs import MfsPath

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from mlflow_ipfs.content.cid import CID
    from mlflow_ipfs.content.store import ContentStore


def find_versions(
    session: Session,
    store: ContentStore,
    registry_id: str,
    *,
    name: str | None = None,
    version: int | None = None,
    cid: CID | None = None,
) -> list[FrozenVersion]:
    """Return the existing frozen versions of a registry, filtered by model name, version number and CID.

    Args:
        session: a session of the registry's database.
        store: the store with the content.
        registry_id: the registry id of the database.
        name: return versions of this registered model only; None: of all models.
        version: return versions with this number only; None: with any number.
        cid: return versions that are frozen to this CID only; None: to any CID.
    """
    columns: tuple[Any, ...] = SqlModelVersion.name, SqlModelVersion.version, SqlModelVersion.storage_location
    query = sqlalchemy.select(*columns).where(SqlModelVersion.current_stage != mlflow_compat.deleted_stage())
    if name is not None:
        query = query.where(SqlModelVersion.name == name)
    if version is not None:
        query = query.where(SqlModelVersion.version == version)
    if cid is not None:
        query = query.where(SqlModelVersion.storage_location.endswith(str(cid)))
    found = []
    for row in session.execute(query):
        frozen_to = cid_of_location(row.storage_location)
        if frozen_to is not None and (cid is None or frozen_to == cid):
            mutable_path = _mutable_path_of(row.storage_location, frozen_to, store, registry_id)
            found.append(FrozenVersion(row.name, int(row.version), frozen_to, mutable_path))
    return found


def _mutable_path_of(location: str, cid: CID, store: ContentStore, registry_id: str) -> MfsPath | None:
    """Return the mutable path below which a ``storage_location`` is frozen; None if it is not known here."""
    split = split_frozen_uri(location)
    if split is None:
        return None
    mutable = split[0]
    if scheme_of(mutable) == MFS:
        return parse_mfs(mutable)
    if scheme_of(mutable) != PROXIED:
        return None
    _, path = split_proxied(mutable)
    server = Server.current()
    if server is not None and server.destination is not None and scheme_of(server.destination) == MFS:
        return parse_mfs(server.destination).join(path)
    return _find_frozen(path, cid, store, registry_id)


def _find_frozen(path: str, cid: CID, store: ContentStore, registry_id: str) -> MfsPath | None:
    """Return the mutable path below which a CID is frozen for a path behind a server; None if it is ambiguous.

    Outside of the server, its ``--artifacts-destination`` is not known, so the frozen paths are searched. Paths below
    the id of a fork are excluded: they belong to another database.
    """
    foreign = list_forks(store.storage).keys() - {registry_id}
    rows = [frozen for frozen in store.storage.entries.list_frozen() if frozen.cid == cid]
    rows = [frozen for frozen in rows if f"/{frozen.path}".endswith(f"/{path}")]
    rows = [frozen for frozen in rows if foreign.isdisjoint(frozen.path.split("/"))]
    rows = [frozen for frozen in rows if registry_id in frozen.path.split("/")] or rows
    return MfsPath(rows[0].root, rows[0].path) if len(rows) == 1 else None
