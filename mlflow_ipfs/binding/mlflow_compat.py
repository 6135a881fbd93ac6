"""All uses of MLflow's private modules.

MLflow's public API is ``mlflow.*``, ``mlflow.entities``, ``mlflow.exceptions`` and
``mlflow.store.artifact.artifact_repo``. Everything else may change with any release of MLflow, and only this file has
to be checked then. Imports are inside functions, because MLflow loads the plugin modules while it is being imported
itself. Classes are attributes of this module that load on first access: ``mlflow_compat.SqlRegistryStore``,
``.SqlTrackingStore``, ``.SqlModelVersion``, ``.SqlModelVersionTag``, ``.SqlDataset`` and ``.SqlRun``.
"""

# ruff: noqa: PLC0415

from __future__ import annotations

import importlib
import os
import secrets
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from mlflow_ipfs.content.system.locking import locked_foreign_file
from mlflow_ipfs.errors import MlflowIpfsError, PolicyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run
    from mlflow.store.artifact.artifact_repo import ArtifactRepository
    from mlflow.store.model_registry.dbmodels.models import SqlModelVersion as SqlModelVersion  # noqa: PLC0414
    from mlflow.store.model_registry.dbmodels.models import SqlModelVersionTag as SqlModelVersionTag  # noqa: PLC0414
    from mlflow.store.tracking.dbmodels.models import SqlDataset as SqlDataset  # noqa: PLC0414
    from mlflow.store.tracking.dbmodels.models import SqlRun as SqlRun  # noqa: PLC0414
    from sqlalchemy import Connection, Engine


MAX_LOCATION_LENGTH: Final = 500  # width of the column model_versions.storage_location
_TABLES_SECONDS: Final = 120.0  # wait for another process that creates or upgrades MLflow's tables
EXPERIMENTS_TABLE: Final = "experiments"
MAX_RUNS_IN_BULK: Final = 100  # limits of the request below, in mlflow.server.handlers
MAX_POINTS_IN_BULK: Final = 25_000
_BULK_ENDPOINT: Final = "/ajax-api/2.0/mlflow/metrics/get-history-bulk"
PROMPT_TAG: Final = "mlflow.prompt.is_prompt"
PROMPT_SOURCES: Final = frozenset({"dummy-source", "prompt-template"})  # placeholders that MLflow writes as the source

_CLASSES: Final = {
    "SqlDataset": ("mlflow.store.tracking.dbmodels.models", "SqlDataset"),
    "SqlModelVersion": ("mlflow.store.model_registry.dbmodels.models", "SqlModelVersion"),
    "SqlModelVersionTag": ("mlflow.store.model_registry.dbmodels.models", "SqlModelVersionTag"),
    "SqlRun": ("mlflow.store.tracking.dbmodels.models", "SqlRun"),
    "SqlRegistryStore": ("mlflow.store.model_registry.sqlalchemy_store", "SqlAlchemyStore"),
    "SqlTrackingStore": ("mlflow.store.tracking.sqlalchemy_store", "SqlAlchemyStore"),
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any of the classes
    """Load one of MLflow's classes on first access."""
    if name not in _CLASSES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    module, class_name = _CLASSES[name]
    return getattr(importlib.import_module(module), class_name)


def workspaces_enabled() -> bool:
    """Return True if MLflow's multi-tenant workspaces are enabled."""
    from mlflow.environment_variables import MLFLOW_ENABLE_WORKSPACES

    return bool(MLFLOW_ENABLE_WORKSPACES.get())


def prepare_database(database_uri: str) -> None:
    """Create MLflow's tables if they are missing. Safe with concurrent processes of different users.

    Raises:
        PolicyError: this user may not read the lock file that MLflow keeps in the temporary directory.
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
    """Hold the lock file that MLflow could not open.

    MLflow opens the file for writing, which only the file's owner may do. A lock needs only the right to read. The
    same file is used, so the lock excludes MLflow's own processes too.
    """
    path = Path(str(error.filename))
    try:
        with locked_foreign_file(path, "makes MLflow's tables and holds", timeout_seconds=_TABLES_SECONDS):
            yield
    except PermissionError as refusal:
        if isinstance(refusal, MlflowIpfsError) or refusal.filename != str(path):
            raise
        msg = (
            f"MLflow's lock {path} belongs to another user and cannot be read. Remove it while no MLflow process of that "
            "user is starting, or set TMPDIR to a directory of the current user"
        )
        raise PolicyError(msg) from refusal


def model_name_and_version(model_uri: str) -> tuple[str | None, str | None, str | None]:
    """Split a ``models:/…`` URI into name, version and model id. A part that the URI does not have is None.

    Raises:
        MlflowException: the URI is malformed. Clients do not retry the exception's HTTP status.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.store.artifact.utils.models import _parse_model_uri

    try:
        parsed = _parse_model_uri(model_uri)
    except MlflowException as error:  # MLflow's error code here means an internal server error
        raise MlflowException.invalid_parameter_value(error.message) from error
    return parsed.name, parsed.version, parsed.model_id


def get_run(run_id: str, client: MlflowClient | None = None) -> Run:
    """Return a run, by default of the tracking store that MLflow uses in this process."""
    from mlflow import MlflowClient

    return (client or MlflowClient()).get_run(run_id)


def get_logged_model(model_id: str) -> LoggedModel:
    """Return a logged model of the tracking store that MLflow uses in this process."""
    from mlflow import MlflowClient

    return MlflowClient().get_logged_model(model_id)


def find_logged_model(run: Run, name: str, client: MlflowClient | None = None) -> LoggedModel | None:
    """Return the newest logged model of a run with a name, as ``runs:/<run id>/<name>`` means it; None if it is missing."""
    from mlflow import MlflowClient

    if "'" in name:  # not allowed in the name of a logged model, and the filter syntax has no escape for it
        return None
    condition = f"name = '{name}' AND source_run_id = '{run.info.run_id}'"
    client = client or MlflowClient()
    found = client.search_logged_models([run.info.experiment_id], filter_string=condition, max_results=1)
    return found[0] if found else None


def list_logged_models(run: Run, client: MlflowClient) -> list[LoggedModel]:
    """Return the logged models of a run, the newest first; of a run with very many models, the newest 100."""
    condition = f"source_run_id = '{run.info.run_id}'"
    return list(client.search_logged_models([run.info.experiment_id], filter_string=condition, max_results=100))


def download_foreign(uri: str, directory: str) -> str:
    """Download an artifact from any location that MLflow supports. Return its local path."""
    from mlflow.artifacts import download_artifacts

    return str(download_artifacts(artifact_uri=uri, dst_path=directory))


def make_temporary_directory() -> str:
    """Create a directory for downloads as MLflow does. The directory is never removed (MLflow issue #12140)."""
    from mlflow.utils.file_utils import create_tmp_dir

    return str(create_tmp_dir())


def current_tracking_uri() -> str:
    """Return the tracking URI that MLflow uses in this process."""
    from mlflow import get_tracking_uri

    return str(get_tracking_uri())


def proxied_repository(artifact_uri: str, tracking_uri: str | None, registry_uri: str | None) -> ArtifactRepository:
    """Return MLflow's own repository of ``mlflow-artifacts:`` locations, which sends requests to a server.

    Raises:
        MlflowException: the tracking URI does not name a server.
    """
    from mlflow.store.artifact.mlflow_artifacts_repo import MlflowArtifactsRepository

    return MlflowArtifactsRepository(artifact_uri, tracking_uri, registry_uri)


def deleted_stage() -> str:
    """Return the stage of a deleted model version, which still has a row in the database."""
    from mlflow.entities.model_registry.model_version_stages import STAGE_DELETED_INTERNAL

    return str(STAGE_DELETED_INTERNAL)


@contextmanager
def show_progress(description: str, size_bytes: int) -> Iterator[Callable[[int], None] | None]:
    """Show MLflow's progress bar during one transfer.

    Args:
        description: the text before the bar.
        size_bytes: size of the whole transfer. MLflow shows no bar below 500 MB.

    Yields:
        A function to call with the number of bytes just transferred; None if no bar is shown.
    """
    from mlflow.utils.file_utils import ArtifactProgressBar

    with ArtifactProgressBar.chunks(size_bytes, description, 1) as bar:
        yield bar.pbar.update if bar.pbar is not None else None


def is_shown_in_browser(path: str) -> bool:
    """Return True if MLflow's server sends a file of that name with another content type than plain bytes."""
    from mlflow.utils.mime_type_utils import _guess_mime_type

    return bool(_guess_mime_type(path) != "application/octet-stream")


def prepare_for_command() -> None:
    """Make MLflow's clients of this process suit the queries of a command: quiet, and without long retries."""
    import logging

    from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_MAX_RETRIES

    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"  # "View run" would be between the command's lines
    for name in ("mlflow", "alembic", "urllib3"):  # "INFO: Creating tables" would clutter the command's output
        logging.getLogger(name).setLevel(logging.ERROR)
    if not MLFLOW_HTTP_REQUEST_MAX_RETRIES.is_set():
        MLFLOW_HTTP_REQUEST_MAX_RETRIES.set(2)  # MLflow's default waits four minutes for an unreachable server


def read_histories_in_bulk(client: MlflowClient, run_ids: Sequence[str], key: str) -> list[dict[str, Any]] | None:
    """Return points of one metric of up to ``MAX_RUNS_IN_BULK`` runs, from MLflow's server.

    The server cuts its answer, without a note, at ``MAX_POINTS_IN_BULK`` points of all runs together. The points of a run
    follow each other. Each point has ``run_id``, ``key``, ``step``, ``timestamp`` and ``value``.

    Returns:
        The points; None if the store of the client is not a server, or its server does not have this request.

    Raises:
        MlflowException: the server refused the request, or cannot be reached.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.store.tracking.rest_store import RestStore
    from mlflow.utils.rest_utils import http_request, verify_rest_response

    store = client._tracking_client.store  # noqa: SLF001 - the client has no public one
    if not isinstance(store, RestStore):
        return None
    parameters = [("metric_key", key), ("max_results", str(MAX_POINTS_IN_BULK)), *(("run_id", one) for one in run_ids)]
    response = http_request(store.get_host_creds(), _BULK_ENDPOINT, "GET", params=parameters)
    if response.status_code == HTTPStatus.NOT_FOUND:
        return None
    try:
        return list(verify_rest_response(response, _BULK_ENDPOINT).json()["metrics"])
    except (ValueError, KeyError, TypeError) as error:  # an answer of something else than MLflow
        msg = f"the answer of {_BULK_ENDPOINT} cannot be read: {error!r}"
        raise MlflowException(msg) from error


def client_uris(tracking_uri: str | None) -> tuple[str, str, str]:
    """Return the tracking URI and the registry URI that MLflow's client would use, and the origin of the first one.

    Args:
        tracking_uri: the URI that the user named; None: the one that the environment sets, else MLflow's default.
    """
    import mlflow

    origin = "from --tracking-uri" if tracking_uri else "from MLFLOW_TRACKING_URI"
    if not tracking_uri and not mlflow.is_tracking_uri_set():
        origin = "MLflow's default, because MLFLOW_TRACKING_URI is not set"
    uri = tracking_uri or str(mlflow.get_tracking_uri())
    return uri, os.environ.get("MLFLOW_REGISTRY_URI") or uri, origin


def has_all_tables(engine: Engine) -> bool:
    """Return whether a database has every table of this MLflow. If not, MLflow would create and migrate tables."""
    from mlflow.store.db.utils import _all_tables_exist

    return bool(_all_tables_exist(engine))


def model_version_tags(client: MlflowClient, models_uri: str) -> dict[str, str]:
    """Return the tags of the model version that a ``models:/…`` URI names; empty for a logged model or a path below."""
    from mlflow.store.artifact.models_artifact_repo import ModelsArtifactRepository
    from mlflow.store.artifact.utils.models import get_model_name_and_version

    root, path = ModelsArtifactRepository.split_models_uri(models_uri)
    found = get_model_name_and_version(client, root)
    if path or len(found) == 1:
        return {}
    return dict(client.get_model_version(*found).tags)


def set_run_tag(run_id: str, key: str, value: str) -> None:
    """Set a tag of a run of the tracking store that MLflow uses in this process."""
    from mlflow import MlflowClient

    MlflowClient().set_tag(run_id, key, value)


def model_location(client: MlflowClient, models_uri: str) -> tuple[str, str, bool]:
    """Return MLflow's artifact location for a ``models:/…`` URI, and the path below the location.

    The URI may name a version, an alias or a logged model. The last value is True for a version or an alias.
    """
    from mlflow.store.artifact.models_artifact_repo import ModelsArtifactRepository
    from mlflow.store.artifact.utils.models import get_model_name_and_version

    root, path = ModelsArtifactRepository.split_models_uri(models_uri)
    found = get_model_name_and_version(client, root)
    if len(found) == 1:
        return str(client.get_logged_model(found[0]).artifact_location), str(path), False
    return str(client.get_model_version_download_uri(*found)), str(path), True


@contextmanager
def using_database(database_uri: str) -> Iterator[None]:
    """Let MLflow's client use a database as tracking server and model registry, for the duration of a ``with`` block."""
    import mlflow

    former = {name: os.environ.get(name) for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")}
    mlflow.set_tracking_uri(database_uri)
    mlflow.set_registry_uri(database_uri)
    try:
        yield
    finally:
        mlflow.set_registry_uri(None)  # type: ignore[arg-type] # None restores the default, but leaves the variable
        mlflow.set_tracking_uri(former["MLFLOW_TRACKING_URI"])  # type: ignore[arg-type]
        for name, value in former.items():
            os.environ.pop(name, None) if value is None else os.environ.__setitem__(name, value)


def open_artifact_repository(uri: str, tracking_uri: str | None = None) -> ArtifactRepository:
    """Return MLflow's artifact repository for any location that MLflow or an installed plugin supports.

    Args:
        uri: the location.
        tracking_uri: the server of a location ``mlflow-artifacts:/``; None: the one that MLflow uses in this process.
    """
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    return get_artifact_repository(uri, tracking_uri=tracking_uri)


@contextmanager
def hidden_progress_bars() -> Iterator[None]:
    """Let MLflow draw no progress bar for artifacts that any thread downloads in this block, unless the user set its variable."""
    from mlflow.environment_variables import MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR

    if MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR.is_set():
        yield
        return
    MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR.set("false")
    try:
        yield
    finally:
        MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR.unset()


def context_tags(tags: Mapping[str, str] | None) -> dict[str, str]:
    """Return tags for a new run, with those that ``mlflow.start_run`` sets: the user, the program and its commit."""
    from mlflow.tracking.context.registry import resolve_tags

    return {str(key): str(value) for key, value in resolve_tags(dict(tags or {})).items()}


def random_run_name() -> str:
    """Return a name as MLflow gives to runs, such as ``salty-crow-12``, without Python's global random generator.

    MLflow draws from that one. So all runs of a seeded program would have one name, and if a run is created on a thread, the
    training would go on with other numbers.
    """
    from mlflow.utils.name_utils import _GENERATOR_NOUNS, _GENERATOR_PREDICATES

    return f"{secrets.choice(_GENERATOR_PREDICATES)}-{secrets.choice(_GENERATOR_NOUNS)}-{secrets.randbelow(1000)}"


def compare_schema(connection: Connection) -> Literal["same", "older", "newer"]:
    """Compare the schema of a database with the one that this MLflow needs. The database is not changed."""
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError
    from mlflow.store.db.utils import _get_alembic_config

    scripts = ScriptDirectory.from_config(_get_alembic_config(""))
    current = MigrationContext.configure(connection).get_current_revision()
    if current in scripts.get_heads():
        return "same"
    try:
        known = current is None or scripts.get_revision(current) is not None
    except CommandError:
        known = False
    return "older" if known else "newer"


def autolog_options(*integrations: str) -> list[Mapping[str, Any]]:
    """Return the options of those integrations whose autolog runs the framework's call that is in progress.

    The list is empty outside of such a call, and in a call that autolog leaves out, for example because of ``exclusive``.
    """
    from mlflow.utils import autologging_utils
    from mlflow.utils.autologging_utils.safety import _AutologgingSessionManager

    session = _AutologgingSessionManager.active_session()
    if session is None or session.state == "failed":
        return []
    on = [name for name in integrations if not autologging_utils.autologging_is_disabled(name)]
    return [autologging_utils.AUTOLOGGING_INTEGRATIONS[name] for name in on]
