"""A database with artifacts in the store, and what stock MLflow reads after they were ejected."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities.logged_model_status import LoggedModelStatus

from support.registered_models import model_directory

if TYPE_CHECKING:
    from mlflow_ipfs.content.store import ContentStore


def make_site(client: MlflowClient, store: ContentStore, directory: Path) -> dict[str, Any]:
    """Make runs, a logged model and versions. Return the files by ``run <id>``, ``model <id>`` and ``version <number>``."""
    experiment = client.create_experiment("e")
    client.create_registered_model("m")
    files: dict[str, Any] = {}
    for number in range(3):
        run_id = client.create_run(experiment).info.run_id
        client.log_text(run_id, f"hello {number}", "a/b ü.txt")
        client.log_artifacts(run_id, str(model_directory(directory / "model", f"run {number}")), "model")
        client.create_model_version("m", f"runs:/{run_id}/model", run_id)
        files[f"version {number + 1}"] = model_files(f"run {number}")
        if number == 1:  # the version keeps the files that the run had
            client.log_artifacts(run_id, str(model_directory(directory / "model", "overwritten")), "model")
        current = model_files("overwritten" if number == 1 else f"run {number}")
        files[f"run {run_id}"] = {"a/b ü.txt": f"hello {number}"} | {f"model/{k}": v for k, v in current.items()}
        client.set_terminated(run_id)
    model = client.create_logged_model(experiment, name="net")
    client.log_model_artifacts(model.model_id, str(model_directory(directory / "model", "logged")))
    client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    client.create_model_version("m", f"models:/{model.model_id}", model_id=model.model_id)
    files[f"model {model.model_id}"] = files["version 4"] = model_files("logged")
    content = store.add(model_directory(directory / "content", "by CID"), pin=None).cid
    client.create_model_version("m", f"ipfs://{content}")
    files["version 5"] = model_files("by CID")
    client.set_registered_model_alias("m", "champion", "2")
    return files


def model_files(weights: str) -> dict[str, str]:
    return {"MLmodel": "flavors: {}\n", "weights.bin": weights}


def read_site(database: Path | str, names: dict[str, Any]) -> dict[str, Any]:
    """Return the files that stock MLflow reads for the names of ``make_site``. A database may be named by its URI."""
    uri = database if isinstance(database, str) else f"sqlite:///{database}"
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    return {name: _read(client, *name.split()) for name in names}


def _read(client: MlflowClient, kind: str, name: str) -> dict[str, str]:
    if kind == "run":
        location = client.get_run(name).info.artifact_uri
    elif kind == "model":
        location = client.get_logged_model(name).artifact_location
    else:
        location = client.get_model_version_download_uri("m", name)
    directory = Path(mlflow.artifacts.download_artifacts(location))
    return {str(path.relative_to(directory)): path.read_text() for path in directory.rglob("*") if path.is_file()}


def read_column(database: Path, query: str) -> list[str]:
    with closing(sqlite3.connect(database)) as connection:
        return [row[0] for row in connection.execute(query)]


def all_locations(database: Path) -> list[str]:
    """Return every artifact location of the database."""
    return [
        location
        for query in (
            "SELECT artifact_location FROM experiments",
            "SELECT artifact_uri FROM runs",
            "SELECT artifact_location FROM logged_models",
            "SELECT value FROM trace_tags WHERE key = 'mlflow.artifactLocation'",
            "SELECT storage_location FROM model_versions",
            "SELECT source FROM model_versions",
        )
        for location in read_column(database, query)
    ]
