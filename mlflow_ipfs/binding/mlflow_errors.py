"""Our errors as MLflow tells them: the error code, and the HTTP status a server answers with.

An MLflow client retries 408, 429, 500, 502, 503 and 504 for minutes. So only what may pass on
its own (a busy lock, a node that is away) gets one of these; everything else must be answered
with a status that ends the request at once.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from mlflow.exceptions import MlflowException
from mlflow.protos import databricks_pb2 as codes

from mlflow_ipfs import errors

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

# MLflow answers these codes with 500 and 429. Asking again will not mend a damaged block.
_STATUS: Final = {"DATA_LOSS": 409, "INVALID_STATE": 409, "RESOURCE_EXHAUSTED": 507}


class ContentException(MlflowException):
    """An MLflow exception whose HTTP status makes no client retry in vain."""

    def get_http_status_code(self) -> int:
        """The status that MLflow's server answers with."""
        status = _STATUS.get(self.error_code)
        return status if status is not None else int(super().get_http_status_code())  # type: ignore[no-untyped-call]


def to_mlflow_exception(error: errors.MlflowIpfsError) -> ContentException:
    """The MLflow exception that says the same."""
    code = next((code for kind, code in _CODES if isinstance(error, kind)), codes.INTERNAL_ERROR)
    if error.transient:
        code = codes.TEMPORARILY_UNAVAILABLE
    return ContentException(str(error), error_code=code)


@contextmanager
def mlflow_errors() -> Iterator[None]:
    """Translate what is raised inside. MLflow's own exceptions keep their code and get our status."""
    try:
        yield
    except errors.MlflowIpfsError as error:
        if isinstance(error, errors.IntegrityError):
            _logger.error("%s", error)  # noqa: TRY400 - MLflow swallows the reason when it downloads from runs:/…
        raise to_mlflow_exception(error) from error
    except MlflowException as error:
        if error.error_code not in _STATUS or isinstance(error, ContentException):
            raise
        code = codes.ErrorCode.Value(error.error_code)
        raise ContentException(error.message, error_code=code) from error
