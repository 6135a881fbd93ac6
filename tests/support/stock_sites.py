"""MLflow without this package, to be adopted: MLflow's own stores, with runs, logged models, traces and versions."""

from __future__ import annotations

import sqlite3
import tempfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import sqlalchemy
from mlflow import MlflowClient
from mlflow.entities import TraceInfo, TraceLocation, TraceState
from mlflow.entities.logged_model_status import LoggedModelStatus

from mlflow_ipfs.binding import mlflow_compat
from mlflow_ipfs.binding.databases.artifact_locations import read_locations
from mlflow_ipfs.binding.databases.connections import opened_database
from mlflow_ipfs.binding.databases.drivers import name_driver
from mlflow_ipfs.content.mfs import MutableFiles

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest
    from mlflow.entities import Run

ODD_NAMES = ("a dir/b c.txt", "100%.txt", "%20.txt", "ünï/çödé.txt", ".hidden/.file", "a?b#c.txt", "plus+&=.txt")


@dataclass
class StockSite:
    """A database file of stock MLflow with plain files in ``mlruns`` beside it.

    Attributes:
        directory: the directory of both.
    """

    directory: Path

    @property
    def database(self) -> Path:
        return self.directory / "mlflow.db"

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.database}"

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)

    def add_run(self, files: dict[str, str] | None = None, *, experiment: str = "0", status: str = "FINISHED") -> Run:
        """Log files to a new run."""
        run = self.client.create_run(experiment)
        for path, text in (files or {}).items():
            write(artifacts_of(run) / path, text)
        if status != "RUNNING":
            self.client.set_terminated(run.info.run_id, status)
        return self.client.get_run(run.info.run_id)

    def add_model(self, run: Run, weights: str = "one") -> Any:
        """Log a model to a run."""
        model = self.client.create_logged_model(run.info.experiment_id, name="net", source_run_id=run.info.run_id)
        write(Path(model.artifact_location, "MLmodel"), "flavors: {}\n")
        write(Path(model.artifact_location, "weights.bin"), weights)
        return self.client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)

    def add_version(self, name: str, source: str, run_id: str | None = None, model_id: str | None = None) -> str:
        """Register a version. Return ``<name>/<version>``."""
        if name not in {model.name for model in self.client.search_registered_models()}:
            self.client.create_registered_model(name)
        with mlflow_compat.using_database(self.uri):
            version = self.client.create_model_version(name, source, run_id, model_id=model_id)
        return f"{name}/{version.version}"

    def fill(self) -> None:
        """Make what a user of MLflow has after some weeks."""
        experiment = self.client.create_experiment("digits")
        run = self.add_run({name: f"content of {name}" for name in ODD_NAMES}, experiment=experiment)
        model = self.add_model(run)
        self.add_version("net", f"models:/{model.model_id}", run.info.run_id, model.model_id)
        second = self.add_run({"model/MLmodel": "flavors: {}\n", "model/weights.bin": "two"}, experiment=experiment)
        self.add_version("net", f"runs:/{second.info.run_id}/model", second.info.run_id)
        self.add_version("net", f"{second.info.artifact_uri}/model")
        self.client.set_registered_model_alias("net", "champion", "2")
        self.add_run(experiment=experiment)  # a run with metrics only
        self.add_run({"loss.txt": "0.5"}, status="FAILED")
        self.add_trace(experiment)

    def add_trace(self, experiment: str) -> None:
        """Make a trace as MLflow 3.5 did, with its spans in a file."""
        trace = TraceInfo(f"tr-{uuid4().hex}", TraceLocation.from_experiment_id(experiment), 0, TraceState.OK)
        self.client._tracking_client.store.start_trace(trace)
        [(uri,)] = self.query(
            "SELECT value FROM trace_tags WHERE key = 'mlflow.artifactLocation' AND request_id = ?", trace.trace_id
        )
        write(Path(uri, "traces.json"), '{"spans": []}')

    def move_behind_a_server(self) -> None:
        """Make the site what a stock server would have: the same files in ``mlartifacts``, by proxied locations."""
        self.directory.joinpath("mlruns").rename(self.directory / "mlartifacts")
        columns = (
            ("experiments", "artifact_location"),
            ("runs", "artifact_uri"),
            ("logged_models", "artifact_location"),
            ("trace_tags", "value"),
            ("model_versions", "source"),
            ("model_versions", "storage_location"),
        )
        for table, column in columns:
            self.query(
                f"UPDATE {table} SET {column} = replace({column}, ?, 'mlflow-artifacts:')", f"{self.directory}/mlruns"
            )

    def query(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run one statement on the database."""
        with closing(sqlite3.connect(self.database)) as connection, connection:
            return connection.execute(statement, values).fetchall()


def artifacts_of(run: Run) -> Path:
    return Path(run.info.artifact_uri)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def after_each_import(monkeypatch: pytest.MonkeyPatch, action: Callable[[], object]) -> None:
    """Do something whenever files were published, before they are compared."""
    _around_each_import(monkeypatch, after=action)


def before_each_import(monkeypatch: pytest.MonkeyPatch, action: Callable[[], object]) -> None:
    """Do something whenever files are about to be published."""
    _around_each_import(monkeypatch, before=action)


def _around_each_import(
    monkeypatch: pytest.MonkeyPatch,
    *,
    before: Callable[[], object] = lambda: None,
    after: Callable[[], object] = lambda: None,
) -> None:
    stock = MutableFiles.put_files

    def put_files(self: MutableFiles, sources: Any, **options: Any) -> Any:
        before()
        done = stock(self, sources, **options)
        after()
        return done

    monkeypatch.setattr(MutableFiles, "put_files", put_files)


def read_site(uri: str, tracking_uri: str | None = None) -> dict[str, dict[str, bytes]]:
    """Return every file that a database names, by the run, logged model, trace or version, as MLflow reads it.

    Args:
        uri: the database.
        tracking_uri: the tracking server to read through; the default is the database.
    """
    found = {}
    with mlflow_compat.using_database(tracking_uri or uri):
        with opened_database(sqlalchemy.make_url(name_driver(uri.removeprefix("ipfs+")))) as connection:
            locations = list(read_locations(connection))
        for one in locations:
            if one.table == "model_versions" and one.column == "storage_location":
                name, version = one.key
                location = MlflowClient().get_model_version_download_uri(str(name), str(version))
                if location not in mlflow_compat.PROMPT_SOURCES:
                    found[f"{name}/{version}"] = read_location(location)
            elif one.table in {"runs", "logged_models", "trace_tags"}:
                found[str(one.key[0])] = read_location(one.uri)
    return found


def read_location(uri: str) -> dict[str, bytes]:
    if Path(uri).is_dir():
        return read_directory(Path(uri))  # MLflow does not download every name from a directory
    repository = mlflow_compat.open_artifact_repository(uri)
    if not repository.list_artifacts():
        return {}
    with tempfile.TemporaryDirectory() as directory:
        return read_directory(Path(repository.download_artifacts("", directory)))


def read_directory(top: Path) -> dict[str, bytes]:
    return {str(path.relative_to(top)): path.read_bytes() for path in sorted(top.rglob("*")) if path.is_file()}
