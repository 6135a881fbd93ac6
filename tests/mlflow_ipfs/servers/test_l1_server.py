"""L1: MLflow's own tracking store with this package's registry store, in a real server with two workers."""

from __future__ import annotations

import concurrent.futures
import json
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.http_artifact_repo import HttpArtifactRepository

from mlflow_ipfs import log_dataset
from mlflow_ipfs.config import Settings
from mlflow_ipfs.opening import open_store
from support.clients import ask, run_client
from support.mlflow_server import MlflowServer, run_mlflow_server
from support.mlflow_sites import storage_location
from support.temporary_files import watch_temporary_files

if TYPE_CHECKING:
    from collections.abc import Iterator


pytestmark = [
    pytest.mark.server,
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred"),  # MLflow's own, at the import of mlflow.pyfunc
]

BIG = random.Random(7).randbytes((2 << 20) + 5)
AT_ONCE_SECONDS = 60  # measured 0.02; MLflow's own way takes 246 s of retries


@dataclass(frozen=True)
class L1:
    """A running server, its directory, and queries of its database and store."""

    server: MlflowServer
    directory: Path

    @property
    def url(self) -> str:
        return self.server.url

    @property
    def database(self) -> Path:
        return self.directory / "mlflow.db"

    @property
    def temporary(self) -> Path:
        return self.directory / "tmp"

    def settings(self) -> Settings:
        return Settings(store=self.directory / "store")

    def artifact(self, path: str) -> str:
        return f"{self.url}/api/2.0/mlflow-artifacts/artifacts/{path}"


@pytest.fixture(scope="module")
def l1(tmp_path_factory: pytest.TempPathFactory) -> Iterator[L1]:
    directory = tmp_path_factory.mktemp("l1")
    arguments = (
        *("--backend-store-uri", f"sqlite:///{directory}/mlflow.db"),
        *("--registry-store-uri", f"ipfs+sqlite:///{directory}/mlflow.db"),
        *("--artifacts-destination", "mfs://mlflow"),
    )
    (directory / "tmp").mkdir()
    env = {"MLFLOW_IPFS_STORE": f"local:{directory}/store", "TMPDIR": f"{directory}/tmp"}
    with run_mlflow_server(directory, *arguments, env=env) as server:
        yield L1(server, directory)


@pytest.fixture
def client(l1: L1) -> Iterator[MlflowClient]:
    mlflow.set_tracking_uri(l1.url)
    yield MlflowClient()
    mlflow.set_tracking_uri(None)  # type: ignore[arg-type]


@pytest.fixture
def run_id(client: MlflowClient, request: pytest.FixtureRequest) -> str:
    return str(client.create_run(client.create_experiment(request.node.name)).info.run_id)


def path_of(client: MlflowClient, run_id: str) -> str:
    return str(client.get_run(run_id).info.artifact_uri).removeprefix("mlflow-artifacts:/")


TRAIN = """
    import importlib.util, mlflow, sklearn.linear_model
    assert importlib.util.find_spec("mlflow_ipfs") is None, "this must be a stock environment"
    mlflow.set_tracking_uri(sys.argv[1])
    mlflow.set_experiment("stock")
    x, y = [[0.0], [1.0], [2.0]], [1.0, 3.0, 5.0]
    with mlflow.start_run():
        fitted = sklearn.linear_model.LinearRegression().fit(x, y)
        info = mlflow.sklearn.log_model(fitted, name="line", registered_model_name="line", pip_requirements=["mlflow"], input_example=x)
    client = mlflow.MlflowClient()
    client.set_registered_model_alias("line", "champion", info.registered_model_version)
    # Somebody overwrites the files of the logged model.
    other = sklearn.linear_model.LinearRegression().fit(x, [0.0, 0.0, 0.0])
    mlflow.sklearn.save_model(other, "other", pip_requirements=["mlflow"])
    client.log_model_artifacts(info.model_id, "other")
    answer([info.model_id, info.registered_model_version])
"""

LOAD = """
    import importlib.util, mlflow
    mlflow.set_tracking_uri(sys.argv[1])
    answer([float(mlflow.pyfunc.load_model(uri).predict([[3.0]])[0]) for uri in sys.argv[2:]])
"""


def test_stock_clients_without_our_package_load_frozen_versions(l1: L1, stock_python: Path, tmp_path: Path) -> None:
    model_id, version = run_client(TRAIN, l1.url, directory=tmp_path, python=stock_python)
    uris = ["models:/line@champion", f"models:/line/{version}", f"models:/{model_id}"]
    predictions = run_client(LOAD, l1.url, *uris, directory=tmp_path, python=stock_python)
    assert predictions == pytest.approx([7, 7, 0])
    location = storage_location(l1.database, "line", version)
    tags = MlflowClient(l1.url).get_model_version("line", str(version)).tags
    assert location.startswith(f"mlflow-artifacts:/1/models/{model_id}/artifacts/@{tags['ipfs.cid']}")
    with open_store(l1.settings()) as store:
        assert "MLmodel" in {entry.name for entry in store.ls(tags["ipfs.cid"])}
        assert store.verify(tags["ipfs.cid"]).ok


LOAD_DATASET = """
    import mlflow, pathlib
    mlflow.set_tracking_uri(sys.argv[1])
    [logged] = mlflow.get_run(sys.argv[2]).inputs.dataset_inputs
    answer(pathlib.Path(mlflow.data.get_source(logged).load()).read_text())
"""


def test_a_dataset_that_a_client_logs_is_in_the_servers_store_and_a_stock_client_loads_it(
    l1: L1, client: MlflowClient, run_id: str, stock_python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_IPFS_STORE", f"local:{tmp_path}/of-the-client")
    (tmp_path / "data.csv").write_text("x,y\n")
    dataset = log_dataset(tmp_path / "data.csv", run_id=run_id)
    client.log_text(run_id, "flavors: {}\n", "model/MLmodel")
    client.create_registered_model("trained")
    version = client.create_model_version("trained", f"runs:/{run_id}/model", run_id)
    assert version.tags["ipfs.dataset_cids"] == dataset.cid
    with open_store(l1.settings()) as store:
        assert store.has(dataset.cid)
    assert not (tmp_path / "of-the-client").exists()
    assert run_client(LOAD_DATASET, l1.url, run_id, directory=tmp_path, python=stock_python) == "x,y\n"


def test_a_missing_artifact_is_answered_at_once(l1: L1, client: MlflowClient, run_id: str) -> None:
    started = time.monotonic()
    with pytest.raises(Exception, match="404|No such|no artifact"):
        mlflow.artifacts.download_artifacts(f"{client.get_run(run_id).info.artifact_uri}/no/such/file")
    answer = ask(l1.artifact(f"{path_of(client, run_id)}/no/such/file"))
    assert time.monotonic() - started < AT_ONCE_SECONDS
    assert answer.status == 404
    assert json.loads(answer.body)["error_code"] == "RESOURCE_DOES_NOT_EXIST"


def test_a_missing_model_of_a_run_is_answered_at_once(client: MlflowClient, run_id: str) -> None:
    del client
    started = time.monotonic()
    with pytest.raises(MlflowException):
        mlflow.pyfunc.load_model(f"runs:/{run_id}/model")
    assert time.monotonic() - started < AT_ONCE_SECONDS


def test_many_writers_through_two_workers(client: MlflowClient, run_id: str, tmp_path: Path) -> None:
    contents = {f"part-{n % 3}/file-{n}.bin": random.Random(n).randbytes(n * 7919) for n in range(40)}
    for name, data in contents.items():
        (tmp_path / "all" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "all" / name).write_bytes(data)

    def put(name: str) -> None:
        MlflowClient().log_artifact(run_id, str(tmp_path / "all" / name), f"model/{name.partition('/')[0]}")

    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        list(pool.map(put, contents))
    client.create_registered_model("many")
    source = f"{client.get_run(run_id).info.artifact_uri}/model"
    version = client.create_model_version("many", source, run_id)
    client.log_artifacts(run_id, str(tmp_path / "all"), "model/again")
    directory = Path(mlflow.artifacts.download_artifacts(f"models:/many/{version.version}"))
    found = {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    assert found == contents


def test_listings_have_sizes(client: MlflowClient, run_id: str) -> None:
    client.log_text(run_id, "hello", "a/b.txt")
    assert [(item.path, item.is_dir, item.file_size) for item in client.list_artifacts(run_id)] == [("a", True, None)]
    (item,) = client.list_artifacts(run_id, "a")
    assert (item.path, item.is_dir, item.file_size) == ("a/b.txt", False, 5)


def test_a_file_is_overwritten_and_deleted(l1: L1, client: MlflowClient, run_id: str) -> None:
    url = l1.artifact(f"{path_of(client, run_id)}/x.txt")
    for text in (b"first", b"second"):
        assert ask(url, method="PUT", body=text).status == 200
        assert ask(url).body == text
    for _ in range(2):
        assert ask(url, method="DELETE").status == 200
    assert ask(url).status == 404


def test_a_large_file_comes_and_goes_without_a_copy(l1: L1, client: MlflowClient, run_id: str) -> None:
    url = l1.artifact(f"{path_of(client, run_id)}/big.bin")
    with watch_temporary_files(l1.temporary, l1.server.pid) as temporary:
        assert ask(url, method="PUT", body=BIG).status == 200
        whole = ask(url)
        part = ask(url, headers={"Range": "bytes=1048570-1048583"})
    assert whole.body == BIG
    assert whole.headers["content-length"] == str(len(BIG))  # only known if the file is sent as it is
    assert (part.status, part.body) == (206, BIG[1048570:1048584])
    assert temporary == {}


def test_a_page_keeps_its_content_type(l1: L1, client: MlflowClient, run_id: str) -> None:
    page = b"<p>" + b"x" * (2 << 20)
    url = l1.artifact(f"{path_of(client, run_id)}/report.html")
    assert ask(url, method="PUT", body=page).status == 200
    answer = ask(url)
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.body == page


def test_a_directory_is_no_file(l1: L1, client: MlflowClient, run_id: str) -> None:
    client.log_text(run_id, "hello", "directory/b.txt")
    answer = ask(l1.artifact(f"{path_of(client, run_id)}/directory"))
    assert answer.status == 400
    assert b"directory" in answer.body


@pytest.mark.parametrize("path", ["../../etc/passwd", "1/%2e%2e/%2e%2e/x"])
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_paths_that_leave_the_root_are_refused(l1: L1, path: str, method: str) -> None:
    answer = ask(l1.artifact(path), method=method, body=b"x" if method == "PUT" else None)
    assert answer.status in {400, 404}, answer.body


def test_frozen_paths_refuse_writes(l1: L1, client: MlflowClient, run_id: str) -> None:
    client.log_text(run_id, "one", "model/weights.txt")
    client.create_registered_model("fixed")
    artifacts = client.get_run(run_id).info.artifact_uri
    cid = client.create_model_version("fixed", f"{artifacts}/model", run_id).tags["ipfs.cid"]
    url = l1.artifact(f"{path_of(client, run_id)}/model/@{cid}/weights.txt")
    assert ask(url).body == b"one"
    for method, body in (("PUT", b"two"), ("DELETE", None)):
        answer = ask(url, method=method, body=body)
        assert answer.status == 403
        assert json.loads(answer.body)["error_code"] == "PERMISSION_DENIED"
    assert ask(url).body == b"one"
    other = l1.artifact(f"{path_of(client, run_id)}/@{cid}/weights.txt")
    assert ask(other).status == 404, "a CID is readable only below the path where it was frozen"


def test_damage_is_answered_at_once_and_names_the_cid(l1: L1, client: MlflowClient, run_id: str) -> None:
    data = random.Random(run_id).randbytes(3 << 20)
    url = l1.artifact(f"{path_of(client, run_id)}/model/weights.bin")
    assert ask(url, method="PUT", body=data).status == 200
    client.create_registered_model("damaged")
    artifacts = client.get_run(run_id).info.artifact_uri
    cid = client.create_model_version("damaged", f"{artifacts}/model", run_id).tags["ipfs.cid"]
    with open_store(l1.settings()) as store:
        file = store.local_path(cid, "weights.bin")
        assert file is not None
        file.chmod(0o644)
        with file.open("r+b") as opened:
            opened.seek(2 << 20)
            opened.write(bytes(64))
        root = str(store.resolve(cid, "weights.bin"))
    started = time.monotonic()
    answer = ask(url)
    assert answer.status == 409
    assert json.loads(answer.body)["error_code"] == "DATA_LOSS"
    with pytest.raises(Exception, match="bafy|bafk"):
        mlflow.artifacts.download_artifacts("models:/damaged/1")
    assert time.monotonic() - started < AT_ONCE_SECONDS
    assert root in answer.body.decode() or "bafk" in answer.body.decode()


class TestWhatAServerReadsForAClient:
    def test_content_that_a_user_pinned(self, l1: L1, client: MlflowClient, tmp_path: Path) -> None:
        (tmp_path / "model").mkdir()
        (tmp_path / "model/MLmodel").write_text("flavors: {}\n")
        with open_store(l1.settings()) as store:
            cid = store.add(tmp_path / "model", pin=None).cid
            wrapper = store.wrap(cid, "model", pin="user")
        client.create_registered_model("by-cid")
        version = client.create_model_version("by-cid", f"ipfs://{wrapper}/model")
        assert version.tags["ipfs.cid"] == str(cid)
        location = storage_location(l1.database, "by-cid", 1)
        assert location.startswith("mlflow-artifacts:/0/registry/")
        assert location.endswith(f"/@{cid}")
        assert (Path(mlflow.artifacts.download_artifacts("models:/by-cid/1")) / "MLmodel").exists()

    def test_content_of_others_is_refused(self, client: MlflowClient, run_id: str) -> None:
        client.log_text(run_id, "secret", "model/MLmodel")
        client.create_registered_model("others")
        artifacts = client.get_run(run_id).info.artifact_uri
        cid = client.create_model_version("others", f"{artifacts}/model", run_id).tags["ipfs.cid"]
        with pytest.raises(MlflowException, match="not pinned by a user"):
            client.create_model_version("others", f"ipfs://{cid}/x")

    @pytest.mark.parametrize("source", ["s3://bucket/model", "mfs://mlflow/1/some/run", "mfs://other/x"])
    def test_what_is_not_listed_is_refused(self, client: MlflowClient, source: str) -> None:
        name = source.replace("/", "-").replace(":", "")
        client.create_registered_model(name)
        with pytest.raises(MlflowException, match="PERMISSION_DENIED"):
            client.create_model_version(name, source)
        assert client.search_model_versions(f"name = '{name}'") == []


class TestFreezeRequired:
    """A client cannot set a tag that exempts a version from freezing."""

    UNFROZEN = "tags.`ipfs.frozen` = 'false'"

    def overwrite(self, l1: L1, location: str) -> None:
        url = l1.artifact(f"{location.removeprefix('mlflow-artifacts:/')}/weights.txt")
        assert ask(url, method="PUT", body=b"two").status == 200

    def test_a_registered_model_tagged_as_a_prompt(self, l1: L1, client: MlflowClient, run_id: str) -> None:
        client.log_text(run_id, "one", "model/weights.txt")
        client.create_registered_model("no-prompt")
        client.set_registered_model_tag("no-prompt", "mlflow.prompt.is_prompt", "true")
        rest = client._get_registry_client().store  # the fluent client would refuse some of this
        location = f"{client.get_run(run_id).info.artifact_uri}/model"
        rest.create_model_version("no-prompt", location, run_id)
        rest.delete_registered_model_tag("no-prompt", "mlflow.prompt.is_prompt")
        self.overwrite(l1, location)
        assert mlflow.artifacts.load_text("models:/no-prompt/1/weights.txt") == "one"
        assert "ipfs.cid" in client.get_model_version("no-prompt", "1").tags

    def test_a_logged_model_tagged_as_external(self, l1: L1, client: MlflowClient, run_id: str, tmp_path: Path) -> None:
        (tmp_path / "weights.txt").write_text("one")
        experiment_id = client.get_run(run_id).info.experiment_id
        model = client.create_logged_model(experiment_id, name="x", tags={"mlflow.model.isExternal": "true"})
        client.log_model_artifacts(model.model_id, str(tmp_path))
        client.finalize_logged_model(model.model_id, "READY")
        client.create_registered_model("no-external")
        client.create_model_version("no-external", f"models:/{model.model_id}", model_id=model.model_id)
        self.overwrite(l1, model.artifact_location)
        assert mlflow.artifacts.load_text("models:/no-external/1/weights.txt") == "one"
        with pytest.raises(MlflowException, match="PERMISSION_DENIED"):
            client.set_model_version_tag("no-external", "1", "ipfs.cid", "bafkqaaa")
        with pytest.raises(MlflowException, match="PERMISSION_DENIED"):
            client.delete_model_version_tag("no-external", "1", "ipfs.cid")

    def test_a_path_that_has_no_files_yet(self, client: MlflowClient, run_id: str) -> None:
        client.create_registered_model("early")
        with pytest.raises(MlflowException, match="RESOURCE_DOES_NOT_EXIST"):
            client.create_model_version("early", f"{client.get_run(run_id).info.artifact_uri}/later", run_id)
        assert client.search_model_versions("name = 'early'") == []

    def test_prompts_and_external_models_work(self, client: MlflowClient, run_id: str) -> None:
        mlflow.genai.register_prompt("greeting", "Hello {{name}}")
        mlflow.genai.register_prompt("greeting", "Hi {{name}}")
        assert mlflow.genai.load_prompt("prompts:/greeting/2").template == "Hi {{name}}"
        prompts = client.search_model_versions(f"{self.UNFROZEN} AND tags.`mlflow.prompt.is_prompt` = 'true'")
        assert {(version.name, int(version.version)) for version in prompts} == {("greeting", 1), ("greeting", 2)}
        model = mlflow.create_external_model(name="elsewhere", experiment_id=client.get_run(run_id).info.experiment_id)
        version = mlflow.register_model(f"models:/{model.model_id}", "elsewhere")
        assert "ipfs.cid" in version.tags
        assert client.copy_model_version("models:/elsewhere/1", "elsewhere-copy").tags == version.tags
        assert client.search_model_versions(self.UNFROZEN) == []


def test_traces_images_and_tables(client: MlflowClient, run_id: str) -> None:
    import numpy  # noqa: ICN001 - only here

    client.log_image(run_id, numpy.zeros((4, 4, 3), dtype=numpy.uint8), "image.png")
    client.log_table(run_id, {"a": [1, 2]}, "table.json")
    client.log_dict(run_id, {"k": 1}, "d.json")
    assert client.load_table("".join(client.get_run(run_id).info.experiment_id), "table.json").shape[0] == 2
    image: Any = mlflow.artifacts.load_image(f"runs:/{run_id}/image.png")
    assert image.size == (4, 4)
    experiment_id = client.get_run(run_id).info.experiment_id
    mlflow.set_experiment(experiment_id=experiment_id)

    @mlflow.trace
    def work(x: int) -> int:
        return x + 1

    assert work(1) == 2
    mlflow.flush_trace_async_logging()
    (trace,) = mlflow.search_traces(locations=[experiment_id], return_type="list")
    assert trace.data.spans[0].name == "work"


def test_a_client_writes_into_no_run_of_another_through_a_location_that_it_chose(
    l1: L1, client: MlflowClient, run_id: str
) -> None:
    victim = path_of(client, run_id)
    client.log_text(run_id, "mine", "notes.txt")
    with pytest.raises(MlflowException, match="this server chooses the locations") as caught:
        client.create_experiment("intruder", artifact_location=f"mfs://mlflow/{victim}")
    assert caught.value.error_code == "PERMISSION_DENIED"
    assert client.get_experiment_by_name("intruder") is None
    assert ask(l1.artifact(f"{victim}/notes.txt")).body == b"mine"


def test_mlflows_client_sends_no_empty_directories_to_a_server(
    client: MlflowClient, run_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a server of this package lists what a stock server lists. Without a server, empty directories are kept."""
    (tmp_path / "model" / "empty").mkdir(parents=True)
    (tmp_path / "model" / "MLmodel").write_text("x")
    sent: list[str] = []
    upload = HttpArtifactRepository.log_artifact

    def record(self: HttpArtifactRepository, local_file: str, artifact_path: str | None = None) -> None:
        sent.append(Path(local_file).name)
        upload(self, local_file, artifact_path)  # type: ignore[no-untyped-call]

    monkeypatch.setattr(HttpArtifactRepository, "log_artifact", record)
    client.log_artifacts(run_id, str(tmp_path / "model"), "model")
    assert sent == ["MLmodel"]
    assert [item.path for item in client.list_artifacts(run_id, "model")] == ["model/MLmodel"]
