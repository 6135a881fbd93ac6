"""Sources of model versions with odd names, in crowded experiments, of hostile shape, or unreadable."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
import pytest
from mlflow.entities.logged_model_status import LoggedModelStatus
from mlflow.exceptions import MlflowException

from mlflow_ipfs.content.cid import CID, DAG_PB
from mlflow_ipfs.content.codecs.dag_pb import Link, encode_node
from mlflow_ipfs.content.codecs.unixfs import NodeType, UnixFSData, encode_data
from support.mlflow_sites import storage_location
from support.storages import put_block

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from mlflow_ipfs.content.store import ContentStore

pytestmark = pytest.mark.slow


@pytest.fixture
def run_id(client: MlflowClient) -> str:
    client.create_registered_model("m")
    return str(client.create_run("0").info.run_id)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    directory = tmp_path / "model"
    directory.mkdir()
    (directory / "MLmodel").write_text("flavors: {}\n")
    return directory


@pytest.mark.parametrize("name", ["it's", 'a "b"', "x' OR name = 'y", "user@site", "teams/me@work/net", "a%2e b"])
def test_a_source_may_have_any_name(
    name: str, client: MlflowClient, run_id: str, directory: Path, database: Path
) -> None:
    client.log_artifacts(run_id, str(directory), name)
    version = client.create_model_version("m", f"runs:/{run_id}/{name}")
    frozen = f"{client.get_run(run_id).info.artifact_uri}/{name}/@{version.tags['ipfs.cid']}"
    assert storage_location(database, "m", 1) == frozen
    client.copy_model_version("models:/m/1", "copy")
    assert storage_location(database, "copy", 1) == frozen
    assert (Path(mlflow.artifacts.download_artifacts("models:/copy/1")) / "MLmodel").read_text() == "flavors: {}\n"


def test_a_logged_model_is_found_among_many_of_its_name(client: MlflowClient, run_id: str, directory: Path) -> None:
    oldest = client.create_logged_model("0", name="net", source_run_id=run_id)
    client.log_model_artifacts(oldest.model_id, str(directory))
    client.finalize_logged_model(oldest.model_id, LoggedModelStatus.READY)
    for _ in range(101):  # MLflow lists 100 at a time, the newest first
        client.create_logged_model("0", name="net")
    version = client.create_model_version("m", f"runs:/{run_id}/net")
    assert version.tags["ipfs.size_bytes"] == str(len("flavors: {}\n"))


@pytest.mark.parametrize("source", ["", "models:/m@champion", "models:/m/latest", "models:/"])
def test_a_source_that_names_nothing_certain_is_no_fault_of_the_server(
    source: str, client: MlflowClient, run_id: str
) -> None:
    del run_id
    with pytest.raises(MlflowException) as caught:
        client.create_model_version("m", source)
    assert caught.value.get_http_status_code() == 400  # 500 would make clients try again for minutes


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("nobody://knows/this", "cannot be read"),
        ("mlflow-artifacts:/0/model", "there is no file at or below mfs://mlflow/0"),
    ],
)
def test_a_source_that_mlflow_cannot_read(
    source: str, reason: str, client: MlflowClient, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    del run_id
    with pytest.raises(MlflowException, match=reason) as caught:
        client.create_model_version("m", source)
    assert caught.value.get_http_status_code() == 404
    monkeypatch.setenv("MLFLOW_IPFS_FREEZE", "best_effort")
    tags = client.create_model_version("m", source).tags
    assert tags["ipfs.frozen"] == "false"
    assert reason in tags["ipfs.unfrozen_reason"]


def nested(store: ContentStore, depth: int, links: int) -> CID:
    """A directory with directories in it, each the same ``links`` times; pinned."""
    cid = store.add_bytes(b"1234")
    for _ in range(depth):
        names = (f"{number}".encode() for number in range(links))
        block = encode_node([Link(cid, name, 4) for name in names], encode_data(UnixFSData(NodeType.DIRECTORY)))
        cid = CID.of(block, DAG_PB)
        put_block(store.storage, cid, block)
    store.pin(cid)
    return cid


@pytest.mark.parametrize(("depth", "links", "size_bytes"), [(60, 2, 4 << 60), (1500, 1, 4)])
@pytest.mark.slow
def test_content_of_hostile_shape_is_counted_in_no_time(
    depth: int, links: int, size_bytes: int, client: MlflowClient, run_id: str, store: ContentStore
) -> None:
    del run_id
    version = client.create_model_version("m", f"ipfs://{nested(store, depth, links)}")
    assert version.tags["ipfs.size_bytes"] == str(size_bytes)
