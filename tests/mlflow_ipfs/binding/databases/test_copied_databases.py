"""Copies of a database share its registry id: until a fork, neither deletes content that the other may need."""

from __future__ import annotations

import logging
import shutil
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from mlflow import MlflowClient

from mlflow_ipfs import opening
from mlflow_ipfs.binding.databases.claims import list_databases
from mlflow_ipfs.content.cid import CID
from mlflow_ipfs.content.mfs import MfsPath
from mlflow_ipfs.content.names.entries import Frozen
from support.copied_databases import VERSIONS, delete_versions, is_readable, make_versions, open_client
from support.mlflow_sites import pin_owners

if TYPE_CHECKING:
    from mlflow_ipfs.content.store import ContentStore

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred"),  # MLflow's own, at the import of mlflow.pyfunc
]


@pytest.fixture
def cids(client: MlflowClient) -> list[CID]:
    return make_versions(client)


@pytest.fixture
def copy(database: Path, cids: list[CID], tmp_path: Path) -> Path:
    del cids
    return Path(shutil.copy(database, tmp_path / "copy.db"))


def test_what_is_deleted_in_a_copy_stays_for_the_original(
    client: MlflowClient, copy: Path, cids: list[CID], store: ContentStore, caplog: pytest.LogCaptureFixture
) -> None:
    owners = pin_owners(store, "model-version:")
    frozen = list(store.storage.entries.list_frozen())
    with caplog.at_level(logging.WARNING, logger="mlflow_ipfs"):
        delete_versions(open_client(copy))
    assert f"--backend-store-uri sqlite:///{copy}" in caplog.text
    assert "databases fork" in caplog.text
    assert pin_owners(store, "model-version:") == owners
    assert list(store.storage.entries.list_frozen()) == frozen
    for entry in store.storage.entries.walk("mlflow", ""):  # as `mlflow gc` would
        store.storage.entries.delete(entry.root, entry.path)
    store.collect_garbage()
    assert is_readable(store, cids)
    assert client.get_model_version("m", "3").version
    delete_versions(client)  # the original, too, knows nothing of the copy's versions
    store.collect_garbage()
    assert is_readable(store, cids)


def test_a_database_that_is_opened_before_its_store_exists_is_recorded(
    database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_IPFS_STORE", str(tmp_path / "new-store"))
    open_client(database).search_experiments()
    copy = Path(shutil.copy(database, tmp_path / "copy.db"))
    open_client(copy).search_experiments()
    with opening.open_store() as store:
        [locations] = list_databases(store.storage).values()
    assert {location.name for location in locations} == {str(database), str(copy)}


def test_mlflow_gc_with_the_stock_uri_of_a_copy_deletes_nothing_of_the_original(
    client: MlflowClient, copy: Path, cids: list[CID], monkeypatch: pytest.MonkeyPatch
) -> None:
    del cids
    [run, *_] = client.search_runs(["0"])
    uri = f"sqlite:///{copy}"  # stock MLflow, without our stores: nothing has recorded the copy yet
    stock = MlflowClient(uri, uri)
    stock.delete_run(run.info.run_id)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    arguments = ["gc", "--backend-store-uri", uri, "--run-ids", run.info.run_id]
    result = CliRunner().invoke(import_module("mlflow.cli").cli, arguments)
    assert result.exit_code != 0
    assert "databases fork" in str(result.exception)
    assert [item.path for item in client.list_artifacts(run.info.run_id)] == ["model"]


def test_a_path_that_two_databases_of_their_own_ids_need_stays(
    client: MlflowClient, empty_database: Path, store: ContentStore, tmp_path: Path
) -> None:
    """Copied before either had an id, as at L0; each got an id of its own later."""
    copy = Path(shutil.copy(empty_database, tmp_path / "copy.db"))
    [first, second] = client, open_client(copy)
    for one in (first, second):
        one.create_registered_model("m")
    location = MfsPath("mlflow", "0/run/artifacts/model")
    (tmp_path / "MLmodel").write_text("flavors: {}\n")
    store.files.put_file(location.join("MLmodel"), tmp_path / "MLmodel")
    versions = [one.create_model_version("m", str(location)) for one in (first, second)]
    cid = CID.parse(versions[0].tags["ipfs.cid"])
    frozen = Frozen(location.root, location.path, cid)
    first.delete_model_version("m", "1")
    assert store.storage.entries.is_frozen(frozen), "the other database's version has this location"
    second.delete_model_version("m", "1")
    assert not store.storage.entries.is_frozen(frozen)


def test_a_moved_database_is_the_same(
    database: Path, cids: list[CID], store: ContentStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    moved = database.rename(tmp_path / "moved.db")
    delete_versions(open_client(moved))
    assert caplog.text == ""
    assert pin_owners(store) == []
    assert [[location.name for location in locations] for locations in list_databases(store.storage).values()] == [
        [str(moved)]
    ]
    store.collect_garbage()
    for entry in store.storage.entries.walk("mlflow", ""):
        store.storage.entries.delete(entry.root, entry.path)
    store.collect_garbage()
    assert not any(store.storage.blocks.has(cid) for cid in cids)


def test_once_the_other_is_gone_what_was_kept_for_it_is_dropped(
    database: Path, copy: Path, store: ContentStore
) -> None:
    client = open_client(copy)
    client.delete_model_version("m", "1")
    assert len(pin_owners(store, "model-version:")) == VERSIONS
    database.unlink()
    shutil.move(copy, database)
    open_client(database).delete_model_version("m", "2")
    assert len(pin_owners(store, "model-version:")) == VERSIONS - 2


def test_a_file_put_in_the_place_of_the_database_is_that_database(
    database: Path, copy: Path, store: ContentStore
) -> None:
    copy.replace(database)
    delete_versions(open_client(database))
    assert pin_owners(store) == []


def test_a_place_on_another_host_counts_as_in_use(
    database: Path, copy: Path, store: ContentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.unlink()
    monkeypatch.setattr("socket.gethostname", lambda: "elsewhere")
    delete_versions(open_client(copy))
    assert len(pin_owners(store, "model-version:")) == VERSIONS
    [locations] = list_databases(store.storage).values()
    assert len(locations) == 2


def test_the_same_file_seen_with_another_host_name_is_the_same(
    database: Path, cids: list[CID], store: ContentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    del cids
    monkeypatch.setattr("socket.gethostname", lambda: "container-2")
    delete_versions(open_client(database))
    assert pin_owners(store) == []
    [[location]] = list_databases(store.storage).values()
    assert location.host == "container-2"
