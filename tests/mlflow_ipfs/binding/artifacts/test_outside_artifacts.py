"""Artifacts that MLflow's database names but the store does not contain: a backup without them reports them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy
from mlflow import MlflowClient
from mlflow.entities.logged_model_status import LoggedModelStatus
from mlflow.utils import mlflow_tags

from mlflow_ipfs.backup.backing_up import make_backup
from mlflow_ipfs.backup.backup_directory import BackupDirectory
from mlflow_ipfs.binding import mlflow_compat
from mlflow_ipfs.binding.artifacts.outside_artifacts import (
    MAX_ROOTS,
    OTHER_ROOTS,
    OutsideGroup,
    find_outside_artifacts,
)
from mlflow_ipfs.binding.databases import artifact_rows
from mlflow_ipfs.content.mfs import MfsPath
from mlflow_ipfs.content.storage.local import open_local_storage
from mlflow_ipfs.content.store import ContentStore
from mlflow_ipfs.content.system.disk import Disk
from mlflow_ipfs.errors import PolicyError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import URL


@pytest.fixture
def url(database: Path) -> URL:
    return sqlalchemy.make_url(f"sqlite:///{database}")


@pytest.fixture
def stock(url: URL) -> MlflowClient:
    """MLflow's own stores: artifacts are plain files in ``<tmp>/mlruns``."""
    return MlflowClient(tracking_uri=str(url), registry_uri=str(url))


def find(url: URL, store: ContentStore, **environ: str) -> list[tuple[str, str, int]]:
    return [(group.kind, group.place, group.count) for group in find_outside_artifacts(url, store, environ=environ)]


def execute(url: URL, statement: str, **values: Any) -> None:
    engine = sqlalchemy.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text(statement), values)
    engine.dispose()


def move_run(url: URL, run_id: str, uri: str) -> None:
    execute(url, "UPDATE runs SET artifact_uri = :uri WHERE run_uuid = :run", uri=uri, run=run_id)


def put_file(store: ContentStore, root: str, path: str, source: Path) -> None:
    source.write_text("1")
    store.files.put_file(MfsPath(root, path), source)


def test_a_fresh_database_has_nothing_outside(url: URL, stock: MlflowClient, store: ContentStore) -> None:
    assert stock.get_experiment("0").artifact_location.endswith("mlruns/0")
    assert find(url, store) == []
    stock.log_metric(stock.create_run("0").info.run_id, "loss", 1.0)  # a run without artifacts has nothing to lose
    assert find(url, store) == []


def test_plain_files_are_outside(url: URL, stock: MlflowClient, store: ContentStore, tmp_path: Path) -> None:
    run = stock.create_run("0").info
    stock.log_text(run.run_id, "loss", "notes.txt")
    stock.create_run("0")
    model = stock.create_logged_model("0", name="net", source_run_id=run.run_id)
    (tmp_path / "model").mkdir()
    (tmp_path / "model/MLmodel").write_text("flavors: {}\n")
    stock.log_model_artifacts(model.model_id, str(tmp_path / "model"))
    stock.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    stock.create_registered_model("m")
    stock.create_model_version("m", model.artifact_location)
    place = str(tmp_path / "mlruns")
    assert find_outside_artifacts(url, store) == (
        OutsideGroup("experiment", place, 1, ("0",)),
        OutsideGroup("run", place, 1, (run.run_id,)),
        OutsideGroup("logged model", place, 1, (model.model_id,)),
        OutsideGroup("model version", place, 1, ("m/1",)),
    )


def test_a_backup_without_them_is_refused_before_anything_is_copied(
    url: URL, stock: MlflowClient, store: ContentStore, tmp_path: Path
) -> None:
    run_id = stock.create_run("0").info.run_id
    stock.log_text(run_id, "loss", "notes.txt")
    told: list[OutsideGroup] = []

    def refuse(groups: Sequence[OutsideGroup]) -> bool:
        told.extend(groups)
        return False

    listed = rf"1 run in {tmp_path}/mlruns, for example {run_id}"
    with pytest.raises(PolicyError, match=rf"{listed}.*--without-outside"):
        make_backup(store, tmp_path / "backup", url, timeout_seconds=1)
    with pytest.raises(PolicyError, match="--without-outside") as caught:
        make_backup(store, tmp_path / "backup", url, timeout_seconds=1, accept_outside=refuse)
    assert listed not in str(caught.value), "the caller was told already"
    assert [group.kind for group in told] == ["experiment", "run"]
    assert not (tmp_path / "backup").exists()
    manifest, _ = make_backup(store, tmp_path / "backup", url, timeout_seconds=1, accept_outside=bool)
    expected = {"kind": "run", "place": f"{tmp_path}/mlruns", "count": 1, "examples": [run_id]}
    assert manifest.outside_artifacts[1] == expected
    assert BackupDirectory(tmp_path / "backup", Disk()).read() == manifest


def test_artifacts_in_the_store_are_not_outside(
    url: URL, client: MlflowClient, store: ContentStore, tmp_path: Path
) -> None:
    run = client.create_run("0").info
    client.log_text(run.run_id, "flavors: {}", "model/MLmodel")
    client.create_registered_model("m")
    client.create_model_version("m", f"{run.artifact_uri}/model", run.run_id)
    client.log_metric(client.create_run("0").info.run_id, "loss", 1.0)
    assert find(url, store) == []
    manifest, _ = make_backup(store, tmp_path / "backup", url, timeout_seconds=1)
    assert manifest.outside_artifacts == []


def test_a_version_frozen_in_another_store_is_outside(
    url: URL, client: MlflowClient, store: ContentStore, tmp_path: Path
) -> None:
    run = client.create_run("0").info
    client.log_text(run.run_id, "flavors: {}", "model/MLmodel")
    client.create_registered_model("m")
    version = client.create_model_version("m", f"{run.artifact_uri}/model", run.run_id)
    del store
    with open_local_storage(tmp_path / "other") as storage:
        [group] = find_outside_artifacts(url, ContentStore(storage))
    assert (group.kind, group.place, group.examples) == ("model version", "mfs://mlflow", (f"m/{version.version}",))


@pytest.mark.parametrize(
    ("uri", "place"),
    [
        ("s3://bucket/mlruns/0/{}/artifacts", "s3://bucket/mlruns"),
        ("hdfs://user:secret@host/mlruns/0/{}/artifacts", "hdfs://host/mlruns"),
        ("file://elsewhere/mlruns/0/{}/artifacts", "file://elsewhere/mlruns"),
        ("/no-such-disk/mlruns/0/{}/artifacts", "/no-such-disk/mlruns"),
        ("mlflow-artifacts:/0/{}/artifacts", "mlflow-artifacts:/"),
    ],
)
def test_a_run_in_a_place_that_cannot_be_looked_into_is_outside(
    url: URL, stock: MlflowClient, store: ContentStore, uri: str, place: str
) -> None:
    run_id = stock.create_run("0").info.run_id
    move_run(url, run_id, uri.format(run_id))
    assert find(url, store) == [("experiment", place, 1), ("run", place, 1)]


def test_proxied_artifacts_are_looked_for_in_the_store(
    url: URL, stock: MlflowClient, store: ContentStore, tmp_path: Path
) -> None:
    runs = [stock.create_run("0").info.run_id for _ in range(2)]
    for run_id in runs:
        move_run(url, run_id, f"mlflow-artifacts:/0/{run_id}/artifacts")
    assert find(url, store, MLFLOW_ARTIFACTS_DESTINATION="mfs://mlflow") == []  # neither has any
    put_file(store, "mlflow", f"team/0/{runs[0]}/artifacts/plots/a.txt", tmp_path / "a")
    assert find(url, store) == []  # so the destination is this store, and the other run has no artifacts


def test_proxied_artifacts_of_a_server_with_another_destination_are_outside(
    url: URL, stock: MlflowClient, store: ContentStore, tmp_path: Path
) -> None:
    run_id = stock.create_run("0").info.run_id
    move_run(url, run_id, f"mlflow-artifacts:/0/{run_id}/artifacts")
    stock.set_tag(run_id, "mlflow.log-model.history", "[]")
    put_file(store, "mlflow", f"team/0/{run_id}/artifacts/a.txt", tmp_path / "a")
    for destination in ("mfs://mlflow/team", ""):
        assert find(url, store, MLFLOW_ARTIFACTS_DESTINATION=destination) == []
    for destination in (str(tmp_path / "plain"), "s3://bucket", "mfs://mlflow", "mfs://mlflow/tea", "mfs://other/team"):
        found = find(url, store, MLFLOW_ARTIFACTS_DESTINATION=destination)
        assert found[1:] == [("run", "mlflow-artifacts:/", 1)], destination


def test_proxied_artifacts_from_before_the_server_had_the_store_are_outside(
    url: URL, stock: MlflowClient, store: ContentStore, tmp_path: Path
) -> None:
    old, new, model2 = (stock.create_run("0").info.run_id for _ in range(3))
    for run_id in (old, new, model2):
        move_run(url, run_id, f"mlflow-artifacts:/0/{run_id}/artifacts")
    put_file(store, "mlflow", f"0/{new}/artifacts/a.txt", tmp_path / "a")
    (tmp_path / "mlartifacts/0" / old / "artifacts").mkdir(parents=True)
    assert find(url, store) == []  # an empty directory is no artifact
    (tmp_path / "mlartifacts/0" / old / "artifacts/b.txt").write_text("b")
    stock.set_tag(model2, "mlflow.log-model.history", "[]")  # MLflow 2 logged a model to it, to wherever
    assert find(url, store)[1:] == [("run", "mlflow-artifacts:/", 2)]


def test_a_proxied_logged_model_that_the_store_lacks_is_outside(
    url: URL, stock: MlflowClient, store: ContentStore
) -> None:
    model = stock.create_logged_model("0", name="net")
    execute(url, "UPDATE logged_models SET artifact_location = 'mlflow-artifacts:/0/models/m-1/artifacts'")
    destination = {"MLFLOW_ARTIFACTS_DESTINATION": "mfs://mlflow"}
    assert find(url, store, **destination) == []  # nothing was logged to it yet
    stock.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    assert [kind for kind, _, _ in find(url, store, **destination)] == ["experiment", "logged model"]


def test_traces_are_counted(url: URL, stock: MlflowClient, store: ContentStore) -> None:
    trace = "INSERT INTO trace_info (request_id, experiment_id, timestamp_ms, status) VALUES ('tr-1', 0, 1, 'OK')"
    execute(url, trace)
    tag = "INSERT INTO trace_tags (request_id, key, value) VALUES ('tr-1', 'mlflow.artifactLocation', :uri)"
    execute(url, tag, uri="s3://bucket/0/traces/tr-1/artifacts")
    del stock
    assert find(url, store) == [("experiment", "s3://bucket", 1), ("trace", "s3://bucket", 1)]


def test_a_relative_location_is_looked_for_beside_the_database(
    url: URL, stock: MlflowClient, store: ContentStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = stock.create_run("0").info.run_id
    stock.log_text(run_id, "loss", "notes.txt")
    move_run(url, run_id, f"./mlruns/0/{run_id}/artifacts")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert ("run", "./mlruns", 1) in find(url, store)
    for directory, _, files in os.walk(tmp_path / "mlruns"):
        for file in files:
            (Path(directory) / file).unlink()
    assert find(url, store) == []


def test_groups_are_few_and_fit_to_be_shown(url: URL, stock: MlflowClient, store: ContentStore, tmp_path: Path) -> None:
    for number in range(MAX_ROOTS + 3):
        run_id = stock.create_run("0").info.run_id
        move_run(url, run_id, f"s3://bucket-{number:02}\u200b/{run_id}/artifacts")
    manifest, _ = make_backup(store, tmp_path / "backup", url, timeout_seconds=1, accept_outside=bool)
    assert BackupDirectory(tmp_path / "backup", Disk()).read() == manifest  # which takes printable text only
    runs = [group for group in find_outside_artifacts(url, store) if group.kind == "run"]
    assert len(runs) == MAX_ROOTS + 1
    assert (runs[0].place, runs[0].count) == (OTHER_ROOTS, 3)
    assert runs[1].place == "s3://bucket-00\\u200b"


def test_the_texts_in_the_queries_are_mlflows() -> None:
    assert mlflow_compat.deleted_stage() == artifact_rows.DELETED_STAGE
    assert artifact_rows.EXTERNAL_TAG == mlflow_tags.MLFLOW_MODEL_IS_EXTERNAL
    assert artifact_rows.LOCATION_TAG == mlflow_tags.MLFLOW_ARTIFACT_LOCATION
    assert LoggedModelStatus.READY.to_int() == artifact_rows.READY
