"""``ipfs.dataset_cids`` of a model version: it names a dataset's CID only if that is certain."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import mlflow
import mlflow.data.pandas_dataset
import pandas as pd
import pytest
from mlflow.entities import Dataset, DatasetInput
from mlflow.exceptions import MlflowException
from mlflow.utils.validation import MAX_DATASET_DIGEST_SIZE

from mlflow_ipfs.binding.dataset_inputs import DatasetInputs, dataset_digest, run_tag
from mlflow_ipfs.content.cid import CID
from support.mlflow_sites import stock_tracking

if TYPE_CHECKING:
    from pathlib import Path

    from mlflow import MlflowClient

    from mlflow_ipfs.content.store import ContentStore

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:Starting with pandas version 4"),  # MLflow's own, when it hashes a frame
]

ROWS, CHANGED_ROW = 20_000, 15_000
V1 = "bafkreifjjcie6lypi6ny7amxnfftagclbuxndqonfipmb64f2km2devei4"
V0 = "QmdfTbBqBPQ7VNxZEYEj14VmRuZBkqFbiwReogJgS1zR1n"


@pytest.fixture
def parquet_files(tmp_path: Path) -> list[Path]:
    """Two files of one name that differ in one row. MLflow computes its digest from a sample of the rows."""
    files = []
    for directory, value in (("one", 0), ("two", 1)):
        frame = pd.DataFrame({"x": range(ROWS), "y": [0] * ROWS})
        frame.loc[CHANGED_ROW, "y"] = value
        file = tmp_path / directory / "train.parquet"
        file.parent.mkdir()
        frame.to_parquet(file)
        files.append(file)
    return files


def dataset_of(cid: CID, file: Path, **digest: str) -> Any:
    frame = pd.read_parquet(file)
    return mlflow.data.pandas_dataset.from_pandas(frame, source=f"ipfs://{cid}", name="train", **digest)


def train(file: Path, dataset: Any) -> str:
    """Log a run with one dataset and one model file. Return the run's id."""
    with mlflow.start_run() as run:
        mlflow.log_input(dataset, "training")
        mlflow.log_artifact(str(file), "model")
    return str(run.info.run_id)


def recorded_sources(client: MlflowClient, run_id: str) -> list[str]:
    inputs = client.get_run(run_id).inputs
    return [item.dataset.source for item in inputs.dataset_inputs] if inputs else []


def tags_of_version(client: MlflowClient, run_id: str) -> dict[str, str]:
    return dict(client.create_model_version("m", f"runs:/{run_id}/model", run_id).tags)


def test_each_version_names_the_file_that_it_was_trained_on(
    client: MlflowClient, store: ContentStore, parquet_files: list[Path]
) -> None:
    """By the recipe of the README."""
    client.create_registered_model("m")
    cids = [store.add(file).cid for file in parquet_files]
    datasets = [dataset_of(cid, file, digest=str(cid)[-36:]) for cid, file in zip(cids, parquet_files, strict=True)]
    runs = [train(file, dataset) for file, dataset in zip(parquet_files, datasets, strict=True)]
    tags = [tags_of_version(client, run_id) for run_id in runs]
    assert [found["ipfs.dataset_cids"] for found in tags] == [str(cid) for cid in cids]
    assert all("ipfs.datasets_uncertain" not in found for found in tags)


def test_with_mlflows_digest_no_version_names_a_wrong_file(
    client: MlflowClient, store: ContentStore, parquet_files: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    """At L1, MLflow's own tracking store records the first source without a warning."""
    client.create_registered_model("m")
    cids = [store.add(file).cid for file in parquet_files]
    datasets = [dataset_of(cid, file) for cid, file in zip(cids, parquet_files, strict=True)]
    assert datasets[0].digest == datasets[1].digest
    with stock_tracking(client):
        runs = [train(file, dataset) for file, dataset in zip(parquet_files, datasets, strict=True)]
    assert recorded_sources(client, runs[0]) == recorded_sources(client, runs[1])
    with caplog.at_level(logging.WARNING):
        tags = [tags_of_version(client, run_id) for run_id in runs]
    for found in tags:
        assert "ipfs.dataset_cids" not in found
        assert found["ipfs.datasets_uncertain"] == "train"
    assert f"digest={dataset_digest(cids[0])!r}" in caplog.text


def test_the_tracking_store_refuses_a_source_that_mlflow_would_not_record(
    client: MlflowClient, store: ContentStore, parquet_files: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    first, second = (store.add(file).cid for file in parquet_files)
    with caplog.at_level(logging.WARNING):
        train(parquet_files[0], dataset_of(first, parquet_files[0]))
    assert f"digest={dataset_digest(first)!r}" in caplog.text
    with pytest.raises(MlflowException, match=f"(?s)train.*{first}.*{second}.*digest=") as caught:
        train(parquet_files[1], dataset_of(second, parquet_files[1]))
    assert caught.value.get_http_status_code() == 409
    (newest, _) = client.search_runs(["0"], order_by=["attributes.start_time DESC"])
    assert recorded_sources(client, newest.info.run_id) == []
    train(parquet_files[1], dataset_of(second, parquet_files[1], digest=dataset_digest(second)))


def test_the_same_dataset_is_logged_again_and_again(
    client: MlflowClient, store: ContentStore, parquet_files: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    client.create_registered_model("m")
    file = parquet_files[0]
    cid = store.add(file).cid
    with caplog.at_level(logging.WARNING, logger="mlflow_ipfs"):
        runs = [train(file, dataset_of(cid, file, digest=dataset_digest(cid))) for _ in range(2)]
        train(file, mlflow.data.pandas_dataset.from_pandas(pd.read_parquet(file), name="train"))
    assert caplog.text == ""
    assert [tags_of_version(client, run_id)["ipfs.dataset_cids"] for run_id in runs] == [str(cid)] * 2


def log(client: MlflowClient, run_id: str, *datasets: tuple[str, str, str]) -> None:
    entities = [Dataset(name, digest, "ipfs", json.dumps({"uri": uri})) for name, digest, uri in datasets]
    client.log_inputs(run_id, [DatasetInput(dataset, []) for dataset in entities])


def test_two_sources_of_one_name_and_digest_in_one_call(client: MlflowClient) -> None:
    run = client.create_run("0")
    with pytest.raises(MlflowException, match=V1):
        log(client, run.info.run_id, ("d", "1", f"ipfs://{V0}"), ("d", "1", f"ipfs://{V1}"))
    assert recorded_sources(client, run.info.run_id) == []
    log(client, run.info.run_id, ("d", "1", f"ipfs://{V0}/a"), ("d", "1", f"ipfs://{V0}/b"))


def test_sources_of_other_kinds_are_mlflows_affair(client: MlflowClient, caplog: pytest.LogCaptureFixture) -> None:
    run_id = client.create_run("0").info.run_id
    with caplog.at_level(logging.WARNING, logger="mlflow_ipfs"):
        log(client, run_id, ("d", "1", "s3://bucket/a"), ("d", "1", "s3://bucket/b"), ("e", "1", "ipfs://host/x"))
        client.log_inputs(run_id, [DatasetInput(Dataset("f", "1", "code", "no json"), [])])
        client.log_inputs(run_id)
    assert caplog.text == ""
    with pytest.raises(MlflowException, match="digest"):
        log(client, run_id, ("d", "1" * 37, f"ipfs://{V1}"))  # MLflow's own check


def test_a_digest_that_names_another_cid_proves_nothing(client: MlflowClient, tmp_path: Path) -> None:
    (tmp_path / "weights").write_text("x")
    client.create_registered_model("m")
    run_id = client.create_run("0").info.run_id
    client.log_artifact(run_id, str(tmp_path / "weights"), "model")
    sure, other = dataset_digest(CID.parse(V0)), dataset_digest(CID.parse(V1))
    log(client, run_id, ("a", other, f"ipfs://{V0}/data"), ("b", sure, f"ipfs://{V0}/data"), ("c", "", f"ipfs://{V1}"))
    tags = tags_of_version(client, run_id)
    assert tags["ipfs.dataset_cids"] == V0
    assert tags["ipfs.datasets_uncertain"].split(", ") == ["a", "c"]


@pytest.mark.parametrize("text", [V0, V1, "bafkqaaa"])
def test_the_digest_of_a_cid_fits_into_mlflows_column(text: str) -> None:
    digest = dataset_digest(CID.parse(text))
    assert text.endswith(digest)
    assert len(digest) == min(len(text), MAX_DATASET_DIGEST_SIZE)


def test_the_run_names_its_datasets_too(client: MlflowClient, store: ContentStore, parquet_files: list[Path]) -> None:
    cid = store.add(parquet_files[0]).cid
    run_id = train(parquet_files[0], dataset_of(cid, parquet_files[0], digest=str(cid)[-36:]))
    assert client.get_run(run_id).data.tags["ipfs.dataset_cids"] == str(cid)
    found = client.search_runs(["0"], f"tags.`ipfs.dataset_cids` = '{cid}'")
    assert [run.info.run_id for run in found] == [run_id]


def test_at_l1_the_run_is_tagged_when_its_model_is_registered(
    client: MlflowClient, store: ContentStore, parquet_files: list[Path]
) -> None:
    client.create_registered_model("m")
    cid = store.add(parquet_files[0]).cid
    with stock_tracking(client):
        run_id = train(parquet_files[0], dataset_of(cid, parquet_files[0], digest=str(cid)[-36:]))
    assert "ipfs.dataset_cids" not in client.get_run(run_id).data.tags
    tags_of_version(client, run_id)
    assert client.get_run(run_id).data.tags["ipfs.dataset_cids"] == str(cid)


def test_a_run_with_uncertain_datasets_only_is_not_tagged(
    client: MlflowClient, store: ContentStore, parquet_files: list[Path]
) -> None:
    cid = store.add(parquet_files[0]).cid
    run_id = train(parquet_files[0], dataset_of(cid, parquet_files[0]))
    assert "ipfs.dataset_cids" not in client.get_run(run_id).data.tags


def test_too_many_datasets_for_a_tag_of_a_run_are_left_out_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    cids = tuple(f"{V1[:-4]}{number:04}" for number in range(200))
    assert run_tag(DatasetInputs(cids[:100])) == ",".join(cids[:100])
    assert run_tag(DatasetInputs(cids)) is None
    assert "200 datasets do not fit" in caplog.text
