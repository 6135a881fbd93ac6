"""Model versions that a client tries to register unfrozen, and versions without files: prompts, external models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import pytest
from mlflow.entities.logged_model_status import LoggedModelStatus
from mlflow.entities.model_registry import ModelVersionTag
from mlflow.exceptions import MlflowException
from mlflow.prompt.constants import IS_PROMPT_TAG_KEY, PROMPT_TEXT_TAG_KEY
from mlflow.utils.mlflow_tags import MLFLOW_MODEL_IS_EXTERNAL

from mlflow_ipfs.binding import mlflow_process
from support.mlflow_sites import pin_owners, storage_location

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlflow import MlflowClient

    from mlflow_ipfs.content.store import ContentStore

pytestmark = pytest.mark.slow

UNFROZEN = "tags.`ipfs.frozen` = 'false'"
PROMPTS = f"tags.`{IS_PROMPT_TAG_KEY}` = 'true'"


def model_directory(directory: Path, weights: str = "one") -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "MLmodel").write_text("flavors: {}\n")
    (directory / "weights.bin").write_text(weights)
    return directory


def registry(client: MlflowClient) -> Any:
    """Return the registry store. MLflow's fluent client refuses some calls that its REST API accepts."""
    return client._get_registry_client().store


def weights_of(uri: str) -> str:
    return (Path(mlflow.artifacts.download_artifacts(uri)) / "weights.bin").read_text()


@pytest.fixture
def run_id(client: MlflowClient) -> str:
    return str(client.create_run(client.create_experiment("e")).info.run_id)


@pytest.fixture
def run_source(client: MlflowClient, run_id: str, tmp_path: Path) -> str:
    client.log_artifacts(run_id, str(model_directory(tmp_path / "model")), "best")
    return f"runs:/{run_id}/best"


@pytest.fixture
def make_model(client: MlflowClient, run_id: str, tmp_path: Path) -> Callable[..., Any]:
    """Return a function that creates a logged model with two files and the given tags."""

    def make(tags: dict[str, str], *, files: bool = True) -> Any:
        run = client.get_run(run_id)
        model = client.create_logged_model(run.info.experiment_id, name="net", source_run_id=run_id, tags=tags)
        if files:
            client.log_model_artifacts(model.model_id, str(model_directory(tmp_path / "logged")))
        return client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)

    return make


@pytest.mark.parametrize("mode", ["required", "best_effort"])
def test_the_prompt_tag_of_a_registered_model_changes_nothing_for_a_source_with_files(
    mode: str, client: MlflowClient, run_id: str, run_source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_IPFS_FREEZE", mode)
    client.create_registered_model("m")
    client.set_registered_model_tag("m", IS_PROMPT_TAG_KEY, "true")
    client.create_model_version("m", run_source, run_id)
    registry(client).delete_registered_model_tag("m", IS_PROMPT_TAG_KEY)
    client.log_artifacts(run_id, str(model_directory(tmp_path / "other", "two")), "best")
    assert weights_of("models:/m/1") == "one"
    assert "ipfs.cid" in client.get_model_version("m", "1").tags


def test_the_prompt_tag_of_a_version_changes_nothing_for_a_source_with_files(
    client: MlflowClient, run_id: str, run_source: str, tmp_path: Path
) -> None:
    client.create_registered_model("m")
    tags = [ModelVersionTag(IS_PROMPT_TAG_KEY, "true"), ModelVersionTag("ipfs.frozen", "true")]
    version = registry(client).create_model_version("m", run_source, run_id, tags=tags)
    client.log_artifacts(run_id, str(model_directory(tmp_path / "other", "two")), "best")
    assert "ipfs.cid" in version.tags
    assert "ipfs.frozen" not in version.tags
    assert weights_of("models:/m/1") == "one"


@pytest.mark.parametrize("mode", ["required", "best_effort"])
def test_the_external_tag_of_a_logged_model_changes_nothing_if_it_has_files(
    mode: str,
    client: MlflowClient,
    make_model: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_IPFS_FREEZE", mode)
    model = make_model({MLFLOW_MODEL_IS_EXTERNAL: "true"})
    client.create_registered_model("m")
    version = client.create_model_version("m", f"models:/{model.model_id}", model_id=model.model_id)
    client.log_model_artifacts(model.model_id, str(model_directory(tmp_path / "other", "two")))
    assert weights_of("models:/m/1") == "one"
    assert "ipfs.cid" in version.tags


def test_a_source_without_files_gets_none_later(
    client: MlflowClient, run_id: str, make_model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither an empty path of a run nor an external model without a file is registered and filled afterwards."""
    empty = make_model({MLFLOW_MODEL_IS_EXTERNAL: "true"}, files=False)
    client.create_registered_model("m")
    client.set_registered_model_tag("m", IS_PROMPT_TAG_KEY, "true")
    for source in (f"runs:/{run_id}/later", f"{client.get_run(run_id).info.artifact_uri}/later"):
        with pytest.raises(MlflowException, match="later"):
            client.create_model_version("m", source, run_id)
    with pytest.raises(MlflowException, match=empty.model_id):
        client.create_model_version("m", f"models:/{empty.model_id}")
    assert client.search_model_versions(f"name = 'm' AND {PROMPTS}") == []

    monkeypatch.setenv("MLFLOW_IPFS_FREEZE", "best_effort")
    client.create_registered_model("n")
    client.create_model_version("n", f"models:/{empty.model_id}")
    (listed,) = client.search_model_versions(UNFROZEN)
    assert (listed.name, int(listed.version)) == ("n", 1)
    assert empty.model_id in listed.tags["ipfs.unfrozen_reason"]


@pytest.mark.parametrize("source", ["dummy-source", "prompt-template"])
def test_the_placeholder_of_prompts_without_the_prompt_tag_is_refused(client: MlflowClient, source: str) -> None:
    client.create_registered_model("m")
    with pytest.raises(MlflowException, match=source):
        client.create_model_version("m", source)
    assert client.search_model_versions("name = 'm'") == []


class TestPrompts:
    @pytest.mark.parametrize("mode", ["required", "best_effort"])
    def test_they_work_and_say_that_they_are_not_frozen(
        self, mode: str, client: MlflowClient, store: ContentStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MLFLOW_IPFS_FREEZE", mode)
        mlflow.genai.register_prompt("greeting", "Hello {{name}}", tags={"mine": "1"})
        mlflow.genai.register_prompt("greeting", [{"role": "user", "content": "Hi {{name}}"}])
        assert mlflow.genai.load_prompt("prompts:/greeting/1").template == "Hello {{name}}"
        assert mlflow.genai.load_prompt("prompts:/greeting/1").tags["mine"] == "1"
        assert mlflow.genai.load_prompt("prompts:/greeting@latest").version == 2
        mlflow.genai.set_prompt_version_tag("greeting", 1, "reviewed", "yes")
        assert [prompt.name for prompt in mlflow.genai.search_prompts()] == ["greeting"]
        listed = client.search_model_versions(f"{UNFROZEN} AND {PROMPTS}")
        assert {int(version.version) for version in listed} == {1, 2}
        assert all(version.tags["ipfs.unfrozen_reason"].startswith("prompt") for version in listed)
        assert client.search_model_versions(UNFROZEN) == []  # as MLflow's searches leave prompts out
        assert pin_owners(store) == []

    def test_off_adds_nothing(self, client: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MLFLOW_IPFS_FREEZE", "off")
        mlflow.genai.register_prompt("greeting", "Hello {{name}}")
        assert mlflow.genai.load_prompt("prompts:/greeting/1").template == "Hello {{name}}"
        (version,) = client.search_model_versions(PROMPTS)
        assert not [key for key in version.tags if key.startswith("ipfs.")]

    def test_a_store_that_cannot_be_opened_does_not_matter(
        self, client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        del client
        (tmp_path / "broken").mkdir()
        (tmp_path / "broken/format.json").write_text("{}")
        monkeypatch.setenv("MLFLOW_IPFS_STORE", f"local:{tmp_path}/broken")
        mlflow.genai.register_prompt("greeting", "Hello {{name}}")
        assert mlflow.genai.load_prompt("prompts:/greeting/1").template == "Hello {{name}}"

    def test_a_version_below_a_prompt_needs_no_prompt_tag_of_its_own(self, client: MlflowClient) -> None:
        client.create_registered_model("p")
        client.set_registered_model_tag("p", IS_PROMPT_TAG_KEY, "true")
        version = client.create_model_version("p", "dummy-source", tags={PROMPT_TEXT_TAG_KEY: "x"})
        assert version.tags["ipfs.frozen"] == "false"


@pytest.mark.filterwarnings("ignore:.*Any type hint is inferred")  # MLflow's own, at the import of mlflow.pyfunc
@pytest.mark.parametrize("mode", ["required", "best_effort"])
def test_external_models_are_frozen_like_any_other(
    mode: str, client: MlflowClient, store: ContentStore, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow writes one file, ``MLmodel``, for an external model. The file names the location of the other files."""
    monkeypatch.setenv("MLFLOW_IPFS_FREEZE", mode)
    model = mlflow.create_external_model(name="elsewhere")
    version = mlflow.register_model(f"models:/{model.model_id}", "m")
    cid = version.tags["ipfs.cid"]
    assert [entry.name for entry in store.ls(cid)] == ["MLmodel"]
    assert storage_location(database, "m", 1) == f"{model.artifact_location}/@{cid}"
    with pytest.raises(MlflowException, match="external"):
        mlflow.pyfunc.load_model("models:/m/1")
    assert client.copy_model_version("models:/m/1", "copy").tags["ipfs.cid"] == cid


class TestReservedTags:
    """The reserved tags of a version stay correct: MLflow's API neither sets nor deletes them."""

    @pytest.mark.parametrize("key", ["ipfs.cid", "ipfs.size_bytes", "ipfs.dataset_cids", "ipfs.frozen"])
    def test_they_can_not_be_changed(self, key: str, client: MlflowClient, run_id: str, run_source: str) -> None:
        client.create_registered_model("m")
        before = client.create_model_version("m", run_source, run_id).tags
        with pytest.raises(MlflowException, match=f"(?s){key}.*MLFLOW_IPFS_FREEZE") as caught:
            client.set_model_version_tag("m", "1", key, "x")
        assert caught.value.error_code == "PERMISSION_DENIED"
        with pytest.raises(MlflowException, match=f"(?s){key}.*MLFLOW_IPFS_FREEZE") as caught:
            client.delete_model_version_tag("m", "1", key)
        assert caught.value.error_code == "PERMISSION_DENIED"
        assert client.get_model_version("m", "1").tags == before

    def test_the_mark_of_a_prompt_stays(self, client: MlflowClient) -> None:
        del client
        mlflow.genai.register_prompt("greeting", "Hello {{name}}")
        with pytest.raises(MlflowException, match="ipfs.frozen"):
            mlflow.genai.delete_prompt_version_tag("greeting", 1, "ipfs.frozen")
        prompt = mlflow.genai.load_prompt("prompts:/greeting/1", cache_ttl_seconds=0)
        assert prompt.tags["ipfs.frozen"] == "false"

    def test_all_others_can(self, client: MlflowClient, run_id: str, run_source: str) -> None:
        client.create_registered_model("m")
        client.create_model_version("m", run_source, run_id)
        client.set_model_version_tag("m", "1", "ipfs.mine", "1")
        assert client.get_model_version("m", "1").tags["ipfs.mine"] == "1"
        client.delete_model_version_tag("m", "1", "ipfs.mine")
        assert "ipfs.mine" not in client.get_model_version("m", "1").tags

    def test_off_is_mlflows_own_behaviour(
        self, client: MlflowClient, run_id: str, run_source: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        client.create_registered_model("m")
        client.create_model_version("m", run_source, run_id)
        monkeypatch.setenv("MLFLOW_IPFS_FREEZE", "off")
        client.delete_model_version_tag("m", "1", "ipfs.cid")
        assert "ipfs.cid" not in client.get_model_version("m", "1").tags

    def test_off_lets_no_client_of_a_server_change_them(
        self, client: MlflowClient, run_id: str, run_source: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        client.create_registered_model("m")
        before = client.create_model_version("m", run_source, run_id).tags
        monkeypatch.setenv("MLFLOW_IPFS_FREEZE", "off")
        version = client.create_model_version("m", run_source, run_id, tags={"ipfs.cid": "bafybogus", "mine": "1"})
        assert version.tags == {"mine": "1"}
        monkeypatch.setenv(mlflow_process.SERVER_BACKEND_STORE, "sqlite:///mlflow.db")
        with pytest.raises(MlflowException, match="without the server"):
            client.set_model_version_tag("m", "1", "ipfs.cid", "bafybogus")
        assert client.get_model_version("m", "1").tags == before

    def test_none_is_believed_where_ours_are_switched_off(
        self, client: MlflowClient, run_id: str, run_source: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MLFLOW_IPFS_VERSION_TAGS", "false")
        client.create_registered_model("m")
        version = client.create_model_version("m", run_source, run_id, tags={"ipfs.cid": "bafkqaaa", "mine": "1"})
        assert version.tags == {"mine": "1"}


@pytest.mark.parametrize(
    ("destination", "root", "is_refused"),
    [
        ("./mlartifacts", "mlflow-artifacts:/", True),
        ("mfs://mlflow", "mlflow-artifacts:/", False),
        ("./mlartifacts", "mfs://mlflow", False),
    ],
)
def test_a_server_makes_no_model_that_would_stay_empty(
    destination: str, root: str, *, is_refused: bool, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(mlflow_process.SERVER_BACKEND_STORE, "sqlite:///mlflow.db")
    monkeypatch.setenv(mlflow_process.SERVER_SERVES_ARTIFACTS, "true")
    monkeypatch.setenv(mlflow_process.SERVER_ARTIFACTS_DESTINATION, destination)
    monkeypatch.setenv(mlflow_process.SERVER_ARTIFACT_ROOT, root)
    if is_refused:
        with pytest.raises(MlflowException, match="--artifacts-destination mfs://"):
            registry(client).create_registered_model("m")
        monkeypatch.setenv("MLFLOW_IPFS_FREEZE", "best_effort")
    assert registry(client).create_registered_model("m").name == "m"


def test_a_server_reads_no_more_through_a_version_that_is_not_frozen(
    client: MlflowClient, store: ContentStore, database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A version from before the freeze may name any location. A copy of it must not read what its client may not read."""
    from mlflow_ipfs.content.mfs import MfsPath

    store.files.put_tree(MfsPath("mlflow", "secret"), model_directory(tmp_path / "secret"))
    client.create_registered_model("m")
    monkeypatch.setenv("MLFLOW_IPFS_FREEZE", "off")
    client.create_model_version("m", "mfs://mlflow/secret", tags=None)
    monkeypatch.setenv("MLFLOW_IPFS_FREEZE", "required")
    monkeypatch.setenv(mlflow_process.SERVER_BACKEND_STORE, f"ipfs+sqlite:///{database}")
    with pytest.raises(MlflowException, match="does not read it for a client"):
        client.copy_model_version("models:/m/1", "copy")
    assert pin_owners(store) == []


@pytest.mark.parametrize("source", ["mfs://mlflow/secret", "ipfs://bafkqaaa/x"])
def test_best_effort_is_no_way_around_what_a_server_may_read(
    source: str, client: MlflowClient, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow's server would send the files at the location of a version that is not frozen."""
    client.create_registered_model("m")
    monkeypatch.setenv("MLFLOW_IPFS_FREEZE", "best_effort")
    monkeypatch.setenv(mlflow_process.SERVER_BACKEND_STORE, f"ipfs+sqlite:///{database}")
    with pytest.raises(MlflowException) as caught:
        client.create_model_version("m", source)
    assert caught.value.error_code == "PERMISSION_DENIED"
    assert client.create_model_version("m", "s3://bucket/not/listed").tags["ipfs.frozen"] == "false"


def test_a_prompt_that_calls_itself_frozen_is_not_believed(client: MlflowClient) -> None:
    client.create_registered_model("p")
    tags = [ModelVersionTag(IS_PROMPT_TAG_KEY, "true"), ModelVersionTag("ipfs.frozen", "true")]
    assert registry(client).create_model_version("p", "dummy-source", tags=tags).tags["ipfs.frozen"] == "false"
