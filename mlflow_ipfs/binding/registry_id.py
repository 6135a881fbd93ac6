"""The registry id: a random name that a database gets once and keeps.

Roots of artifacts and owners of pins carry it, so that two databases on one store never share a
path or release each other's pins. It stands in a small table of its own beside MLflow's, which
`mlflow db upgrade` leaves alone. A copy of a database has the id of the original: ``database_claims.py`` finds
that out, and ``database_forks.py`` gives the copy an id of its own.
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

_metadata = sqlalchemy.MetaData()  # not MLflow's: it checks that every table in its own exists
_table = sqlalchemy.Table(
    TABLE,
    _metadata,
    sqlalchemy.Column("only_row", sqlalchemy.Integer, sqlalchemy.CheckConstraint("only_row = 1"), primary_key=True),
    sqlalchemy.Column("registry_id", sqlalchemy.String(32), nullable=False),
)


def ensure_registry_id(engine: Engine) -> str:
    """The id of a database; made now if there is none. Safe with many processes at once."""
    _create_table(engine)
    with engine.connect() as connection:
        found = _read(connection)
    if found is None:
        try:
            with engine.begin() as connection:
                connection.execute(_table.insert().values(only_row=1, registry_id=new_registry_id()))
        except IntegrityError:
            pass  # another process was first; its id counts
        with engine.connect() as connection:
            found = _read(connection)
    assert found is not None, "the row was inserted, by this process or another"
    return found


def new_registry_id() -> str:
    """Return an id that no database has."""
    return secrets.token_hex(ID_BYTES)


def read_registry_id(connection: Connection) -> str | None:
    """Return the id of a database; None if it has none yet. Changes nothing."""
    if not sqlalchemy.inspect(connection).has_table(TABLE):
        return None
    return _read(connection)


def replace_registry_id(connection: Connection, former: str, registry_id: str) -> bool:
    """Give a database another id, in the caller's transaction. Returns False if it does not have the former one."""
    changed = connection.execute(_table.update().where(_table.c.registry_id == former).values(registry_id=registry_id))
    return changed.rowcount == 1


def _create_table(engine: Engine) -> None:
    try:
        _metadata.create_all(engine)
    except (OperationalError, ProgrammingError):
        # Two processes looked, both saw no table, and the other one made it.
        if not sqlalchemy.inspect(engine).has_table(_table.name):
            raise


def _read(connection: Connection) -> str | None:
    found = connection.execute(sqlalchemy.select(_table.c.registry_id)).scalar()
    return str(found) if found is not None else None
