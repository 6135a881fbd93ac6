"""MLflow's SQL tracking store, extended so that experiments keep their artifacts in IPFS by default."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import sqlalchemy
from mlflow.entities import RunTag

from mlflow_ipfs.binding import mlflow_compat
from mlflow_ipfs.binding.artifacts.outside_notice import warn_of_experiment
from mlflow_ipfs.binding.client_locations import check_experiment_location
from mlflow_ipfs.binding.databases.sightings import observe
from mlflow_ipfs.binding.dataset_inputs import (
    DATASETS_TAG,
    check_sources,
    dataset_inputs_of,
    ipfs_datasets,
    run_tag,
)
from mlflow_ipfs.binding.mlflow_compat import SqlDataset, SqlRun, SqlTrackingStore
from mlflow_ipfs.binding.mlflow_errors import mlflow_errors
from mlflow_ipfs.binding.mlflow_process import Server
from mlflow_ipfs.binding.redaction import hide_secrets
from mlflow_ipfs.binding.registry_id import ensure_registry_id
from mlflow_ipfs.config import Settings
from mlflow_ipfs.opening import open_store

if TYPE_CHECKING:
    from mlflow.entities import Dataset, DatasetInput, ExperimentTag, LoggedModelInput, Run

    from mlflow_ipfs.content.mfs import MfsPath

_logger = logging.getLogger(__name__)


class ContentTrackingStore(SqlTrackingStore):  # type: ignore[misc] # MLflow's class is not typed
    """The tracking store of ``ipfs+sqlite://`` and ``ipfs+postgresql://``.

    Args:
        database_uri: MLflow's own URI of the database, ``sqlite:///…``.
        artifact_root: the artifact root of experiments, as the user set it; None if it is not set.
        default_root: the artifact root if ``artifact_root`` is None; the registry id is appended to it.
        read_database_uri: the database's read replica, if any.
    """

    registry_id: str

    def __init__(
        self,
        database_uri: str,
        artifact_root: str | None,
        *,
        default_root: MfsPath,
        read_database_uri: str | None = None,
    ) -> None:
        self._default_root = default_root
        self._root_is_default = artifact_root is None
        mlflow_compat.prepare_database(database_uri)
        super().__init__(database_uri, artifact_root or str(default_root), read_db_uri=read_database_uri)

    def _initialize_store_state(self) -> None:
        """Set the artifact root. MLflow calls this hook after it creates the tables and before experiment 0."""
        self.registry_id = ensure_registry_id(self.engine)
        self._record_location()
        if self._root_is_default:
            self.artifact_root_uri = str(self._default_root.join(self.registry_id))
        super()._initialize_store_state()

    def _record_location(self) -> None:
        """Record the database's location in the store. Log a failure, because runs can be read without the store.

        The store is created if it does not exist: a copy of the database that is opened before the store exists could
        not be told from the original afterwards.
        """
        try:
            with open_store(Settings.from_environment()) as store:
                sighting = observe(store.storage, self.registry_id, self.engine)
        except Exception as error:  # noqa: BLE001 - no failure of the store may stop the tracking store
            reason = hide_secrets(str(error))
            _logger.warning("the store could not record the location of the MLflow database: %s", reason)
            return
        if sighting.is_shared:
            _logger.warning("%s", sighting.explain())

    def create_experiment(
        self, name: str, artifact_location: str | None = None, tags: list[ExperimentTag] | None = None
    ) -> str:
        """Create an experiment.

        In a server, a client may not choose an ``mfs://`` or ``ipfs://`` location.

        Raises:
            MlflowException: a client of a server named such a location.
        """
        check_experiment_location(name, artifact_location)
        return str(super().create_experiment(name, artifact_location, tags))

    def create_run(
        self, experiment_id: str, user_id: str, start_time: int, tags: list[RunTag], run_name: str | None
    ) -> Run:
        """Create a run. Warn once per process if its experiment's artifacts are outside the store."""
        run: Run = super().create_run(experiment_id, user_id, start_time, tags, run_name)
        if Server.current() is None:
            warn_of_experiment(run.info.run_id, run.info.artifact_uri, self.engine.url)
        return run

    def log_inputs(
        self,
        run_id: str,
        datasets: list[DatasetInput] | None = None,
        models: list[LoggedModelInput] | None = None,
    ) -> None:
        """Log inputs to a run, and tag the run with the CIDs of its datasets.

        Raises:
            MlflowException: a dataset names a CID, and MLflow would keep the source already recorded for that name and
                digest.
        """
        given = [item.dataset for item in datasets or ()]
        with mlflow_errors():
            check_sources(given, self._recorded_sources(run_id, ipfs_datasets(given)))
        super().log_inputs(run_id, datasets, models)
        if ipfs_datasets(given):
            value = run_tag(dataset_inputs_of(self.get_run(run_id)))
            if value is not None:
                self.set_tag(run_id, RunTag(DATASETS_TAG, value))

    def _recorded_sources(self, run_id: str, datasets: list[Dataset]) -> dict[tuple[str, str], str]:
        """Return the recorded sources of a run's experiment for the names and digests of datasets."""
        if not datasets:
            return {}
        columns: tuple[Any, ...] = SqlDataset.name, SqlDataset.digest, SqlDataset.dataset_source
        query = (
            sqlalchemy.select(*columns)
            .join(SqlRun, SqlRun.experiment_id == SqlDataset.experiment_id)
            .where(SqlRun.run_uuid == run_id)
            .where(SqlDataset.name.in_([dataset.name for dataset in datasets]))
            .where(SqlDataset.digest.in_([dataset.digest for dataset in datasets]))
        )
        with self.ManagedSessionMaker() as session:
            return {(row.name, row.digest): row.dataset_source for row in session.execute(query)}
