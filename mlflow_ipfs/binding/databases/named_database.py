"""The database that a user means: the one that an option names, else the one of MLflow's settings."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

import sqlalchemy
from sqlalchemy.exc import ArgumentError

from mlflow_ipfs.binding.databases.drivers import name_driver
from mlflow_ipfs.binding.locations import STORE_PREFIX
from mlflow_ipfs.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import URL

_ADVICE: Final = "name MLflow's database with --backend-store-uri, such as sqlite:///mlflow.db"


def find_database(named: str | None, environ: Mapping[str, str]) -> URL:
    """Return the URL of the database in which MLflow keeps its runs and models.

    Args:
        named: the URI of the database, with or without the prefix of this package; None to use MLflow's settings.
        environ: the environment with these settings.

    Raises:
        SettingsError: no database is named, it is of a kind that this package does not support, or its driver is missing.
    """
    variables = {name: environ.get(name) for name in ("MLFLOW_BACKEND_STORE_URI", "MLFLOW_TRACKING_URI")}
    given = {"--backend-store-uri": named} | variables
    setting, uri = next(((setting, uri) for setting, uri in given.items() if uri), ("", ""))
    if not uri:
        msg = f"neither MLFLOW_BACKEND_STORE_URI nor MLFLOW_TRACKING_URI is set: {_ADVICE}"
        raise SettingsError(msg)
    try:
        url = sqlalchemy.make_url(name_driver(uri.removeprefix(STORE_PREFIX)))
    except (ArgumentError, ValueError):  # its message may have a password in it
        msg = f"the value of {setting} is not the URI of a database: {_ADVICE}"
        raise SettingsError(msg) from None
    backend = url.get_backend_name()
    if backend not in {"sqlite", "postgresql"}:
        found = "the address of a server" if backend in {"http", "https"} else f"a database of the kind {backend!r}"
        msg = f"{setting} is {found}, but SQLite and PostgreSQL are supported: {_ADVICE}"
        raise SettingsError(msg)
    if backend == "postgresql" and find_spec(url.get_driver_name()) is None:
        msg = (
            f"{setting} needs the driver {url.get_driver_name()}, which is not installed: `pip install psycopg2-binary`"
        )
        raise SettingsError(msg)
    return _hide_password(url, setting)


def _hide_password(url: URL, setting: str) -> URL:
    """Move a password from the query, where libpq accepts it too, to the field that is never displayed or passed on."""
    if "sslpassword" in url.query:
        msg = (
            f"the value of {setting} has an sslpassword, which pg_dump accepts only on its command line, where every "
            "user can read it: use a key without a password"
        )
        raise SettingsError(msg)
    password = url.query.get("password")
    if password is None:
        return url
    return url.difference_update_query(["password"]).set(
        password=password if isinstance(password, str) else password[-1]
    )
