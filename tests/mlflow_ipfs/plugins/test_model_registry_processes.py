"""The registry store in a server's worker, and after another process died."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from mlflow.exceptions import MlflowException

from mlflow_ipfs.binding import mlflow_process
from mlflow_ipfs.content.cid import CID
from mlflow_ipfs.content.mfs import MfsPath
from mlflow_ipfs.content.names.pins import Pin, PinState
from support.mlflow_sites import pin_owners, storage_location
from support.registered_models import model_directory, weights_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

    from mlflow_ipfs.content.store import ContentStore

pytestmark = pytest.mark.slow


class TestAsInAServer:
    """The registry store in the environment of a server's worker. Real servers are in ``servers/``."""

    @pytest.fixture
    def serve(self, client: MlflowClient, database: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
        del client

        def become_a_worker(root: str) -> None:
            monkeypatch.setenv(mlflow_process.SERVER_BACKEND_STORE, f"ipfs+sqlite:///{database}")
            monkeypatch.setenv(mlflow_process.SERVER_SERVES_ARTIFACTS, "true")
            monkeypatch.setenv(mlflow_process.SERVER_ARTIFACTS_DESTINATION, "mfs://mlflow/below")
            monkeypatch.setenv(mlflow_process.SERVER_ARTIFACT_ROOT, root)

        return become_a_worker

    @pytest.fixture
    def proxied_run(self, client: MlflowClient, store: ContentStore, tmp_path: Path, request: Any) -> Any:
        root = getattr(request, "param", "mlflow-artifacts:/")
        run = client.create_run(client.create_experiment("proxied", artifact_location=f"{root.rstrip('/')}/7"))
        place = MfsPath("mlflow", f"below/7/{run.info.run_id}/artifacts/best")
        store.files.put_tree(place, model_directory(tmp_path / "model"))
        client.create_registered_model("m")
        return run

    @pytest.mark.parametrize(
        "proxied_run", ["mlflow-artifacts:/", "mlflow-artifacts://mlflow.example:5000/"], indirect=True
    )
    def test_a_proxied_version_is_below_its_experiment(
        self, serve: Callable[[str], None], proxied_run: Any, client: MlflowClient, database: Path, store: ContentStore
    ) -> None:
        root = proxied_run.info.artifact_uri.partition("7/")[0]
        serve(root)
        version = client.create_model_version("m", f"{proxied_run.info.artifact_uri}/best", proxied_run.info.run_id)
        location = storage_location(database, "m", 1)
        assert location == f"{proxied_run.info.artifact_uri}/best/@{version.tags['ipfs.cid']}"
        (frozen,) = store.storage.entries.list_frozen()
        assert f"{frozen.root}/{frozen.path}" == f"mlflow/below/7/{proxied_run.info.run_id}/artifacts/best"

    def test_another_process_unfreezes_what_a_server_froze(
        self,
        serve: Callable[[str], None],
        proxied_run: Any,
        client: MlflowClient,
        store: ContentStore,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        serve("mlflow-artifacts:/")
        client.create_model_version("m", f"{proxied_run.info.artifact_uri}/best", proxied_run.info.run_id)
        for name in (mlflow_process.SERVER_BACKEND_STORE, mlflow_process.SERVER_ARTIFACTS_DESTINATION):
            monkeypatch.delenv(name)
        client.delete_model_version("m", "1")
        assert pin_owners(store) == []
        assert list(store.storage.entries.list_frozen()) == []

    def test_the_artifacts_of_another_server_are_foreign(
        self, serve: Callable[[str], None], client: MlflowClient
    ) -> None:
        client.create_registered_model("m")
        serve("mlflow-artifacts:/")
        with pytest.raises(MlflowException, match="MLFLOW_IPFS_IMPORT_ALLOW") as caught:
            client.create_model_version("m", "mlflow-artifacts://other:5000/7/run/artifacts/best")
        assert caught.value.error_code == "PERMISSION_DENIED"

    def test_imported_content_is_below_the_runs_experiment(
        self,
        serve: Callable[[str], None],
        proxied_run: Any,
        client: MlflowClient,
        store: ContentStore,
        tmp_path: Path,
        database: Path,
        registry_id: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        serve("mlflow-artifacts:/")
        monkeypatch.setenv("MLFLOW_IPFS_IMPORT_ALLOW", str(tmp_path / "models"))
        directory = model_directory(tmp_path / "models/net")
        cid = client.create_model_version("m", str(directory), proxied_run.info.run_id).tags["ipfs.cid"]
        experiment_id = proxied_run.info.experiment_id
        assert storage_location(database, "m", 1) == f"mlflow-artifacts:/{experiment_id}/registry/{registry_id}/@{cid}"
        with pytest.raises(MlflowException, match="MLFLOW_IPFS_IMPORT_ALLOW"):
            client.create_model_version(
                "m", str(model_directory(tmp_path / "models-secret/net")), proxied_run.info.run_id
            )
        assert pin_owners(store) == [f"model-version:{registry_id}/m/1"]

    def test_a_location_that_the_database_cannot_hold_is_refused(
        self, client: MlflowClient, store: ContentStore, run_id: str, tmp_path: Path
    ) -> None:
        path = "/".join(["a-long-name" * 10] * 4)
        client.log_artifacts(run_id, str(model_directory(tmp_path / "model")), path)
        client.create_registered_model("m")
        with pytest.raises(MlflowException, match="shorter directory names"):
            client.create_model_version("m", f"runs:/{run_id}/{path}", run_id)
        assert pin_owners(store) == []
        assert list(store.storage.entries.list_frozen()) == []


class TestReconcile:
    """The changes of a process that died are completed when the registry is opened again."""

    @pytest.fixture
    def reopen(self, client: MlflowClient, database: Path) -> Any:
        from mlflow_ipfs.plugins.model_registry_store import build_model_registry_store

        del client
        return lambda: build_model_registry_store(f"ipfs+sqlite:///{database}")

    def test_a_version_without_its_pin_gets_it(
        self, reopen: Any, version: ModelVersion, store: ContentStore, registry_id: str, database: Path
    ) -> None:
        cid = CID.parse(version.tags["ipfs.cid"])
        place = storage_location(database, "digits", 1).removeprefix("mfs://").partition("/@")[0]
        owner = f"model-version:{registry_id}/digits/1"
        pending = Pin(f"model-version-pending:{registry_id}/1000000000-ab/{place}", cid, PinState.PENDING)
        store.pins.replace(Pin(owner, cid), pending)
        reopen()
        assert pin_owners(store) == [owner]
        assert weights_of("models:/digits/1") == "one"

    def test_a_pin_without_a_version_goes_when_it_is_old(
        self, reopen: Any, logged_model: Any, store: ContentStore, registry_id: str
    ) -> None:
        place = MfsPath(*logged_model.artifact_location.removeprefix("mfs://").split("/", 1))
        store.files.freeze(place, f"model-version-pending:{registry_id}/1000000000-ab/{place.root}/{place.path}")
        reopen()
        assert pin_owners(store) == []
        assert list(store.storage.entries.list_frozen()) == []

    def test_a_young_pending_pin_stays(self, reopen: Any, store: ContentStore, registry_id: str) -> None:
        cid = store.add_bytes(b"x")
        owner = f"model-version-pending:{registry_id}/99999999999-ab"
        store.pins.add(Pin(owner, cid, PinState.PENDING))
        reopen()
        assert pin_owners(store) == [owner]

    def test_another_registrys_pins_are_left_alone(self, reopen: Any, store: ContentStore) -> None:
        cid = store.add_bytes(b"x")
        owners = ["model-version-pending:other/1000000000-ab", "model-version:other/m/1"]
        for owner in owners:
            store.pins.add(Pin(owner, cid))
        reopen()
        assert pin_owners(store) == sorted(owners)

    def test_the_registry_opens_without_its_store(
        self, reopen: Any, version: ModelVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "broken").mkdir()
        (tmp_path / "broken/format.json").write_text("{}")
        monkeypatch.setenv("MLFLOW_IPFS_STORE", f"local:{tmp_path}/broken")
        assert reopen().get_model_version("digits", "1").version == version.version
