"""The constants copied from MLflow, and the private API in use, match the installed MLflow."""

from __future__ import annotations

import mlflow.server.constants as server
import pytest
from mlflow.prompt import constants as prompts
from mlflow.store.model_registry.dbmodels.models import SqlModelVersion
from mlflow.store.tracking import DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH
from mlflow.store.tracking.dbmodels.models import SqlExperiment
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from mlflow_ipfs.binding import mlflow_compat, mlflow_process
from mlflow_ipfs.binding.mlflow_process import Server


def test_copied_names_are_mlflows() -> None:
    assert server.BACKEND_STORE_URI_ENV_VAR == mlflow_process.SERVER_BACKEND_STORE
    assert server.ARTIFACT_ROOT_ENV_VAR == mlflow_process.SERVER_ARTIFACT_ROOT
    assert server.ARTIFACTS_DESTINATION_ENV_VAR == mlflow_process.SERVER_ARTIFACTS_DESTINATION
    assert server.SERVE_ARTIFACTS_ENV_VAR == mlflow_process.SERVER_SERVES_ARTIFACTS
    assert server.REGISTRY_STORE_URI_ENV_VAR == mlflow_process.SERVER_REGISTRY_STORE
    assert server.ARTIFACTS_ONLY_ENV_VAR == mlflow_process.SERVER_ARTIFACTS_ONLY
    assert SqlExperiment.__tablename__ == mlflow_compat.EXPERIMENTS_TABLE
    assert server.READ_REPLICA_BACKEND_STORE_URI_ENV_VAR == mlflow_process.READ_REPLICA
    assert DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH == mlflow_process.DEFAULT_LOCAL_ROOT
    assert prompts.IS_PROMPT_TAG_KEY == mlflow_compat.PROMPT_TAG
    placeholders = getattr(prompts, "_PROMPT_SOURCE_PLACEHOLDERS", mlflow_compat.PROMPT_SOURCES)  # named since 3.17
    assert placeholders == mlflow_compat.PROMPT_SOURCES
    assert SqlModelVersion.storage_location.type.length == mlflow_compat.MAX_LOCATION_LENGTH


def test_the_hooks_that_our_stores_override_exist() -> None:
    assert "_initialize_store_state" in vars(SqlAlchemyStore)


def test_our_schemes_name_no_hosts_to_mlflow() -> None:
    host_policy = pytest.importorskip("mlflow.store.artifact.host_policy", reason="MLflow has it since 3.17")
    assert not {"ipfs", "mfs"} & host_policy.HOST_ADDRESSED_ARTIFACT_SCHEMES


def test_a_client_is_in_no_server() -> None:
    assert Server.current({}) is None


@pytest.mark.parametrize(("serves", "destination"), [("true", "mfs://mlflow"), ("false", None), (None, None)])
def test_the_server_around_a_worker(serves: str | None, destination: str | None) -> None:
    environ = {
        mlflow_process.SERVER_BACKEND_STORE: "sqlite:///x.db",
        mlflow_process.SERVER_ARTIFACTS_DESTINATION: "mfs://mlflow",
    }
    if serves is not None:
        environ[mlflow_process.SERVER_SERVES_ARTIFACTS] = serves
    assert Server.current(environ) == Server(destination)


def test_an_unknown_class_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="SqlNothing"):
        mlflow_compat.SqlNothing  # noqa: B018 - the access is the test


def test_a_server_may_name_itself_in_its_artifact_root() -> None:
    environ = {
        mlflow_process.SERVER_BACKEND_STORE: "sqlite:///x.db",
        mlflow_process.SERVER_ARTIFACT_ROOT: "mlflow-artifacts://mlflow.example:5000/",
    }
    assert Server.current(environ) == Server(None, "mlflow.example:5000")
