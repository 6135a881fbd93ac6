"""``mlflow-artifacts:/`` locations, which a server wrote into the database, for clients without a server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import mlflow
import pytest
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import _artifact_repository_registry
from mlflow.store.artifact.mlflow_artifacts_repo import MlflowArtifactsRepository

from mlflow_ipfs.binding import mlflow_process
from mlflow_ipfs.binding.uris import locate, parse_content_name
from mlflow_ipfs.plugins.artifact_repository import MfsArtifactRepository, open_proxied_repository
from mlflow_ipfs.plugins.tracking_store import build_tracking_store
from support.mlflow_sites import pin_owners, storage_location
from support.registered_models import model_directory, weights_of

if TYPE_CHECKING:
    from pathlib import Path

    from mlflow import MlflowClient

    from mlflow_ipfs.content.store import ContentStore


@pytest.fixture(autouse=True)
def _ui_came_first(database: Path) -> None:
    """`mlflow ui` created the tables and the default experiment before the first training."""
    ui = build_tracking_store(f"ipfs+sqlite:///{database}", "mlflow-artifacts:/")
    assert ui.get_experiment("0").artifact_location == "mlflow-artifacts:/0"


def test_training_after_the_ui_keeps_its_artifacts_in_the_configured_root(
    client: MlflowClient, store: ContentStore, database: Path, tmp_path: Path
) -> None:
    with mlflow.start_run() as run:
        mlflow.log_text("hello", "a/b.txt")
    model = client.create_logged_model("0", name="net", source_run_id=run.info.run_id)
    client.log_model_artifacts(model.model_id, str(model_directory(tmp_path / "model")))
    client.finalize_logged_model(model.model_id, "READY")
    assert run.info.artifact_uri == f"mlflow-artifacts:/0/{run.info.run_id}/artifacts"  # clients of the server need it
    assert mlflow.artifacts.load_text(f"runs:/{run.info.run_id}/a/b.txt") == "hello"
    stored = {entry.path for entry in store.storage.entries.walk("mlflow", "0")}
    assert f"0/{run.info.run_id}/artifacts/a/b.txt" in stored

    client.create_registered_model("digits")
    version = client.create_model_version("digits", f"models:/{model.model_id}", model_id=model.model_id)
    client.log_model_artifacts(model.model_id, str(model_directory(tmp_path / "model", "two")))
    location = storage_location(database, "digits", 1)
    assert location == f"{model.artifact_location}/@{version.tags['ipfs.cid']}"
    assert weights_of("models:/digits/1") == "one"
    assert len(pin_owners(store)) == 1


def test_content_is_found_by_the_name_of_its_run(
    client: MlflowClient, store: ContentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_IPFS_ROOT", "mfs://team/root")
    run_id = client.create_run("0").info.run_id
    client.log_text(run_id, "hello", "a/b.txt")
    found = locate(store, parse_content_name(f"runs:/{run_id}/a/b.txt"))
    assert found.store.open(found.cid, found.path).read() == b"hello"
    assert str(found.mutable_path) == f"mfs://team/root/0/{run_id}/artifacts/a/b.txt"


def test_mlflow_uses_this_repository_for_the_scheme() -> None:
    assert _artifact_repository_registry._registry["mlflow-artifacts"] is open_proxied_repository


def test_mlflows_own_repository_is_used_wherever_it_works(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    del client
    uri = "mlflow-artifacts:/0/a"
    assert isinstance(open_proxied_repository(uri), MfsArtifactRepository)
    assert isinstance(open_proxied_repository(uri, "http://127.0.0.1:9"), MlflowArtifactsRepository)
    for other in ("mlflow-artifacts://host/0/a", uri):
        with pytest.raises(MlflowException, match="must be a valid http"):
            open_proxied_repository(other, "sqlite:///x.db" if other == uri else None)
    monkeypatch.setenv(mlflow_process.SERVER_BACKEND_STORE, "ipfs+sqlite:///x.db")
    with pytest.raises(MlflowException, match="must be a valid http"):
        open_proxied_repository(uri)
