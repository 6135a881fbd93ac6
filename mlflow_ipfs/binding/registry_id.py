"""The registry id: a random name that a database gets once and keeps.

Artifact roots and pin owners contain the id. Two databases that use one store therefore never share a path or release
each other's pins. The id is stored in a separate table next to MLflow's tables; `mlflow db upgrade` does not change
that table. A copy of a database has the id of the original: ``databases/sightings.py`` detects this, and
``database_forks.py`` gives the copy a new id.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final

import sqlalchemy
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Engine

ID_BYTES = 8
TABLE: Final = "mlflow_ipfs_registry"

_metadata = sqlalchemy.MetaData()  # separate from MLflow's, because MLflow checks that all tables of its own exist
_table = sqlalchemy.Table(
    TABLE,
    _metadata,
    sqlalchemy.Column("only_row", sqlalchemy.Integer, sqlalchemy.CheckConstraint("only_row = 1"), primary_key=True),
    sqlalchemy.Column("registry_id", sqlalchemy.String(32), nullable=False),
)


def ensure_registry_id(engine: Engine) -> str:
    """Return the id of a database; create it if the database has none. Concurrent processes get the same id."""
    _create_table(engine)
    with engine.connect() as connection:
        found = _read(connection)
    if found is None:
        try:
            with engine.begin() as connection:
                connection.execute(_table.insert().values(only_row=1, registry_id=new_registry_id()))
        except IntegrityError:
            pass  # another process inserted its id first: use that one
        with engine.connect() as connection:
            found = _read(connection)
    assert found is not None, "the row was inserted, by this process or another"
    return found


def new_registry_id() -> str:
    """Return a new random id."""
    return secrets.token_hex(ID_BYTES)


def read_registry_id(connection: Connection) -> str | None:
    """Return the id of a database; None if it has none yet. The database is not changed."""
    if not sqlalchemy.inspect(connection).has_table(TABLE):
        return None
    return _read(connection)


def replace_registry_id(connection: Connection, former: str, registry_id: str) -> bool:
    """Replace the id of a database, in the caller's transaction.

    Returns:
        False if the database does not have the former id; then nothing is changed.
    """
    changed = connection.execute(_table.update().where(_table.c.registry_id == former).values(registry_id=registry_id))
    return changed.rowcount == 1


def _create_table(engine: Engine) -> None:
    try:
        _metadata.create_all(engine)
    except (OperationalError, ProgrammingError):
        # Another process created the table after this one had checked for it.
        if not sqlalchemy.inspect(engine).has_table(_table.name):
            raise


def _read(connection: Connection) -> str | None:
    found = connection.execute(sqlalchemy.select(_table.c.registry_id)).scalar()
    return str(found) if found is not None else None
