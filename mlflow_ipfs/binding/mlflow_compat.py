"""Every import from MLflow's private modules, in one place.

MLflow promises to keep ``mlflow.*``, ``mlflow.entities``, ``mlflow.exceptions`` and
``mlflow.store.artifact.artifact_repo``. What is here may change with any release of it: a new
MLflow means reading this file, and no other. Imports are inside functions, because MLflow loads
our doors while it is itself being imported; the classes that ours derive from come by name:
``mlflow_compat.SqlRegistryStore``, ``.SqlTrackingStore``, ``.SqlModelVersion``, ``.SqlDataset``, ``.SqlRun``.
"""

# ruff: noqa: PLC0415

from __future__ import annotations

import importlib
import os
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from mlflow_ipfs.content.system.locking import locked_foreign_file
from mlflow_ipfs.errors import MlflowIpfsError, PolicyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from mlflow.entities import LoggedModel, Run
    from mlflow.store.model_registry.dbmodels.models import SqlModelVersion as SqlModelVersion  # noqa: PLC0414
    from mlflow.store.tracking.dbmodels.models import SqlDataset as SqlDataset  # noqa: PLC0414
    from mlflow.store.tracking.dbmodels.models import SqlRun as SqlRun  # noqa: PLC0414

# Copies of mlflow.server.constants: importing that module would load Flask into every client.
# tests/mlflow_ipfs/binding/test_mlflow_compat.py holds them equal.
SERVER_BACKEND_STORE: Final = "_MLFLOW_SERVER_FILE_STORE"
SERVER_ARTIFACT_ROOT: Final = "_MLFLOW_SERVER_ARTIFACT_ROOT"
SERVER_ARTIFACTS_DESTINATION: Final = "_MLFLOW_SERVER_ARTIFACT_DESTINATION"
SERVER_SERVES_ARTIFACTS: Final = "_MLFLOW_SERVER_SERVE_ARTIFACTS"
READ_REPLICA: Final = "_MLFLOW_SERVER_READ_REPLICA_BACKEND_STORE"

DEFAULT_LOCAL_ROOT: Final = "./mlruns"  # what MLflow takes when nobody named an artifact root
MAX_LOCATION_LENGTH: Final = 500  # width of the column model_versions.storage_location
_TABLES_SECONDS: Final = 120.0  # for another process that makes or upgrades MLflow's tables
PROMPT_TAG: Final = "mlflow.prompt.is_prompt"
PROMPT_SOURCES: Final = frozenset({"dummy-source", "prompt-template"})  # what MLflow writes as a prompt's source

_CLASSES: Final = {
    "SqlDataset": ("mlflow.store.tracking.dbmodels.models", "SqlDataset"),
    "SqlModelVersion": ("mlflow.store.model_registry.dbmodels.models", "SqlModelVersion"),
    "SqlRun": ("mlflow.store.tracking.dbmodels.models", "SqlRun"),
    "SqlRegistryStore": ("mlflow.store.model_registry.sqlalchemy_store", "SqlAlchemyStore"),
    "SqlTrackingStore": ("mlflow.store.tracking.sqlalchemy_store", "SqlAlchemyStore"),
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any of the classes
    if name not in _CLASSES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    module, class_name = _CLASSES[name]
    return getattr(importlib.import_module(module), class_name)


@dataclass(frozen=True, slots=True)
class Server:
    """The ``mlflow server`` that this process is a worker of.

    Attributes:
        destination: its ``--artifacts-destination``, if it serves artifacts; else None.
        host: what stands for itself in ``mlflow-artifacts://<host>/…``; empty if it doesn't name itself.
    """

    destination: str | None
    host: str = ""

    @classmethod
    def current(cls, environ: Mapping[str, str] | None = None) -> Server | None:
        """The server around this process, or None in a client."""
        environ = os.environ if environ is None else environ
        if SERVER_BACKEND_STORE not in environ:
            return None
        serves = environ.get(SERVER_SERVES_ARTIFACTS) == "true"
        root = urlsplit(environ.get(SERVER_ARTIFACT_ROOT, ""))
        host = root.netloc if root.scheme == "mlflow-artifacts" else ""
        return cls(environ.get(SERVER_ARTIFACTS_DESTINATION) if serves else None, host)


def workspaces_enabled() -> bool:
    """Whether MLflow's multi-tenant workspaces are switched on."""
    from mlflow.environment_variables import MLFLOW_ENABLE_WORKSPACES

    return bool(MLFLOW_ENABLE_WORKSPACES.get())


def prepare_database(database_uri: str) -> None:
    """Make MLflow's tables, once, however many processes start at the same time, and of whichever users.

    Raises:
        PolicyError: this user may not use the lock file that MLflow keeps in the temporary directory.
        StoreBusyError: another process held that lock for too long.
    """
    from mlflow.store.db.utils import _all_tables_exist, _initialize_tables, _safe_initialize_tables
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    engine = SqlAlchemyStore._get_or_create_engine(database_uri)  # noqa: SLF001
    try:
        _safe_initialize_tables(engine)
    except PermissionError as error:
        with _lock_of_another_user(error):
            if not _all_tables_exist(engine):
                _initialize_tables(engine)


@contextmanager
def _lock_of_another_user(error: PermissionError) -> Iterator[None]:
    """Hold the lock file that MLflow could not open: it opens it for writing, which only the user who made it may do.

    A lock needs no right to write. The file stays MLflow's own, so that this excludes MLflow's processes too.
    """
    path = Path(str(error.filename))
    try:
        with locked_foreign_file(path, "makes MLflow's tables and holds", timeout_seconds=_TABLES_SECONDS):
            yield
    except PermissionError as refusal:
        if isinstance(refusal, MlflowIpfsError) or refusal.filename != str(path):
            raise
        msg = (
            f"MLflow's lock {path} belongs to another user, and this one may not read it: remove it while no MLflow of that "
            "user is starting, or set TMPDIR to a directory of this user"
        )
        raise PolicyError(msg) from refusal


def model_name_and_version(model_uri: str) -> tuple[str | None, str | None, str | None]:
    """Take a ``models:/…`` URI apart into name, version and model id; what it lacks is None.

    Raises:
        MlflowException: it is none; a status that no client retries.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.store.artifact.utils.models import _parse_model_uri

    try:
        parsed = _parse_model_uri(model_uri)
    except MlflowException as error:  # its own code is the one of a server's fault
        raise MlflowException.invalid_parameter_value(error.message) from error
    return parsed.name, parsed.version, parsed.model_id


def get_run(run_id: str) -> Run:
    """Read a run from the tracking store that MLflow uses in this process."""
    from mlflow import MlflowClient

    return MlflowClient().get_run(run_id)


def get_logged_model(model_id: str) -> LoggedModel:
    """Read a logged model from the tracking store that MLflow uses in this process."""
    from mlflow import MlflowClient

    return MlflowClient().get_logged_model(model_id)


def find_logged_model(run: Run, name: str) -> LoggedModel | None:
    """The newest logged model of a run with that name, as ``runs:/<run id>/<name>`` means it."""
    from mlflow import MlflowClient

    if "'" in name:  # a logged model can't have that in its name, and the filter no way to write it
        return None
    mine = f"name = '{name}' AND source_run_id = '{run.info.run_id}'"
    found = MlflowClient().search_logged_models([run.info.experiment_id], filter_string=mine, max_results=1)
    return found[0] if found else None


def download_foreign(uri: str, directory: str) -> str:
    """Download an artifact of any kind that MLflow knows. Returns where it lies."""
    from mlflow.artifacts import download_artifacts

    return str(download_artifacts(artifact_uri=uri, dst_path=directory))


def in_mlflow_command() -> bool:
    """Whether the ``mlflow`` command runs in this process: what it downloads must outlive it."""
    command_line = sys.modules.get("mlflow.cli")
    if command_line is None:
        return False
    import click

    context = click.get_current_context(silent=True)
    return context is not None and context.find_root().command is command_line.cli


def make_temporary_directory() -> str:
    """A directory where MLflow puts downloads. Nobody removes it (MLflow issue #12140)."""
    from mlflow.utils.file_utils import create_tmp_dir

    return str(create_tmp_dir())


def read_replica_uri() -> str | None:
    """The read replica of the server's database, as ``mlflow server`` passes it on."""
    return os.environ.get(READ_REPLICA)


def server_backend_uri() -> str | None:
    """Return the database of the ``mlflow server`` that this process is a worker of; None in a client."""
    return os.environ.get(SERVER_BACKEND_STORE)


def deleted_stage() -> str:
    """The stage that marks a model version as deleted; its row stays."""
    from mlflow.entities.model_registry.model_version_stages import STAGE_DELETED_INTERNAL

    return str(STAGE_DELETED_INTERNAL)


@contextmanager
def show_progress(description: str, size_bytes: int) -> Iterator[Callable[[int], None] | None]:
    """MLflow's own progress bar for one transfer.

    Args:
        description: what stands before the bar.
        size_bytes: of the whole transfer. MLflow shows no bar below 500 MB.

    Yields:
        What to call with the number of bytes just moved; None if no bar is shown.
    """
    from mlflow.utils.file_utils import ArtifactProgressBar

    with ArtifactProgressBar.chunks(size_bytes, description, 1) as bar:
        yield bar.pbar.update if bar.pbar is not None else None


def is_shown_in_browser(path: str) -> bool:
    """Whether MLflow's server gives a file of that name another content type than plain bytes."""
    from mlflow.utils.mime_type_utils import _guess_mime_type

    return bool(_guess_mime_type(path) != "application/octet-stream")


def prepare_client(tracking_uri: str | None) -> None:
    """Make MLflow's client ready for one question of the command line.

    Args:
        tracking_uri: whom to ask; None: as the environment says.
    """
    import logging

    import mlflow
    from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_MAX_RETRIES

    for name in ("mlflow", "alembic", "urllib3"):  # "INFO: Creating tables" is no answer to the question
        logging.getLogger(name).setLevel(logging.ERROR)
    if not MLFLOW_HTTP_REQUEST_MAX_RETRIES.is_set():
        MLFLOW_HTTP_REQUEST_MAX_RETRIES.set(2)  # MLflow's own default waits four minutes for a server that is away
    if tracking_uri:
        mlflow.set_tracking_uri(tracking_uri)


def model_location(models_uri: str) -> tuple[str, str]:
    """Where MLflow keeps what ``models:/…`` names (a version, an alias, a logged model), and the path below it."""
    from mlflow.store.artifact.models_artifact_repo import ModelsArtifactRepository

    root, path = ModelsArtifactRepository.split_models_uri(models_uri)
    return str(ModelsArtifactRepository.get_underlying_uri(root)), str(path)
