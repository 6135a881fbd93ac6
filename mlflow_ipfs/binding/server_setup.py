"""Checks of a server's set-up when ``mlflow server`` starts, and the logging of its processes.

MLflow loads the plugin modules in each worker. Only the first worker checks the set-up, so each problem is logged once.
The checks connect to no database and take a few milliseconds.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mlflow_ipfs.binding.client_locations import guard_experiments
from mlflow_ipfs.binding.locations import MFS, PROXIED, scheme_of
from mlflow_ipfs.binding.mlflow_process import DEFAULT_LOCAL_ROOT, ServerOptions, is_first_worker
from mlflow_ipfs.binding.redaction import hide_secrets
from mlflow_ipfs.config import FreezeMode, Settings
from mlflow_ipfs.errors import MlflowIpfsError, SettingsError, StoreBusyError
from mlflow_ipfs.opening import check_writable

if TYPE_CHECKING:
    from collections.abc import Iterator

_logger = logging.getLogger(__name__)

_PACKAGE: Final = "mlflow_ipfs"
_PREFIX: Final = "ipfs+"
_LOCK_SECONDS: Final = 2.0  # a store that another program keeps locked for longer is not a problem of the set-up
_FORMAT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"  # MLflow's own
_TIME_FORMAT: Final = "%Y/%m/%d %H:%M:%S"
_LOCAL_HOSTS: Final = frozenset({"", "localhost", "127.0.0.1", "::1"})
_POSTGRESQL_PORT: Final = 5432


def prepare_worker() -> None:
    """Configure logging and guard locations in a worker. In the first worker, log what is wrong with the set-up.

    No problem stops the server: what works without the store goes on working.
    """
    _configure_logging()
    guard_experiments()
    options = ServerOptions.current()
    if options is None or not is_first_worker():
        return
    try:
        for problem in find_problems(options):
            _logger.error("%s", problem)
    except Exception:  # the server must start even if a check fails
        _logger.warning("the set-up of this server could not be checked", exc_info=True)


def find_problems(options: ServerOptions) -> Iterator[str]:
    """Yield one line for each part of a server's set-up that will not work."""
    try:
        settings = Settings.from_environment()
    except SettingsError as error:
        yield f"every request that needs the store will fail: {hide_secrets(str(error))}"
        return
    freezes = (options.registry_uri or "").startswith(_PREFIX) and settings.freeze is not FreezeMode.OFF
    if freezes:
        yield from _outside_the_store(options, settings)
        yield from _two_databases(options)
    if freezes or MFS in {scheme_of(options.destination or ""), scheme_of(options.artifact_root)}:
        yield from _unwritable(settings)


def _outside_the_store(options: ServerOptions, settings: Settings) -> Iterator[str]:
    """Yield a problem if the server cannot freeze versions, because artifacts are not in the store."""
    root, destination = options.artifact_root, options.destination
    is_default = root == DEFAULT_LOCAL_ROOT and options.backend_uri.startswith(_PREFIX)  # MLFLOW_IPFS_ROOT is used
    if destination is not None and MFS not in {scheme_of(destination), scheme_of(root)}:
        option, found = "--artifacts-destination", destination
    elif not is_default and scheme_of(root) not in {MFS, PROXIED} and not root.startswith(settings.import_allow):
        option, found = "--default-artifact-root", root
    else:
        return
    yield (
        f"model versions cannot be registered: the registry freezes versions, but {option} is {hide_secrets(found)}, "
        f"which is not in a store of mlflow-ipfs; start the server with {option} mfs://mlflow"
    )


def _two_databases(options: ServerOptions) -> Iterator[str]:
    """Yield a problem if runs and model versions are recorded in two databases."""
    backend, registry = options.backend_uri, options.registry_uri or ""
    if scheme_of(backend) in {"", "file"} or _identity(backend) != _identity(registry):
        yield (
            f"runs are recorded in {_shown(backend)}, and model versions in another database, {_shown(registry)}: "
            "`mlflow-ipfs backup`, `databases fork` and `doctor` handle one database, and files of runs that a copied "
            "database needs are not protected; give --registry-store-uri the database of --backend-store-uri"
        )


def _identity(uri: str) -> tuple[str, ...]:
    """Return what two URIs of one database have in common, whatever their drivers, users and options are."""
    import sqlalchemy  # noqa: PLC0415 - only a server's parent process needs it here

    try:
        url = sqlalchemy.make_url(uri.removeprefix(_PREFIX))
        kind = url.get_backend_name()
    except (sqlalchemy.exc.ArgumentError, ValueError):
        return (uri,)
    if kind == "sqlite":
        return kind, str(Path(url.database or "").absolute().resolve())
    host = (url.host or "").lower()
    return kind, "" if host in _LOCAL_HOSTS else host, str(url.port or _POSTGRESQL_PORT), url.database or ""


def _shown(uri: str) -> str:
    return hide_secrets(uri.removeprefix(_PREFIX))


def _unwritable(settings: Settings) -> Iterator[str]:
    try:
        check_writable(replace(settings, timeout_seconds=min(settings.timeout_seconds, _LOCK_SECONDS)))
    except StoreBusyError:
        return
    except (MlflowIpfsError, OSError) as error:
        yield f"artifacts cannot be stored in {settings.store}: {error}"


def _configure_logging() -> None:
    """Show time and level of this package's log lines, unless a configuration of the operator handles them.

    MLflow configures its own loggers only, and uvicorn those of uvicorn.
    """
    logger = logging.getLogger(_PACKAGE)
    if logger.handlers or logging.getLogger().handlers:
        return
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter(_FORMAT, _TIME_FORMAT))
    logger.addHandler(handler)
    logger.propagate = False


class _Formatter(logging.Formatter):
    """The format of MLflow's log lines. Secrets of URIs are hidden, also in tracebacks."""

    def format(self, record: logging.LogRecord) -> str:
        return hide_secrets(super().format(record))
