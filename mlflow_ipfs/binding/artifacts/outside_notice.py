"""The notice about artifacts outside the store: for operators who start a server, and for users who train without one."""

from __future__ import annotations

import logging
import os
import shlex
import threading
from collections import Counter
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from mlflow_ipfs.binding import mlflow_process
from mlflow_ipfs.binding.artifacts.outside_artifacts import OutsideArtifact, SearchLimit, iterate_outside_artifacts
from mlflow_ipfs.binding.databases.connections import shown_uri
from mlflow_ipfs.binding.locations import MFS, PROXIED, scheme_of
from mlflow_ipfs.config import Settings
from mlflow_ipfs.content.storage.memory import MemoryStorage
from mlflow_ipfs.content.store import ContentStore
from mlflow_ipfs.opening import open_store

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sqlalchemy import URL

_logger = logging.getLogger(__name__)

MAX_ROWS: Final = 100_000  # of the database, that one check reads; about two seconds
MAX_SECONDS: Final = 60.0  # a disk of the network may need minutes to say which directories have files

_checked: set[str] = set()  # databases that this process has checked or is checking
_warned_of_experiment = False
_lock = threading.Lock()


def describe_outside(artifacts: Iterable[OutsideArtifact], database: URL, limit: SearchLimit) -> str | None:
    """Return one line with the number of artifacts outside the store, and the command that takes them in.

    Args:
        artifacts: the result of ``iterate_outside_artifacts``, with this limit.
        database: the database. Its password is not shown.
        limit: the limit of the search.

    Returns:
        The line; None if no artifacts are outside the store.
    """
    kinds = Counter(found.row.kind for found in artifacts if found.row.kind != "experiment")
    if not kinds:
        return None
    counts = [f"{count:,} {kind if count == 1 else f'{kind}s'}" for kind, count in kinds.items()]
    text = f"{', '.join(counts[:-1])} and {counts[-1]}" if len(counts) > 1 else counts[0]
    at_least = "at least " if limit.reached else ""
    return f"the artifacts of {at_least}{text} are outside the store; to see how to take them in: {adopt_command(database)}"


def adopt_command(database: URL) -> str:
    """Return the command that takes the artifacts of a database in, as a dry run and without the password."""
    return f"mlflow-ipfs adopt --backend-store-uri {shlex.quote(shown_uri(database))} --dry-run"


def notify_operator(database: URL) -> None:
    """If this process runs ``mlflow server`` or ``mlflow ui``, log one line about artifacts outside the store.

    Only the process of the command checks the database, once and on a thread; the server's workers are other processes.
    """
    options = mlflow_process.server_command_options()
    key = database.render_as_string(hide_password=True)
    with _lock:
        if options is None or key in _checked:
            return
        _checked.add(key)
    destination = options.get("artifacts_destination")
    environ = os.environ | ({"MLFLOW_ARTIFACTS_DESTINATION": str(destination)} if destination else {})
    threading.Thread(target=_check, args=(database, environ), name="mlflow-ipfs-outside", daemon=True).start()


def _check(database: URL, environ: Mapping[str, str]) -> None:
    limit = SearchLimit(MAX_ROWS, MAX_SECONDS)
    try:
        with _open_for_reading() as store:
            found = iterate_outside_artifacts(database, store, environ=environ, limit=limit)
            line = describe_outside(found, database, limit)
    except Exception as error:  # noqa: BLE001 - the check must not harm the server, whatever it meets
        _logger.debug("the artifacts outside the store could not be counted: %s", error)
        return
    if line is not None:
        _logger.warning("%s", line)


def _open_for_reading() -> ContentStore:
    settings = Settings.from_environment()
    if settings.store.exists():
        return open_store(settings, create=False)
    return ContentStore(MemoryStorage())  # the store is created by the first upload


def warn_of_experiment(run_id: str, artifact_uri: str, database: URL) -> None:
    """Warn once per process if the artifacts of a new run are stored outside the store.

    Args:
        run_id: the run.
        artifact_uri: its artifact location.
        database: the database of the run.
    """
    global _warned_of_experiment  # noqa: PLW0603 - once per process
    if scheme_of(artifact_uri) in {MFS, PROXIED} or _warned_of_experiment:
        return
    _warned_of_experiment = True
    place = artifact_uri.removesuffix("/artifacts").removesuffix(f"/{run_id}")
    split = urlsplit(place)
    shown = split._replace(netloc=split.netloc.rpartition("@")[2], query="").geturl() if split.netloc else place
    _logger.warning(
        "the artifacts of this run's experiment go to %s, not into the store, and have no CID; to see how to take the "
        "experiment in: %s",
        shown,
        adopt_command(database),
    )
