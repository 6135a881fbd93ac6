"""Freezing without a server: MLflow's client in this process, on ``ipfs+sqlite://``."""

from __future__ import annotations

import json
import logging
import random
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import pytest
from mlflow.entities import Dataset, DatasetInput, InputTag
from mlflow.exceptions import MlflowException

from mlflow_ipfs.content.cid import CID
from mlflow_ipfs.content.mfs import MfsPath
from mlflow_ipfs.content.names.entries import MfsEntry
from mlflow_ipfs.content.names.pins import Pin
from support.mlflow_sites import pin_owners, storage_location
from support.registered_models import model_directory, weights_of
from support.storages import delete_block

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

    from mlflow_ipfs.content.store import ContentStore

pytestmark = pytest.mark.slow


def overwrite(client: MlflowClient, model: Any, tmp_path: Path) -> None:
    client.log_model_artifacts(model.model_id, str(model_directory(tmp_path / "other", "two")))


def test_a_version_keeps_its_content_for_ever(
    client: MlflowClient, version: ModelVersion, logged_model: Any, tmp_path: Path, database: Path
) -> None:
    location = storage_location(database, "digits", 1)
    assert location == f"{logged_model.artifact_location}/@{version.tags['ipfs.cid']}"
    overwrite(client, logged_model, tmp_path)
    assert weights_of(f"models:/{logged_model.model_id}") == "two"
    assert weights_of("models:/digits/1") == "one"
    client.set_registered_model_alias("digits", "champion", "1")
    assert weights_of("models:/digits@champion") == "one"
    assert weights_of(f"ipfs://{version.tags['ipfs.cid']}") == "one"


def test_the_version_says_what_it_is_frozen_to(
    client: MlflowClient, version: ModelVersion, registry_id: str, store: ContentStore
) -> None:
    found = client.get_model_version("digits", "1")
    assert found.tags == version.tags
    assert found.tags["ipfs.size_bytes"] == str(len("flavors: {}\n") + len("one"))
    cid = CID.parse(found.tags["ipfs.cid"])
    assert {entry.name for entry in store.ls(cid)} == {"MLmodel", "weights.bin"}
    assert list(store.pins.list(owner_prefix="model-version")) == [Pin(f"model-version:{registry_id}/digits/1", cid)]


def test_the_artifacts_lie_below_the_registry_id(logged_model: Any, registry_id: str) -> None:
    assert logged_model.artifact_location.startswith(f"mfs://mlflow/{registry_id}/1/models/")


def test_tags_can_be_switched_off(client: MlflowClient, logged_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_IPFS_VERSION_TAGS", "false")
    client.create_registered_model("quiet")
    version = client.create_model_version("quiet", f"models:/{logged_model.model_id}", tags={"mine": "1"})
    assert version.tags == {"mine": "1"}


def test_a_version_of_a_run_path(client: MlflowClient, run_id: str, tmp_path: Path, database: Path) -> None:
    client.log_artifacts(run_id, str(model_directory(tmp_path / "model")), "best")
    client.create_registered_model("m")
    artifacts = client.get_run(run_id).info.artifact_uri
    for source in (f"runs:/{run_id}/best", f"{artifacts}/best"):
        version = client.create_model_version("m", source, run_id)
        location = storage_location(database, "m", version.version)
        assert location == f"{artifacts}/best/@{version.tags['ipfs.cid']}"
        assert weights_of(f"models:/m/{version.version}") == "one"


def test_runs_uri_of_a_logged_model(client: MlflowClient, logged_model: Any, run_id: str, database: Path) -> None:
    client.create_registered_model("m")
    client.create_model_version("m", f"runs:/{run_id}/net", run_id)
    assert storage_location(database, "m", 1).startswith(f"{logged_model.artifact_location}/@")
    mlflow.register_model(f"runs:/{run_id}/net", "m")
    assert storage_location(database, "m", 2) == storage_location(database, "m", 1)


def test_a_version_of_content_by_cid(
    client: MlflowClient, store: ContentStore, tmp_path: Path, database: Path, registry_id: str
) -> None:
    cid = store.add(model_directory(tmp_path / "model")).cid
    wrapper = store.wrap(cid, "model")
    client.create_registered_model("m")
    for number, source in enumerate((f"ipfs://{cid}", f"ipfs://{wrapper}/model"), start=1):
        version = client.create_model_version("m", source)
        assert version.tags["ipfs.cid"] == str(cid)
        assert storage_location(database, "m", number) == f"ipfs://{cid}"
    store.pins.remove(cid)
    store.pins.remove(wrapper)
    assert pin_owners(store) == [f"model-version:{registry_id}/m/1", f"model-version:{registry_id}/m/2"]
    assert weights_of("models:/m/2") == "one"


def test_content_that_is_not_all_here_is_refused(client: MlflowClient, store: ContentStore, tmp_path: Path) -> None:
    cid = store.add(model_directory(tmp_path / "model")).cid
    delete_block(store.storage, store.resolve(cid, "weights.bin"))
    client.create_registered_model("m")
    with pytest.raises(MlflowException, match="is incomplete"):
        client.create_model_version("m", f"ipfs://{cid}")
    assert client.search_model_versions("name = 'm'") == []
    assert pin_owners(store) == []


def test_a_version_of_a_local_directory_is_imported(client: MlflowClient, tmp_path: Path, database: Path) -> None:
    directory = model_directory(tmp_path / "elsewhere/model")
    (directory / ".hidden").write_text("kept")
    client.create_registered_model("m")
    for source in (str(directory), directory.as_uri()):
        version = client.create_model_version("m", source)
        assert storage_location(database, "m", version.version) == f"ipfs://{version.tags['ipfs.cid']}"
    (directory / "weights.bin").write_text("two")
    path = Path(mlflow.artifacts.download_artifacts("models:/m/1"))
    assert (path / "weights.bin").read_text() == "one"
    assert (path / ".hidden").read_text() == "kept"


def test_a_version_of_what_is_frozen_already(client: MlflowClient, version: ModelVersion, database: Path) -> None:
    location = storage_location(database, "digits", 1)
    client.create_registered_model("m")
    again = client.create_model_version("m", location)
    assert again.tags["ipfs.cid"] == version.tags["ipfs.cid"]
    assert storage_location(database, "m", 1) == location


def test_a_part_of_what_is_frozen(client: MlflowClient, run_id: str, tmp_path: Path, database: Path) -> None:
    model_directory(tmp_path / "run/best")
    client.log_artifacts(run_id, str(tmp_path / "run"))
    client.create_registered_model("m")
    artifacts = client.get_run(run_id).info.artifact_uri
    client.create_model_version("m", artifacts, run_id)
    whole = storage_location(database, "m", 1)
    version = client.create_model_version("m", f"{whole}/best", run_id)
    assert storage_location(database, "m", 2) == f"{artifacts}/@{version.tags['ipfs.cid']}"
    assert weights_of("models:/m/2") == "one"


def test_a_copy_shares_the_content_and_has_a_pin_of_its_own(
    client: MlflowClient,
    version: ModelVersion,
    logged_model: Any,
    database: Path,
    registry_id: str,
    store: ContentStore,
    tmp_path: Path,
) -> None:
    overwrite(client, logged_model, tmp_path)
    copy = client.copy_model_version("models:/digits/1", "production")
    assert copy.tags == version.tags
    assert storage_location(database, "production", 1) == storage_location(database, "digits", 1)
    client.delete_model_version("digits", "1")
    assert pin_owners(store) == [f"model-version:{registry_id}/production/1"]
    assert weights_of("models:/production/1") == "one"
    client.delete_registered_model("production")
    assert pin_owners(store) == []
    assert list(store.storage.entries.list_frozen()) == []


def test_a_tag_that_a_copy_brings_along_is_not_believed(client: MlflowClient, logged_model: Any) -> None:
    client.create_registered_model("m")
    given = {"ipfs.cid": "bafkqaaa", "ipfs.frozen": "false", "mine": "1"}
    version = client.create_model_version("m", f"models:/{logged_model.model_id}", tags=given)
    assert version.tags["ipfs.cid"] != "bafkqaaa"
    assert "ipfs.frozen" not in version.tags
    assert version.tags["mine"] == "1"


def test_deleting_drops_the_versions_own_pin_only(
    client: MlflowClient, version: ModelVersion, store: ContentStore
) -> None:
    cid = CID.parse(version.tags["ipfs.cid"])
    store.pin(cid, "user")
    client.delete_model_version("digits", "1")
    assert list(store.pins.list(cid=cid)) == [Pin("user", cid)]


def test_a_deleted_version_cannot_be_read_below_its_path_any_more(
    client: MlflowClient, version: ModelVersion, database: Path
) -> None:
    location = storage_location(database, "digits", 1)
    assert mlflow.artifacts.download_artifacts(location)
    client.delete_model_version("digits", "1")
    with pytest.raises(MlflowException, match="not frozen"):
        mlflow.artifacts.download_artifacts(location)
    del version


def test_renaming_a_model_renames_the_owner_of_its_pins(
    client: MlflowClient, version: ModelVersion, registry_id: str, store: ContentStore
) -> None:
    client.rename_registered_model("digits", "figures")
    assert pin_owners(store) == [f"model-version:{registry_id}/figures/1"]
    assert weights_of("models:/figures/1") == "one"
    client.delete_registered_model("figures")
    assert pin_owners(store) == []
    del version


def test_what_mlflow_refuses_leaves_no_pin(client: MlflowClient, logged_model: Any, store: ContentStore) -> None:
    client.create_registered_model("m")
    for call in (
        lambda: client.create_model_version("nobody", f"models:/{logged_model.model_id}"),
        lambda: client.create_model_version("m", f"models:/{logged_model.model_id}", tags={"k" * 300: "v"}),
        lambda: client.delete_model_version("m", "7"),
        lambda: client.rename_registered_model("nobody", "m2"),
        lambda: client.delete_registered_model("nobody"),
    ):
        with pytest.raises(MlflowException):
            call()
    assert pin_owners(store) == []
    assert list(store.storage.entries.list_frozen()) == []


@pytest.mark.parametrize("source", ["mfs://mlflow/nothing/here", "models:/m-0000", "runs:/0000/x", "ipfs://host/model"])
def test_an_unreadable_source_is_refused(client: MlflowClient, source: str) -> None:
    client.create_registered_model("m")
    with pytest.raises(MlflowException):
        client.create_model_version("m", source)
    assert client.search_model_versions("name = 'm'") == []


def test_best_effort_registers_and_says_so(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, database: Path
) -> None:
    monkeypatch.setenv("MLFLOW_IPFS_FREEZE", "best_effort")
    client.create_registered_model("m")
    with caplog.at_level(logging.WARNING):
        version = client.create_model_version("m", "mfs://mlflow/nothing/here")
    assert version.tags.keys() == {"ipfs.frozen", "ipfs.unfrozen_reason"}
    assert version.tags["ipfs.frozen"] == "false"
    assert "mlflow/nothing/here" in version.tags["ipfs.unfrozen_reason"]
    assert storage_location(database, "m", 1) == "mfs://mlflow/nothing/here"
    assert "not frozen" in caplog.text


def test_off_is_mlflows_own_behaviour(
    client: MlflowClient, logged_model: Any, monkeypatch: pytest.MonkeyPatch, database: Path, store: ContentStore
) -> None:
    monkeypatch.setenv("MLFLOW_IPFS_FREEZE", "off")
    client.create_registered_model("m")
    version = client.create_model_version("m", f"models:/{logged_model.model_id}")
    assert version.tags == {}
    assert storage_location(database, "m", 1) == logged_model.artifact_location
    assert pin_owners(store) == []


def test_a_model_that_is_not_ready_is_refused(
    client: MlflowClient, run_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment_id = client.get_run(run_id).info.experiment_id
    model = client.create_logged_model(experiment_id, name="net", source_run_id=run_id)
    client.log_model_artifacts(model.model_id, str(model_directory(tmp_path / "model")))
    client.create_registered_model("m")
    with pytest.raises(MlflowException, match="finalize_logged_model"):
        client.create_model_version("m", f"models:/{model.model_id}")
    monkeypatch.setenv("MLFLOW_IPFS_FREEZE", "best_effort")
    version = client.create_model_version("m", f"models:/{model.model_id}")
    assert version.tags["ipfs.frozen"] == "false"
    assert "finalize_logged_model" in version.tags["ipfs.unfrozen_reason"]


def test_the_datasets_of_the_run_are_named(
    client: MlflowClient, run_id: str, logged_model: Any, store: ContentStore, tmp_path: Path
) -> None:
    (tmp_path / "data.csv").write_text("a,b\n1,2\n")
    cid = store.add(tmp_path / "data.csv", wrap=True).cid
    other = "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354"
    sources = [f"ipfs://{cid}/data.csv", f"ipfs://{other}", f"ipfs://{cid}", "s3://bucket/x"]
    digests = [str(cid)[-36:], other[-36:], str(cid)[-36:], "x"]
    inputs = [
        DatasetInput(Dataset(f"d{n}", digest, "ipfs", json.dumps({"uri": uri})), [InputTag("mlflow.data.context", "t")])
        for n, (uri, digest) in enumerate(zip(sources, digests, strict=True))
    ]
    client.log_inputs(run_id, inputs)
    client.create_registered_model("m")
    version = client.create_model_version("m", f"models:/{logged_model.model_id}")
    assert sorted(version.tags["ipfs.dataset_cids"].split(",")) == sorted([str(cid), other])


def test_concurrent_registrations_all_get_a_pin(
    client: MlflowClient, logged_model: Any, store: ContentStore, registry_id: str
) -> None:
    client.create_registered_model("m")
    errors: list[BaseException] = []

    def register() -> None:
        try:
            client.create_model_version("m", f"models:/{logged_model.model_id}")
        except BaseException as error:  # noqa: BLE001 - shown below
            errors.append(error)

    threads = [threading.Thread(target=register) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    created = len(client.search_model_versions("name = 'm'"))
    assert created + len(errors) == 6
    assert created >= 1
    assert sorted(pin_owners(store)) == [f"model-version:{registry_id}/m/{n}" for n in range(1, created + 1)]


def test_damage_is_told_even_where_mlflow_swallows_the_reason(
    client: MlflowClient, run_id: str, store: ContentStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model/big.bin").write_bytes(random.Random(3).randbytes(2 << 20))
    client.log_artifacts(run_id, str(tmp_path / "model"), "model")
    place = MfsPath(*client.get_run(run_id).info.artifact_uri.removeprefix("mfs://").split("/", 1))
    entry = store.files.stat(place.join("model/big.bin"))
    assert isinstance(entry, MfsEntry)
    file = store.local_path(entry.cid)
    assert file is not None
    file.chmod(0o644)
    with file.open("r+b") as opened:
        opened.write(bytes(64))
    with caplog.at_level(logging.ERROR), pytest.raises(MlflowException):
        mlflow.artifacts.download_artifacts(f"runs:/{run_id}/model")
    assert "bafk" in caplog.text or str(entry.cid) in caplog.text
