"""``log_dataset`` without a server: an artifact, an input with the CID, and the CID in the tags of a version."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
import pytest

from mlflow_ipfs import log_dataset
from mlflow_ipfs.binding import logged_datasets
from mlflow_ipfs.errors import InvalidPathError, NotFoundError, SourceChangedError

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from mlflow_ipfs.content.store import ContentStore

pytestmark = pytest.mark.slow


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "data set.csv"
    path.write_bytes(b"x,y\n1,2\n" * 100_000)
    return path


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "images"
    (path / "train").mkdir(parents=True)
    (path / ".labels").write_text("hidden, and part of the dataset")
    (path / "train" / "a.bin").write_bytes(bytes(300_000))
    return path


def inputs_of(client: MlflowClient, run_id: str) -> list[mlflow.entities.DatasetInput]:
    inputs = client.get_run(run_id).inputs
    return list(inputs.dataset_inputs) if inputs else []


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_content_is_kept_named_and_loaded(
    kind: str, client: MlflowClient, store: ContentStore, file: Path, directory: Path
) -> None:
    path = file if kind == "file" else directory
    with mlflow.start_run() as run:
        dataset = log_dataset(path, context="training")
    assert dataset.cid == str(store.add(path, only_hash=True).cid)
    assert dataset.size_bytes == sum(found.stat().st_size for found in [path, *path.rglob("*")] if found.is_file())
    [logged] = inputs_of(client, run.info.run_id)
    assert (logged.dataset.name, logged.dataset.digest) == (path.name, dataset.cid[-36:])
    assert [(tag.key, tag.value) for tag in logged.tags] == [("mlflow.data.context", "training")]
    assert json.loads(logged.dataset.profile or "") == {"ipfs_cid": dataset.cid, "size_bytes": dataset.size_bytes}
    loaded = Path(mlflow.data.get_source(logged).load())
    assert store.add(loaded, only_hash=True).cid == store.add(path, only_hash=True).cid
    if kind == "file":
        assert store.has(dataset.cid), "the store keeps the very CID that is recorded"


def test_versions_name_the_dataset(client: MlflowClient, store: ContentStore, file: Path, directory: Path) -> None:
    del store
    with mlflow.start_run() as run:
        cids = [log_dataset(path).cid for path in (file, directory)]
        mlflow.log_text("flavors: {}\n", "model/MLmodel")
    client.create_registered_model("m")
    tags = client.create_model_version("m", f"runs:/{run.info.run_id}/model", run.info.run_id).tags
    assert sorted(tags["ipfs.dataset_cids"].split(",")) == sorted(cids)
    assert "ipfs.datasets_uncertain" not in tags


def test_two_files_of_one_name_stay_apart(client: MlflowClient, tmp_path: Path) -> None:
    run_id = client.create_run("0").info.run_id
    datasets = []
    for directory, text in (("one", "1"), ("two", "2")):
        (tmp_path / directory).mkdir()
        (tmp_path / directory / "data.csv").write_text(text)
        datasets.append(log_dataset(tmp_path / directory / "data.csv", run_id=run_id))
    assert [Path(dataset.source.load()).read_text() for dataset in datasets] == ["1", "2"]
    assert len(inputs_of(client, run_id)) == 2


def test_a_link_is_followed_and_a_link_inside_is_refused(client: MlflowClient, directory: Path, tmp_path: Path) -> None:
    run_id = client.create_run("0").info.run_id
    (tmp_path / "latest").symlink_to(directory)
    assert log_dataset(tmp_path / "latest", run_id=run_id).name == "latest"
    (directory / "link").symlink_to("train/a.bin")
    with pytest.raises(InvalidPathError, match="link is a symlink"):
        log_dataset(directory, run_id=run_id)
    (directory / "link").unlink()
    (directory / "empty").mkdir()
    with pytest.raises(InvalidPathError, match="empty is empty"):
        log_dataset(directory, run_id=run_id)
    with pytest.raises(NotFoundError, match="does not exist"):
        log_dataset(tmp_path / "none", run_id=run_id)
    assert len(inputs_of(client, run_id)) == 1


def test_a_file_that_changes_meanwhile_is_no_input(
    client: MlflowClient, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = client.create_run("0").info.run_id
    hash_content = logged_datasets._hash

    def hash_and_change(path: Path) -> object:
        found = hash_content(path)
        file.write_bytes(b"changed")
        return found

    monkeypatch.setattr(logged_datasets, "_hash", hash_and_change)
    with pytest.raises(SourceChangedError, match="changed while it was uploaded"):
        log_dataset(file, run_id=run_id)
    assert inputs_of(client, run_id) == []


def test_a_run_of_another_tracking_uri(
    client: MlflowClient, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = client.create_run("0").info.run_id
    uri = client.tracking_uri
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'other.db'}")
    dataset = log_dataset(file, run_id=run_id, tracking_uri=uri)
    [logged] = inputs_of(client, run_id)
    assert logged.dataset.digest == dataset.cid[-36:]
    assert not (tmp_path / "other.db").exists(), "the MLflow of the process is not asked"
    with pytest.raises(ValueError, match="name the run with run_id"):
        log_dataset(file, tracking_uri=uri)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    mlflow.set_tracking_uri(uri)
    assert Path(dataset.source.load()).read_bytes() == file.read_bytes()
