"""A forked copy and its original delete independently of each other."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
import pytest
import sqlalchemy
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from sqlalchemy.pool import NullPool

from mlflow_ipfs.binding import database_forks, mlflow_process
from mlflow_ipfs.binding.database_forks import ForkReport, fork_database
from mlflow_ipfs.binding.databases.claims import list_databases, list_forks
from mlflow_ipfs.binding.databases.drivers import name_driver
from mlflow_ipfs.binding.registry_id import ensure_registry_id
from mlflow_ipfs.content.cid import CID
from mlflow_ipfs.content.mfs import MfsPath
from mlflow_ipfs.content.names.entries import Frozen
from mlflow_ipfs.errors import ConflictError, NotFoundError, PolicyError, SettingsError
from support.copied_databases import VERSIONS, delete_versions, is_readable, make_versions, open_client
from support.mlflow_sites import pin_owners, storage_location
from support.storages import delete_block

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from mlflow_ipfs.content.store import ContentStore
    from support.postgres import PostgresServer

pytestmark = pytest.mark.slow


def registry_id_of(database: Path) -> str:
    with closing(sqlite3.connect(database)) as connection:
        [(found,)] = connection.execute("SELECT registry_id FROM mlflow_ipfs_registry").fetchall()
    return str(found)


def fork(database: Path, store: ContentStore, destination: str | None = None) -> ForkReport:
    return fork_database(sqlalchemy.make_url(f"sqlite:///{database}"), store, destination)


def delete_all(client: MlflowClient) -> None:
    """Delete versions and runs, and the runs' files, as `mlflow gc` does."""
    delete_versions(client)
    for run in client.search_runs(["0"]):
        get_artifact_repository(run.info.artifact_uri).delete_artifacts()


@pytest.fixture
def cids(client: MlflowClient) -> list[CID]:
    return make_versions(client)


@pytest.fixture
def copy(database: Path, cids: list[CID], tmp_path: Path) -> Path:
    del cids
    return Path(shutil.copy(database, tmp_path / "copy.db"))


def test_a_fork_has_names_of_its_own_for_everything(
    database: Path, copy: Path, cids: list[CID], store: ContentStore
) -> None:
    former = registry_id_of(database)
    report = fork(copy, store)
    new = registry_id_of(copy)
    assert new != former
    assert registry_id_of(database) == former
    assert (report.former_id, report.registry_id, report.versions, report.files) == (former, new, VERSIONS, VERSIONS)
    assert (report.missing, report.destination, report.others) == ((), None, 1)
    assert len(pin_owners(store, f"model-version:{new}/")) == VERSIONS
    assert len(pin_owners(store, f"model-version:{former}/")) == VERSIONS
    for number, cid in enumerate(cids, start=1):
        location = storage_location(copy, "m", number)
        assert location.startswith(f"mfs://mlflow/{new}/0/")
        assert location == storage_location(database, "m", number).replace(former, new)
        assert location.endswith(f"/@{cid}")
    places = {
        registry_id: [place.name for place in found] for registry_id, found in list_databases(store.storage).items()
    }
    assert places == {former: [str(database)], new: [str(copy)]}


@pytest.mark.parametrize("first", ["copy", "original"])
def test_each_deletes_without_the_other(
    client: MlflowClient, copy: Path, cids: list[CID], store: ContentStore, first: str
) -> None:
    fork(copy, store)
    order = [client, open_client(copy)] if first == "original" else [open_client(copy), client]
    delete_all(order[0])
    store.collect_garbage()
    assert is_readable(store, cids)
    assert len(order[1].search_runs(["0"])) == VERSIONS
    for number, run in enumerate(order[1].search_runs(["0"])):
        assert [item.path for item in order[1].list_artifacts(run.info.run_id)] == ["model"], number
        version = order[1].get_model_version_download_uri("m", str(number + 1))
        assert mlflow.artifacts.load_text(f"{version}/MLmodel").startswith("flavors")
    delete_all(order[1])
    store.collect_garbage()
    assert pin_owners(store) == []
    assert list(store.roots()) == []
    assert not any(store.storage.blocks.has(cid) for cid in cids)


def test_before_the_fork_no_files_of_the_shared_tree_are_deleted(
    copy: Path, store: ContentStore, database: Path
) -> None:
    client = open_client(copy)
    with pytest.raises(MlflowException, match=f"{database}.*databases fork") as raised:
        delete_all(client)
    assert raised.value.get_http_status_code() < 500
    assert len(store.storage.entries.walk("mlflow", "")) == VERSIONS


def test_a_fork_that_was_broken_off_goes_on(copy: Path, store: ContentStore, monkeypatch: pytest.MonkeyPatch) -> None:
    former = registry_id_of(copy)
    with monkeypatch.context() as patch:
        patch.setattr(database_forks, "_change_database", _die)
        with pytest.raises(KeyboardInterrupt):
            fork(copy, store)
    assert registry_id_of(copy) == former
    [begun] = list_forks(store.storage)
    assert fork(copy, store).registry_id == begun == registry_id_of(copy)
    assert len(pin_owners(store)) == 2 * VERSIONS


def test_a_fork_that_was_killed_after_its_commit_is_not_forked_again(
    copy: Path, store: ContentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    change = database_forks._change_database

    def change_and_die(*arguments: object) -> int:
        change(*arguments)  # type: ignore[arg-type]
        return _die()

    with monkeypatch.context() as patch:
        patch.setattr(database_forks, "_change_database", change_and_die)
        with pytest.raises(KeyboardInterrupt):
            fork(copy, store)
    forked_to, owners = registry_id_of(copy), pin_owners(store)
    with pytest.raises(PolicyError, match="already forked"):
        fork(copy, store)
    assert (registry_id_of(copy), pin_owners(store)) == (forked_to, owners)
    delete_all(open_client(copy))
    assert len(pin_owners(store)) == VERSIONS, "the fork deletes its own"


def test_a_database_whose_id_is_not_shared_is_forked_only_on_request(
    database: Path, cids: list[CID], store: ContentStore
) -> None:
    former = registry_id_of(database)
    with pytest.raises(PolicyError, match=rf"sqlite:///{database} was not changed.*--even-if-unshared"):
        fork(database, store)
    assert registry_id_of(database) == former
    fork_database(sqlalchemy.make_url(f"sqlite:///{database}"), store, None, even_if_unshared=True)
    assert registry_id_of(database) != former
    assert is_readable(store, cids)


def test_an_experiment_with_its_own_location_is_protected_too(
    client: MlflowClient, database: Path, tmp_path: Path
) -> None:
    location = "mfs://custom/foo"
    experiment = client.create_experiment("own", artifact_location=location)
    run = client.create_run(experiment)
    client.log_text(run.info.run_id, "text", "a.txt")
    copy = open_client(Path(shutil.copy(database, tmp_path / "copy.db")))
    [same] = copy.search_runs([experiment])
    assert same.info.artifact_uri.startswith(location)
    repository = get_artifact_repository(same.info.artifact_uri)
    with pytest.raises(MlflowException, match="databases fork"):
        repository.delete_artifacts()
    assert [item.path for item in client.list_artifacts(run.info.run_id)] == ["a.txt"]


def _die(*_: object) -> int:
    raise KeyboardInterrupt


def test_a_fork_of_a_database_that_changes_meanwhile_changes_nothing(
    copy: Path, store: ContentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    former = registry_id_of(copy)
    claim = database_forks._claim

    def claim_and_change(*arguments: object) -> int:
        with closing(sqlite3.connect(copy)) as connection, connection:
            connection.execute("UPDATE runs SET artifact_uri = 'mfs://mlflow/elsewhere' WHERE rowid = 1")
        return claim(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(database_forks, "_claim", claim_and_change)
    with pytest.raises(ConflictError, match="Stop the programs"):
        fork(copy, store)
    assert registry_id_of(copy) == former
    assert storage_location(copy, "m", 1).startswith(f"mfs://mlflow/{former}/")


def test_a_version_whose_content_is_gone_is_named(copy: Path, cids: list[CID], store: ContentStore) -> None:
    delete_block(store.storage, cids[2])
    report = fork(copy, store)
    assert (report.missing, report.versions) == (("m/3",), VERSIONS - 1)


def test_what_has_no_registry_id_is_not_forked(empty_database: Path, store: ContentStore, tmp_path: Path) -> None:
    database = Path(shutil.copy(empty_database, tmp_path / "plain.db"))
    with pytest.raises(NotFoundError, match="no registry id"):
        fork(database, store)
    with pytest.raises(NotFoundError, match="does not exist"):
        fork(tmp_path / "none.db", store)
    assert not (tmp_path / "none.db").exists()


class Proxied:
    """A database whose artifacts go through a server (level L1). This process acts as the server."""

    def __init__(self, client: MlflowClient, database: Path, store: ContentStore, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch
        self.serve("mfs://mlflow")
        self.run_id = client.create_run("0").info.run_id
        self.path = f"0/{self.run_id}/artifacts"
        with closing(sqlite3.connect(database)) as connection, connection:
            connection.execute("UPDATE runs SET artifact_uri = ?", (f"mlflow-artifacts:/{self.path}",))
        source = database.with_name("MLmodel")
        source.write_text("flavors: {}\n")
        store.files.put_file(MfsPath("mlflow", f"{self.path}/model/MLmodel"), source)
        client.create_registered_model("m")
        version = client.create_model_version("m", f"mlflow-artifacts:/{self.path}/model", self.run_id)
        self.cid = CID.parse(version.tags["ipfs.cid"])

    def serve(self, destination: str) -> None:
        self._patch.setenv(mlflow_process.SERVER_BACKEND_STORE, "x")
        self._patch.setenv(mlflow_process.SERVER_SERVES_ARTIFACTS, "true")
        self._patch.setenv(mlflow_process.SERVER_ARTIFACTS_DESTINATION, destination)

    def is_frozen(self, store: ContentStore, above: str = "") -> bool:
        return store.storage.entries.is_frozen(Frozen("mlflow", f"{above}{self.path}/model", self.cid))


@pytest.fixture
def proxied(client: MlflowClient, database: Path, store: ContentStore, monkeypatch: pytest.MonkeyPatch) -> Proxied:
    return Proxied(client, database, store, monkeypatch)


def test_behind_a_server_the_fork_has_a_destination_of_its_own(
    client: MlflowClient, proxied: Proxied, database: Path, store: ContentStore, tmp_path: Path
) -> None:
    copy = Path(shutil.copy(database, tmp_path / "copy.db"))
    report = fork(copy, store)
    new = report.registry_id
    assert report.destination == f"mfs://mlflow/{new}"
    assert storage_location(copy, "m", 1) == storage_location(database, "m", 1)
    assert store.files.stat(MfsPath("mlflow", f"{new}/{proxied.path}/model/MLmodel")) is not None
    assert proxied.is_frozen(store, f"{new}/")
    proxied.serve(report.destination)
    open_client(copy).delete_model_version("m", "1")
    assert not proxied.is_frozen(store, f"{new}/")
    assert proxied.is_frozen(store)
    proxied.serve("mfs://mlflow")
    client.delete_model_version("m", "1")
    assert not proxied.is_frozen(store)
    assert pin_owners(store) == []


def test_before_the_fork_a_server_deletes_no_files_that_the_copys_server_may_need(
    client: MlflowClient, proxied: Proxied, database: Path, store: ContentStore, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    del client
    copy = Path(shutil.copy(database, tmp_path / "copy.db"))
    monkeypatch.setenv(mlflow_process.SERVER_BACKEND_STORE, f"sqlite:///{copy}")
    repository = get_artifact_repository("mfs://mlflow")
    with pytest.raises(MlflowException, match="databases fork"):
        repository.delete_artifacts(proxied.path)
    assert store.files.stat(MfsPath("mlflow", proxied.path)) is not None
    fork(copy, store)
    monkeypatch.setenv(mlflow_process.SERVER_BACKEND_STORE, f"sqlite:///{database}")
    repository.delete_artifacts(proxied.path)
    assert store.files.stat(MfsPath("mlflow", proxied.path)) is None


def test_a_fork_whose_server_kept_the_old_destination_does_not_drop_the_originals_path(
    client: MlflowClient, proxied: Proxied, database: Path, store: ContentStore, tmp_path: Path
) -> None:
    copy = Path(shutil.copy(database, tmp_path / "copy.db"))
    fork(copy, store)
    open_client(copy).delete_model_version("m", "1")
    assert proxied.is_frozen(store)
    client.delete_model_version("m", "1")
    assert not proxied.is_frozen(store)


def test_outside_of_the_server_each_finds_its_own_frozen_path(
    client: MlflowClient, proxied: Proxied, database: Path, store: ContentStore, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    copy = Path(shutil.copy(database, tmp_path / "copy.db"))
    new = fork(copy, store).registry_id
    monkeypatch.delenv(mlflow_process.SERVER_BACKEND_STORE)
    client.delete_model_version("m", "1")
    assert (proxied.is_frozen(store), proxied.is_frozen(store, f"{new}/")) == (False, True)
    open_client(copy).delete_model_version("m", "1")
    assert not proxied.is_frozen(store, f"{new}/")


def test_a_destination_that_is_not_clear_has_to_be_named(
    client: MlflowClient, proxied: Proxied, database: Path, store: ContentStore, tmp_path: Path
) -> None:
    del client
    source = tmp_path / "MLmodel"
    store.files.put_file(MfsPath("other", f"team/{proxied.path}/model/MLmodel"), source)
    with pytest.raises(SettingsError, match="mfs://mlflow, mfs://other/team"):
        fork(Path(shutil.copy(database, tmp_path / "copy.db")), store)
    assert fork(tmp_path / "copy.db", store, "mfs://mlflow").files == 1


def test_a_destination_without_the_databases_files_is_refused(
    client: MlflowClient, proxied: Proxied, database: Path, store: ContentStore, tmp_path: Path
) -> None:
    del client, proxied
    copy = Path(shutil.copy(database, tmp_path / "copy.db"))
    former = registry_id_of(copy)
    with pytest.raises(SettingsError, match="none of this database's artifacts in --artifacts-destination mfs://mlfow"):
        fork(copy, store, "mfs://mlfow")
    assert registry_id_of(copy) == former


def test_an_interrupted_fork_behind_a_server_goes_on(
    client: MlflowClient, proxied: Proxied, database: Path, store: ContentStore, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    del client, proxied
    copy = Path(shutil.copy(database, tmp_path / "copy.db"))
    with monkeypatch.context() as patch:
        patch.setattr(database_forks, "_change_database", _die)
        with pytest.raises(KeyboardInterrupt):
            fork(copy, store)
    [begun] = list_forks(store.storage)
    assert fork(copy, store).destination == f"mfs://mlflow/{begun}"


@pytest.mark.postgres
def test_a_copy_in_postgresql(store: ContentStore, postgres: PostgresServer, tmp_path: Path) -> None:
    original = postgres.create_database()
    engine = sqlalchemy.create_engine(name_driver(postgres.uri(original)), poolclass=NullPool)
    former = ensure_registry_id(engine)
    engine.dispose()
    (tmp_path / "MLmodel").write_text("flavors: {}\n")
    place = MfsPath("mlflow", f"{former}/1/r1/artifacts")
    store.files.put_file(place.join("MLmodel"), tmp_path / "MLmodel")
    cid = store.files.freeze(place, f"model-version:{former}/m/1").cid
    for statement in (
        "CREATE TABLE experiments (experiment_id INTEGER, artifact_location VARCHAR(256))",
        "CREATE TABLE runs (run_uuid VARCHAR(32), experiment_id INTEGER, artifact_uri VARCHAR(200))",
        "CREATE TABLE model_versions (name TEXT, version INTEGER, source TEXT, storage_location TEXT, current_stage TEXT)",
        f"INSERT INTO experiments VALUES (1, 'mfs://mlflow/{former}/1')",
        f"INSERT INTO runs VALUES ('r1', 1, '{place}')",
        f"INSERT INTO model_versions VALUES ('m', 1, '{place}', '{place}/@{cid}', 'None')",
    ):
        postgres.ask(original, statement)
    copy = postgres.create_database(template=original)
    report = fork_database(sqlalchemy.make_url(name_driver(postgres.uri(copy))), store, None, even_if_unshared=True)
    new = report.registry_id
    assert (report.former_id, report.versions, report.files, report.locations) == (former, 1, 1, 4)
    moved = str(place).replace(former, new)
    assert postgres.ask(copy, "SELECT source, storage_location FROM model_versions") == [(moved, f"{moved}/@{cid}")]
    assert postgres.ask(copy, "SELECT registry_id FROM mlflow_ipfs_registry") == [(new,)]
    assert postgres.ask(original, "SELECT artifact_uri FROM runs") == [(str(place),)]
    assert store.files.stat(MfsPath("mlflow", f"{new}/1/r1/artifacts/MLmodel")) is not None
    assert store.storage.entries.is_frozen(Frozen("mlflow", f"{new}/1/r1/artifacts", cid))
