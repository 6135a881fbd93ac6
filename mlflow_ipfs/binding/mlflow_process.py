"""What this process is in MLflow: a worker of ``mlflow server``, the ``mlflow`` command, or a client.

MLflow tells it by private environment variables and by the context of its command, which may change with any release.
"""

# ruff: noqa: PLC0415 - MLflow and click load slowly

from __future__ import annotations

import multiprocessing
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

    import click

# Copies of mlflow.server.constants: importing that module would load Flask into every client.
# tests/mlflow_ipfs/binding/test_mlflow_compat.py checks that they are equal.
SERVER_BACKEND_STORE: Final = "_MLFLOW_SERVER_FILE_STORE"
SERVER_ARTIFACT_ROOT: Final = "_MLFLOW_SERVER_ARTIFACT_ROOT"
SERVER_ARTIFACTS_DESTINATION: Final = "_MLFLOW_SERVER_ARTIFACT_DESTINATION"
SERVER_SERVES_ARTIFACTS: Final = "_MLFLOW_SERVER_SERVE_ARTIFACTS"
SERVER_REGISTRY_STORE: Final = "_MLFLOW_SERVER_REGISTRY_STORE"
SERVER_ARTIFACTS_ONLY: Final = "_MLFLOW_SERVER_ARTIFACTS_ONLY"
READ_REPLICA: Final = "_MLFLOW_SERVER_READ_REPLICA_BACKEND_STORE"
DEFAULT_LOCAL_ROOT: Final = "./mlruns"  # MLflow's default for an artifact root that is not set


@dataclass(frozen=True, slots=True)
class Server:
    """The ``mlflow server`` that this process is a worker of.

    Attributes:
        destination: the server's ``--artifacts-destination``; None if the server does not serve artifacts.
        host: the host in the ``mlflow-artifacts://<host>/…`` locations that the server writes; ``""`` if it writes none.
    """

    destination: str | None
    host: str = ""

    @classmethod
    def current(cls, environ: Mapping[str, str] | None = None) -> Server | None:
        """Return the server that this process is a worker of; None in a client."""
        environ = os.environ if environ is None else environ
        if SERVER_BACKEND_STORE not in environ:
            return None
        serves = environ.get(SERVER_SERVES_ARTIFACTS) == "true"
        root = urlsplit(environ.get(SERVER_ARTIFACT_ROOT, ""))
        host = root.netloc if root.scheme == "mlflow-artifacts" else ""
        return cls(environ.get(SERVER_ARTIFACTS_DESTINATION) if serves else None, host)


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """The options of the ``mlflow server`` that this process is a worker of.

    Attributes:
        backend_uri: ``--backend-store-uri``.
        registry_uri: ``--registry-store-uri``; None if the server has no model registry.
        artifact_root: the artifact root of new experiments, from ``--default-artifact-root`` or MLflow's default.
        destination: ``--artifacts-destination``; None if the server does not serve artifacts.
    """

    backend_uri: str
    registry_uri: str | None
    artifact_root: str
    destination: str | None

    @classmethod
    def current(cls, environ: Mapping[str, str] | None = None) -> ServerOptions | None:
        """Return the options of the server that this process is a worker of; None in a client."""
        environ = os.environ if environ is None else environ
        server = Server.current(environ)
        if server is None:
            return None
        backend = environ[SERVER_BACKEND_STORE]
        registry = environ.get(SERVER_REGISTRY_STORE) or backend
        has_registry = environ.get(SERVER_ARTIFACTS_ONLY) != "true"
        root = environ.get(SERVER_ARTIFACT_ROOT) or DEFAULT_LOCAL_ROOT
        return cls(backend, registry if has_registry else None, root, server.destination)


def is_first_worker() -> bool:
    """Return True in one worker of a starting server, for work to do once.

    uvicorn numbers its workers. A replacement of a worker has a new number. Processes of MLflow's job runner inherit the
    server's environment but are no workers. Each of gunicorn's workers counts as the first one.
    """
    program = sys.argv[0] if sys.argv else ""
    is_worker = any(name in program for name in ("uvicorn", "gunicorn", "waitress"))
    return is_worker and multiprocessing.current_process().name in {"MainProcess", "SpawnProcess-1"}


def in_mlflow_command() -> bool:
    """Return True if this process runs the ``mlflow`` command: its downloads must remain after the process ends."""
    return _mlflow_command() is not None


def server_command_options() -> Mapping[str, Any] | None:
    """Return the options of ``mlflow server`` or ``mlflow ui`` if this process runs that command, else None.

    The command opens the stores once before it starts its workers, which are separate processes.
    """
    context = _mlflow_command()
    return context.params if context is not None and context.command.name in {"server", "ui"} else None


def _mlflow_command() -> click.Context | None:
    """Return the context of the ``mlflow`` command that this process runs, if any."""
    command_line = sys.modules.get("mlflow.cli")
    if command_line is None:
        return None
    import click

    context = click.get_current_context(silent=True)
    return context if context is not None and context.find_root().command is command_line.cli else None


def read_replica_uri() -> str | None:
    """Return the read replica of the server's database, as ``mlflow server`` passes it to its workers; None if unset."""
    return os.environ.get(READ_REPLICA)


def server_backend_uri() -> str | None:
    """Return the database of the ``mlflow server`` that this process is a worker of; None in a client."""
    return os.environ.get(SERVER_BACKEND_STORE)


def find_backend_uri(tracking_uri: str | None) -> str | None:
    """Return the database behind this process: that of its server, of its ``mlflow`` command, or of its tracking URI."""
    if (uri := server_backend_uri()) is not None:
        return uri
    if in_mlflow_command():
        import click

        named = click.get_current_context().params.get("backend_store_uri")
        if named:
            return str(named)
    if tracking_uri:
        return tracking_uri
    import mlflow

    return str(mlflow.get_tracking_uri())
