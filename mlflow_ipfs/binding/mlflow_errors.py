"""Translation of this package's errors to MLflow's: the error code, and the HTTP status of a server's response.

An MLflow client retries 408, 429, 500, 502, 503 and 504 for minutes. Only a transient error, such as a busy lock or an
unreachable node, gets one of these. Every other error gets a status that ends the request at once.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from mlflow.exceptions import MlflowException
from mlflow.protos import databricks_pb2 as codes

from mlflow_ipfs import errors
from mlflow_ipfs.binding.mlflow_process import Server
from mlflow_ipfs.binding.redaction import hide_secrets

if TYPE_CHECKING:
    from collections.abc import Iterator

_logger = logging.getLogger(__name__)

_CODES: Final[tuple[tuple[type[errors.MlflowIpfsError], int], ...]] = (
    (errors.NotFoundError, codes.RESOURCE_DOES_NOT_EXIST),
    (errors.InvalidCIDError, codes.INVALID_PARAMETER_VALUE),
    (errors.InvalidPathError, codes.INVALID_PARAMETER_VALUE),
    (errors.NotDirectoryError, codes.INVALID_PARAMETER_VALUE),
    (errors.IsDirectoryError, codes.INVALID_PARAMETER_VALUE),
    (errors.ImmutableError, codes.PERMISSION_DENIED),
    (errors.PolicyError, codes.PERMISSION_DENIED),
    (errors.ConflictError, codes.RESOURCE_CONFLICT),
    (errors.SourceChangedError, codes.ABORTED),
    (errors.IntegrityError, codes.DATA_LOSS),
    (errors.InvalidDataError, codes.DATA_LOSS),
    (errors.StoreFullError, codes.RESOURCE_EXHAUSTED),
    (errors.DiskError, codes.DATA_LOSS),
    (errors.RemoteError, codes.INVALID_STATE),
    (errors.SettingsError, codes.INVALID_STATE),
    (errors.StoreFormatError, codes.INVALID_STATE),
)

# MLflow maps these codes to 500 and 429. A retry does not repair a damaged block.
_STATUS: Final = {"DATA_LOSS": 409, "INVALID_STATE": 409, "RESOURCE_EXHAUSTED": 507}

# The operator of a server has to act on these, and the answer reaches the client only: MLflow logs no status below 500.
_FOR_OPERATORS: Final = frozenset({"DATA_LOSS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED"})


class ContentException(MlflowException):
    """An MLflow exception whose HTTP status causes no useless retries by clients."""

    def get_http_status_code(self) -> int:
        """Return the HTTP status of the response of MLflow's server."""
        status = _STATUS.get(self.error_code)
        return status if status is not None else int(super().get_http_status_code())  # type: ignore[no-untyped-call]


def to_mlflow_exception(error: errors.MlflowIpfsError) -> ContentException:
    """Return the MLflow exception with the same message as an error of this package, without the secrets of URIs."""
    code = next((code for kind, code in _CODES if isinstance(error, kind)), codes.INTERNAL_ERROR)
    if error.transient:
        code = codes.TEMPORARILY_UNAVAILABLE
    return ContentException(hide_secrets(str(error)), error_code=code)


@contextmanager
def mlflow_errors(subject: str = "") -> Iterator[None]:
    """Translate errors that the body of the ``with`` raises.

    MLflow's own exceptions keep their error code and get the HTTP status of ``ContentException``. A server logs damage,
    a full disk and each refusal at ERROR.

    Args:
        subject: the artifact or model version that the body works on, for the log.
    """
    try:
        yield
    except errors.MlflowIpfsError as error:
        translated = to_mlflow_exception(error)
        _log(error, translated, subject)
        raise translated from error
    except MlflowException as error:
        if error.error_code not in _STATUS or isinstance(error, ContentException):
            raise
        code = codes.ErrorCode.Value(error.error_code)
        raise ContentException(error.message, error_code=code) from error


def _log(error: errors.MlflowIpfsError, translated: ContentException, subject: str) -> None:
    # A client too logs bytes that do not match their CID: MLflow drops the reason when it downloads from runs:/…
    is_damage = isinstance(error, errors.IntegrityError)
    if not is_damage and (translated.error_code not in _FOR_OPERATORS or Server.current() is None):
        return
    about = f"{hide_secrets(subject)}: " if subject and subject not in translated.message else ""
    status = f" (HTTP {translated.get_http_status_code()})" if Server.current() is not None else ""
    _logger.error("%s%s%s", about, translated.message, status)
