"""Model versions in MLflow's database that are not frozen, found by location because tags may be missing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy

from mlflow_ipfs.binding import mlflow_compat
from mlflow_ipfs.binding.locations import cid_of_location
from mlflow_ipfs.binding.mlflow_compat import SqlModelVersion
from mlflow_ipfs.binding.redaction import hide_secrets, show_url
from mlflow_ipfs.errors import NotFoundError, StoreFormatError

if TYPE_CHECKING:
    from sqlalchemy import URL


@dataclass(frozen=True, slots=True)
class UnfrozenVersion:
    """A model version whose files may change.

    Attributes:
        name: the registered model's name.
        version: the version's number.
        location: the location from which MLflow reads the version's files, without secrets.
    """

    name: str
    version: int
    location: str


@dataclass(frozen=True, slots=True)
class VersionCounts:
    """The model versions of a database.

    Attributes:
        frozen: number of versions that are frozen.
        prompts: number of prompts, which have no files.
        unfrozen: all other versions.
    """

    frozen: int
    prompts: int
    unfrozen: tuple[UnfrozenVersion, ...]


def count_versions(database: URL) -> VersionCounts:
    """Count the model versions of a database that are frozen, and list those that are not.

    Raises:
        NotFoundError: the database is a SQLite file that does not exist.
        StoreFormatError: the database cannot be read, or it is not an MLflow database.
    """
    if database.get_backend_name() == "sqlite" and not Path(database.database or "").is_file():
        msg = f"{database.database!r} is not a file; name MLflow's database with --backend-store-uri"
        raise NotFoundError(msg)
    engine = sqlalchemy.create_engine(database)
    try:
        with engine.connect() as connection:
            return count_versions_in(connection)
    except sqlalchemy.exc.SQLAlchemyError as error:
        uri = show_url(database)
        reason = hide_secrets(str(getattr(error, "orig", None) or error))
        msg = f"the model versions in {uri} cannot be read ({reason}); name MLflow's database with --backend-store-uri"
        raise StoreFormatError(msg) from error
    finally:
        engine.dispose()


def count_versions_in(connection: sqlalchemy.Connection) -> VersionCounts:
    """Count the model versions of a database that is open, as ``count_versions`` does."""
    columns: tuple[Any, ...] = (
        SqlModelVersion.name,
        SqlModelVersion.version,
        SqlModelVersion.source,
        SqlModelVersion.storage_location,
    )
    query = (
        sqlalchemy.select(*columns)
        .where(SqlModelVersion.current_stage != mlflow_compat.deleted_stage())
        .order_by(SqlModelVersion.name, SqlModelVersion.version)
    )
    frozen, prompts, unfrozen = 0, 0, []
    for row in connection.execute(query):
        location = row.storage_location or row.source or ""
        if cid_of_location(location) is not None:
            frozen += 1
        elif row.source in mlflow_compat.PROMPT_SOURCES and location == row.source:
            prompts += 1
        else:
            unfrozen.append(UnfrozenVersion(row.name, int(row.version), hide_secrets(location)))
    return VersionCounts(frozen, prompts, tuple(unfrozen))
