from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from mlflow.exceptions import MlflowException
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from mlflow_ipfs.binding.client_locations import guard_experiments

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def stock(tmp_path: Path) -> SqlAlchemyStore:
    """MLflow's own tracking store, with a root in the store of this package, as at L0 and L1."""
    guard_experiments()
    guard_experiments()  # a second call adds no second check
    return SqlAlchemyStore(f"sqlite:///{tmp_path}/mlflow.db", "mfs://mlflow")


def test_a_client_of_a_server_chooses_no_location_in_the_store(
    stock: SqlAlchemyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_MLFLOW_SERVER_FILE_STORE", "sqlite:///mlflow.db")
    for location in ("mfs://mlflow/1/0f3a/artifacts", "MFS://mlflow", "ipfs://bafy/x"):
        with pytest.raises(MlflowException, match="cannot have the artifact location") as caught:
            stock.create_experiment("taken", location)
        assert caught.value.get_http_status_code() == 403
    assert [experiment.name for experiment in stock.search_experiments()] == ["Default"]
    own = stock.get_experiment(stock.create_experiment("own"))
    assert own.artifact_location == f"mfs://mlflow/{own.experiment_id}"
    other = stock.get_experiment(stock.create_experiment("other", "s3://bucket/x"))
    assert other.artifact_location == "s3://bucket/x"


def test_a_client_without_a_server_chooses_any_location(stock: SqlAlchemyStore) -> None:
    own = stock.get_experiment(stock.create_experiment("own", "mfs://other/place"))
    assert own.artifact_location == "mfs://other/place"
