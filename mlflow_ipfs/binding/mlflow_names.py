"""MLflow's answers to ``models:/…`` and ``runs:/…``: where it keeps the artifacts of a name.

The questions are asked through MLflow's client, but with MLflow's own stores and only of a database that exists and is
complete: MLflow creates a missing database, and migrates an old one, when a client opens it. The stores of ``ipfs+…``
URIs would also write, into the database and the content store.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import requests.exceptions
import sqlalchemy
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import ArgumentError

from mlflow_ipfs.binding import mlflow_compat
from mlflow_ipfs.binding.databases.connections import PREFIX, opened_database
from mlflow_ipfs.binding.databases.drivers import name_driver
from mlflow_ipfs.binding.locations import check_path, join_path, scheme_of
from mlflow_ipfs.binding.redaction import hide_secrets
from mlflow_ipfs.errors import InvalidPathError, NotFoundError, RemoteError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import URL, Connection

_NOT_FOUND_CODES: Final = frozenset({"RESOURCE_DOES_NOT_EXIST", "NOT_FOUND", "ENDPOINT_NOT_FOUND"})
_NOT_FOUND_TEXTS: Final = ("not found", "No versions of model")
_MODEL_ID_PREFIX: Final = "m-"  # prefix of MLflow's ids of logged models
_REFERENCES: Final = ("models", "runs")
_MAX_REFERENCES: Final = 5  # a version of a version of a run
_DATABASES: Final = ("sqlite", "postgresql", "mysql", "mssql")
_HOSTED: Final = ("databricks", "databricks-uc", "uc")  # tracking URIs without a scheme
_OPTION: Final = "name the MLflow to ask with --tracking-uri"


@dataclass(frozen=True, slots=True)
class LoggedModelName:
    """A logged model of a run: its id and its name in the run."""

    model_id: str
    name: str


@dataclass(frozen=True, slots=True)
class MlflowAnswer:
    """The answer of MLflow to a name.

    Attributes:
        locations: the locations of the artifacts to try, in MLflow's order.
        is_version: whether the name is that of a registered model version.
        models: if the name is that of a whole run, the run's logged models, whose files are at other locations.
    """

    locations: tuple[str, ...]
    is_version: bool = False
    models: tuple[LoggedModelName, ...] = ()


def ask_mlflow(name: str, tracking_uri: str | None) -> MlflowAnswer:
    """Return the artifact locations of a ``models:/…`` or ``runs:/…`` URI. Nothing is created or changed.

    Args:
        name: the URI.
        tracking_uri: the tracking server or database to ask; None: the one that the environment sets.

    Raises:
        NotFoundError: MLflow does not know the name, or the database to ask does not exist.
        InvalidPathError: MLflow cannot parse the URI.
        SettingsError: the database cannot be read, or a different version of MLflow made it.
        RemoteError: MLflow failed.
    """
    client, asked = _connect(name, tracking_uri)
    with translated_errors(name, asked):
        answer = _ask_once(client, name)
        for _ in range(_MAX_REFERENCES):
            if not any(scheme_of(location) in _REFERENCES for location in answer.locations):
                return answer
            followed = [_follow(client, location) for location in answer.locations]
            answer = replace(answer, locations=tuple(location for found in followed for location in found))
    msg = (
        f"{name} refers to more than {_MAX_REFERENCES} other names; name the location of its files (MLflow at {asked})"
    )
    raise InvalidPathError(msg)


def read_version_tags(name: str, tracking_uri: str | None) -> dict[str, str]:
    """Return the tags of the model version that a ``models:/…`` URI names; empty for a logged model or a path below.

    The arguments and the errors are those of ``ask_mlflow``.
    """
    client, asked = _connect(name, tracking_uri)
    with translated_errors(name, asked):
        return mlflow_compat.model_version_tags(client, name)


def _ask_once(client: MlflowClient, name: str) -> MlflowAnswer:
    """Return MLflow's locations of a name. MLflow keeps the source of a version that it did not resolve: ``runs:/…``."""
    if scheme_of(name) == "models":
        location, path, is_version = mlflow_compat.model_location(client, name)
        return MlflowAnswer((_join(location, path),), is_version=is_version)
    run_id, _, path = name.partition(":")[2].strip("/").partition("/")
    run = mlflow_compat.get_run(run_id, client)
    location = _join(str(run.info.artifact_uri), path)
    model_name, _, rest = join_path(path).partition("/")
    if not model_name:
        models = mlflow_compat.list_logged_models(run, client)
        return MlflowAnswer((location,), models=tuple(LoggedModelName(one.model_id, one.name) for one in models))
    model = mlflow_compat.find_logged_model(run, model_name, client)
    below = () if model is None else (_join(str(model.artifact_location), rest),)
    return MlflowAnswer((location, *below))


def _follow(client: MlflowClient, location: str) -> tuple[str, ...]:
    """Return the locations of a location that is itself a name; otherwise the location."""
    return _ask_once(client, location).locations if scheme_of(location) in _REFERENCES else (location,)


def _connect(name: str, tracking_uri: str | None) -> tuple[MlflowClient, str]:
    """Return a client of one tracking server or database, and that server or database as text for messages."""
    mlflow_compat.prepare_for_command()
    uri, registry_uri, origin = mlflow_compat.client_uris(tracking_uri)
    return connect_client(name, uri, registry_uri, origin), shown_uri(uri)


def connect_client(name: str, uri: str, registry_uri: str, origin: str) -> MlflowClient:
    """Return a client of MLflow's own stores that reads a database only if it exists and is complete.

    Args:
        name: what MLflow will be asked for, for messages.
        uri: the tracking URI.
        registry_uri: the URI of the model registry.
        origin: where the URI is from, for messages.

    Raises:
        NotFoundError: a database does not exist.
        SettingsError: a database cannot be read, or a different version of MLflow made it.
    """
    for one in dict.fromkeys((uri, registry_uri)):
        _check_exists(name, one, origin)
    return MlflowClient(_without_prefix(uri), _without_prefix(registry_uri))


def read_database_url(uri: str) -> URL | None:
    """Return the database that a tracking or registry URI names, with the installed driver; None for a server.

    Raises:
        SettingsError: the URI is that of a database, and malformed.
    """
    bare = _without_prefix(uri)
    if bare.partition(":")[0].partition("+")[0] not in _DATABASES:
        return None
    try:
        return sqlalchemy.make_url(bare)
    except (ArgumentError, ValueError):  # its message may have a password in it
        msg = "the tracking URI is not the URI of a database; write for example sqlite:///mlflow.db"
        raise SettingsError(msg) from None


def _without_prefix(uri: str) -> str:
    """Return MLflow's own URI for a URI of this package, with the installed driver."""
    return name_driver(uri.removeprefix(PREFIX))


def _check_exists(name: str, uri: str, origin: str) -> None:
    """Raise if MLflow's client would create the database or directory that a URI names, or tables in it."""
    bare = _without_prefix(uri)
    if bare.partition(":")[0].partition("+")[0] in _DATABASES:
        _check_database(name, bare, origin)
    elif (
        bare not in _HOSTED
        and scheme_of(bare) in {"", "file"}
        and not Path(urlsplit(bare).path if scheme_of(bare) else bare).is_dir()
    ):
        msg = f"{name}: MLflow's directory {bare} does not exist ({origin}); {_OPTION}"
        raise NotFoundError(msg)


def _check_database(name: str, uri: str, origin: str) -> None:
    try:
        url = sqlalchemy.make_url(uri)
    except (ArgumentError, ValueError):  # its message may have a password in it
        msg = f"{origin} is not the URI of a database; write for example sqlite:///mlflow.db"
        raise SettingsError(msg) from None
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").is_file():
        msg = f"{name}: MLflow's database {Path(url.database or '').absolute()} does not exist ({origin}); {_OPTION}"
        raise NotFoundError(msg)
    try:
        with opened_database(url) as connection:
            _check_tables(name, uri, origin, connection)
    except ImportError as error:
        msg = f"{shown_uri(uri)} needs a driver that is not installed ({error}); install it with pip"
        raise SettingsError(msg) from error


def _check_tables(name: str, uri: str, origin: str, connection: Connection) -> None:
    if not sqlalchemy.inspect(connection).has_table("experiments"):
        msg = f"{name}: {shown_uri(uri)} is not a database of MLflow ({origin}); {_OPTION}"
        raise NotFoundError(msg)
    if not mlflow_compat.has_all_tables(connection.engine):
        msg = (
            f"{name}: the database {shown_uri(uri)} was made by an older MLflow; back it up and run "
            "`mlflow db upgrade` on it, or run mlflow-ipfs with that MLflow"
        )
        raise SettingsError(msg)


def shown_uri(uri: str) -> str:
    """Return a tracking URI for messages, without a user name, a password or a query. The URI may be malformed."""
    scheme, separator, rest = uri.partition("://")
    before, _, after = rest.partition("?")
    if "@" in after and "@" not in before:  # the password has a question mark
        before = after.partition("?")[0]
    return f"{scheme}://{before if before.startswith('/') else before.rpartition('@')[2]}" if separator else uri


def _hint(name: str) -> str:
    """Return advice for ``models:/NAME``, which MLflow interprets as the id of a logged model; else ``""``."""
    model = name.partition(":")[2].strip("/")
    if scheme_of(name) != "models" or "/" in model or "@" in model or model.startswith(_MODEL_ID_PREFIX):
        return ""
    return f"; name a version or an alias: models:/{model}/1, models:/{model}@…"


def _join(location: str, path: str) -> str:
    path = check_path(path)
    return f"{location.rstrip('/')}/{path}" if path else location


def _explain_failure(error: BaseException, asked: str) -> str:
    """Return what an error of a connection to MLflow means. MLflow's own message repeats the whole URL."""
    if isinstance(error, requests.exceptions.RetryError):  # the server answered each time, with an error
        reason = getattr(error.args[0], "reason", error)
        return f"MLflow at {asked} answers with errors ({reason}); the server's log says why"
    return f"MLflow at {asked} cannot be reached; check that the server is running, and its address"


@contextmanager
def translated_errors(name: str, asked: str) -> Iterator[None]:
    """Translate MLflow's exceptions to the errors of this package.

    Args:
        name: what MLflow was asked for.
        asked: the tracking server or database, without secrets.

    Raises:
        NotFoundError: MLflow does not know the name.
        InvalidPathError: MLflow cannot parse the name.
        RemoteError: MLflow failed.
    """
    try:
        yield
    except MlflowException as error:
        if isinstance(error.__context__, OSError):  # of the connection
            msg = f"{name}: {_explain_failure(error.__context__, asked)}"
            raise RemoteError(msg) from error
        msg = hide_secrets(f"{name}: {error.message.rstrip('.')}{_hint(name)} (MLflow at {asked})")
        # MLflow has no separate error code for an unknown alias or for a model without versions.
        if error.error_code in _NOT_FOUND_CODES or any(text in msg for text in _NOT_FOUND_TEXTS):
            raise NotFoundError(msg) from error
        if error.error_code == "INVALID_PARAMETER_VALUE" or "Not a proper" in msg:
            raise InvalidPathError(msg) from error
        raise RemoteError(msg) from error
