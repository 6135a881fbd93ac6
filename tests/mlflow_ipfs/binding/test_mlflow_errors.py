from __future__ import annotations

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import DATA_LOSS, RESOURCE_DOES_NOT_EXIST
from mlflow.utils.request_utils import _TRANSIENT_FAILURE_RESPONSE_CODES

from mlflow_ipfs import errors
from mlflow_ipfs.binding.mlflow_errors import mlflow_errors, to_mlflow_exception

PASSES_ON_ITS_OWN = {errors.StoreBusyError, errors.RemoteError}


@pytest.mark.parametrize("kind", errors.MlflowIpfsError.__subclasses__())
def test_only_what_passes_on_its_own_is_retried_by_clients(kind: type[errors.MlflowIpfsError]) -> None:
    found = to_mlflow_exception(kind("what happened"))
    assert found.message == "what happened"
    assert (found.get_http_status_code() in _TRANSIENT_FAILURE_RESPONSE_CODES) == (kind in PASSES_ON_ITS_OWN)


def test_a_missing_artifact_is_not_found() -> None:
    found = to_mlflow_exception(errors.NotFoundError("gone"))
    assert (found.error_code, found.get_http_status_code()) == ("RESOURCE_DOES_NOT_EXIST", 404)


def test_the_original_error_is_the_cause() -> None:
    original = errors.IntegrityError("damaged")
    with pytest.raises(MlflowException, match="damaged") as caught, mlflow_errors():
        raise original
    assert caught.value.__cause__ is original


def test_mlflows_own_exceptions_get_our_status_and_keep_their_code() -> None:
    with pytest.raises(MlflowException) as caught, mlflow_errors():
        raise MlflowException("several files are damaged", error_code=DATA_LOSS)
    assert (caught.value.error_code, caught.value.get_http_status_code()) == ("DATA_LOSS", 409)
    not_found = MlflowException("no", error_code=RESOURCE_DOES_NOT_EXIST)
    with pytest.raises(MlflowException) as caught, mlflow_errors():
        raise not_found
    assert caught.value is not_found
