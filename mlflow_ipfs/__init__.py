"""IPFS content addresses for every model, dataset and run in MLflow.

Most users never import this package: MLflow finds it by its entry points. From Python, ``log_dataset`` logs a dataset with
its CID, and ``open_store`` returns the store that MLflow writes to.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from mlflow_ipfs.binding.logged_datasets import LoggedDataset, log_dataset
    from mlflow_ipfs.config import Settings
    from mlflow_ipfs.content.checking.verify import VerifyReport
    from mlflow_ipfs.content.cid import CID
    from mlflow_ipfs.content.files.importer import Added
    from mlflow_ipfs.content.listing import Entry
    from mlflow_ipfs.content.store import ContentStore
    from mlflow_ipfs.errors import (
        ConflictError,
        DiskError,
        ImmutableError,
        IntegrityError,
        InvalidCIDError,
        InvalidDataError,
        InvalidPathError,
        IsDirectoryError,
        MlflowIpfsError,
        NotDirectoryError,
        NotFoundError,
        PolicyError,
        RemoteError,
        SettingsError,
        SourceChangedError,
        StoreBusyError,
        StoreFormatError,
        StoreFullError,
    )
    from mlflow_ipfs.opening import open_store

__version__ = "0.1.0.dev0"

__all__ = [
    "CID",
    "Added",
    "ConflictError",
    "ContentStore",
    "DiskError",
    "Entry",
    "ImmutableError",
    "IntegrityError",
    "InvalidCIDError",
    "InvalidDataError",
    "InvalidPathError",
    "IsDirectoryError",
    "LoggedDataset",
    "MlflowIpfsError",
    "NotDirectoryError",
    "NotFoundError",
    "PolicyError",
    "RemoteError",
    "Settings",
    "SettingsError",
    "SourceChangedError",
    "StoreBusyError",
    "StoreFormatError",
    "StoreFullError",
    "VerifyReport",
    "__version__",
    "log_dataset",
    "open_store",
]

# The modules of the public names; errors are in ``mlflow_ipfs.errors``. MLflow imports this package in every process,
# and most processes never open a store. Each name is therefore imported at its first use.
_MODULES: Final = {
    "Added": "mlflow_ipfs.content.files.importer",
    "CID": "mlflow_ipfs.content.cid",
    "ContentStore": "mlflow_ipfs.content.store",
    "Entry": "mlflow_ipfs.content.listing",
    "LoggedDataset": "mlflow_ipfs.binding.logged_datasets",
    "Settings": "mlflow_ipfs.config",
    "VerifyReport": "mlflow_ipfs.content.checking.verify",
    "log_dataset": "mlflow_ipfs.binding.logged_datasets",
    "open_store": "mlflow_ipfs.opening",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any of the public names
    if name not in __all__:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(_MODULES.get(name, "mlflow_ipfs.errors")), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
