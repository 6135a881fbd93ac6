"""Model versions that exist in MLflow's database already: reading them, and changing what freezing changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy
from sqlalchemy import func

from mlflow_ipfs.binding import mlflow_compat
from mlflow_ipfs.binding.mlflow_compat import SqlModelVersion, SqlModelVersionTag
from mlflow_ipfs.binding.registry.version_tags import RESERVED
from mlflow_ipfs.errors import ConflictError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mlflow.entities.model_registry import ModelVersionTag
    from sqlalchemy.orm import Session


@dataclass(frozen=True, slots=True)
class ExistingVersion:
    """A model version.

    Attributes:
        name: the registered model's name.
        version: the version's number.
        source: the source with which it was registered.
        location: the location from which MLflow reads its files.
        run_id: the run that it comes from; None if it is not known.
    """

    name: str
    version: int
    source: str
    location: str
    run_id: str | None

    def __str__(self) -> str:
        return f"{self.name}/{self.version}"


def read_versions(session: Session) -> list[ExistingVersion]:
    """Return every model version that was not deleted."""
    columns: tuple[Any, ...] = (
        SqlModelVersion.name,
        SqlModelVersion.version,
        SqlModelVersion.source,
        SqlModelVersion.storage_location,
        SqlModelVersion.run_id,
    )
    query = (
        sqlalchemy.select(*columns)
        .where(SqlModelVersion.current_stage != mlflow_compat.deleted_stage())
        .order_by(SqlModelVersion.name, SqlModelVersion.version)
    )
    return [
        ExistingVersion(name, int(version), source or "", location or source or "", run_id or None)
        for name, version, source, location, run_id in session.execute(query)
    ]


def rewrite_version(session: Session, version: ExistingVersion, location: str, tags: Iterable[ModelVersionTag]) -> None:
    """Set the location of a version, and replace its reserved tags, in the caller's transaction.

    Raises:
        ConflictError: another program changed or deleted the version meanwhile.
    """
    this: Any = (SqlModelVersion.name == version.name) & (SqlModelVersion.version == version.version)
    former = func.coalesce(func.nullif(SqlModelVersion.storage_location, ""), SqlModelVersion.source, "")
    statement = (
        sqlalchemy.update(SqlModelVersion)
        .where(this, former == version.location, SqlModelVersion.current_stage != mlflow_compat.deleted_stage())
        .values(storage_location=location)
    )
    if session.execute(statement).rowcount != 1:  # type: ignore[attr-defined] # of an UPDATE
        msg = f"version {version.version} of {version.name!r} was changed or deleted meanwhile; adopt again"
        raise ConflictError(msg)
    columns: tuple[Any, ...] = (SqlModelVersion.workspace,)
    [workspace] = session.execute(sqlalchemy.select(*columns).where(this)).scalars()
    same: Any = (SqlModelVersionTag.name == version.name) & (SqlModelVersionTag.version == version.version)
    session.execute(sqlalchemy.delete(SqlModelVersionTag).where(same, SqlModelVersionTag.key.in_(RESERVED)))
    owner = {"workspace": workspace, "name": version.name, "version": version.version}
    session.add_all(SqlModelVersionTag(**owner, key=tag.key, value=tag.value) for tag in tags)
