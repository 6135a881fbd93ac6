from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import DATA_LOSS, RESOURCE_DOES_NOT_EXIST
from mlflow.utils.request_utils import _TRANSIENT_FAILURE_RESPONSE_CODES

from mlflow_ipfs import errors
from mlflow_ipfs.binding.mlflow_errors import mlflow_errors, to_mlflow_exception
from mlflow_ipfs.content.storage.local.backup.files import translate_copy_errors

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("kind", errors.MlflowIpfsError.__subclasses__())
def test_only_what_passes_on_its_own_is_retried_by_clients(kind: type[errors.MlflowIpfsError]) -> None:
    found = to_mlflow_exception(kind("what happened"))
    assert found.message == "what happened"
    assert (found.get_http_status_code() in _TRANSIENT_FAILURE_RESPONSE_CODES) == kind("what happened").transient


def test_what_passes_on_its_own_is_marked_as_transient() -> None:
    kinds = errors.MlflowIpfsError.__subclasses__()
    assert {kind for kind in kinds if kind("what happened").transient} == {errors.StoreBusyError, errors.RemoteError}


def test_a_remote_that_refuses_for_good_is_not_retried_by_clients() -> None:
    found = to_mlflow_exception(errors.RemoteError("login refused", transient=False))
    assert found.get_http_status_code() not in _TRANSIENT_FAILURE_RESPONSE_CODES


def test_a_missing_artifact_is_not_found() -> None:
    found = to_mlflow_exception(errors.NotFoundError("gone"))
    assert (found.error_code, found.get_http_status_code()) == ("RESOURCE_DOES_NOT_EXIST", 404)


@pytest.mark.parametrize(
    ("number", "kind", "code", "advice"),
    [
        (errno.EIO, errors.DiskError, "DATA_LOSS", "check that disk"),
        (errno.ENOSPC, errors.StoreFullError, "RESOURCE_EXHAUSTED", "Free some space"),
        (errno.EACCES, errors.PolicyError, "PERMISSION_DENIED", "give this user read and write permission"),
        (errno.EPERM, errors.PolicyError, "PERMISSION_DENIED", "give this user read and write permission"),
        (errno.EROFS, errors.PolicyError, "PERMISSION_DENIED", "mounted read-only"),
        (errno.ENOENT, errors.NotFoundError, "RESOURCE_DOES_NOT_EXIST", "put it back"),
        (errno.ENAMETOOLONG, errors.PolicyError, "PERMISSION_DENIED", "name another one"),
        (errno.EMFILE, errors.MlflowIpfsError, "INTERNAL_ERROR", "remove the cause"),
    ],
    ids=lambda value: errno.errorcode.get(value) if isinstance(value, int) else None,
)
def test_only_a_disk_that_fails_means_that_data_is_lost(
    tmp_path: Path, number: int, kind: type[errors.MlflowIpfsError], code: str, advice: str
) -> None:
    with pytest.raises(errors.MlflowIpfsError, match=advice) as caught, translate_copy_errors(tmp_path):
        raise OSError(number, os.strerror(number), str(tmp_path / "file"))
    assert type(caught.value) is kind
    assert str(tmp_path) in str(caught.value)
    assert "were not changed" in str(caught.value)
    assert to_mlflow_exception(caught.value).error_code == code
    assert ("check that disk" in str(caught.value)) == (number == errno.EIO)


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


def log_of(error: errors.MlflowIpfsError, subject: str, caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    caplog.clear()
    with pytest.raises(MlflowException), mlflow_errors(subject):
        raise error
    return [(record.levelname, record.getMessage()) for record in caplog.records]


def test_a_server_logs_what_its_operator_must_act_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("_MLFLOW_SERVER_FILE_STORE", "sqlite:///mlflow.db")
    subject = "mfs://mlflow/1/model.bin"
    for error, status in (
        (errors.StoreFullError("the disk is full"), 507),
        (errors.PolicyError("refused"), 403),
        (errors.ImmutableError("frozen"), 403),
        (errors.IntegrityError("bafy is damaged"), 409),
        (errors.InvalidDataError("bafy is not a node"), 409),
        (errors.DiskError("EIO"), 409),
    ):
        assert log_of(error, subject, caplog) == [("ERROR", f"{subject}: {error} (HTTP {status})")]
    for other in (errors.NotFoundError("gone"), errors.InvalidPathError("bad"), errors.StoreBusyError("busy")):
        assert log_of(other, subject, caplog) == []


def test_a_client_logs_damage_only(caplog: pytest.LogCaptureFixture) -> None:
    assert log_of(errors.IntegrityError("bafy is damaged"), "", caplog) == [("ERROR", "bafy is damaged")]
    assert log_of(errors.PolicyError("refused"), "", caplog) == []


def test_secrets_are_neither_answered_nor_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("_MLFLOW_SERVER_FILE_STORE", "sqlite:///mlflow.db")
    uri = "postgresql://me:geheim@host/db"
    assert (
        to_mlflow_exception(errors.SettingsError(f"{uri} is wrong")).message == "postgresql://me:***@host/db is wrong"
    )
    [(_, line)] = log_of(errors.PolicyError("refused"), f"a version from {uri}", caplog)
    assert line == "a version from postgresql://me:***@host/db: refused (HTTP 403)"
