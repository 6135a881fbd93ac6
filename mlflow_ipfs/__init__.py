"""Gives every model, dataset and run in MLflow an IPFS content address.

Most people never import this package: MLflow finds it by its entry points. From Python,
``open_store`` gives the store that MLflow writes to.
"""

from __future__ import annotations

from mlflow_ipfs.config import Settings
from mlflow_ipfs.content.added import Added
from mlflow_ipfs.content.cid import CID
from mlflow_ipfs.content.store import ContentStore, Entry
from mlflow_ipfs.content.verify import VerifyReport
from mlflow_ipfs.errors import (
    ConflictError,
    ImmutableError,
    IntegrityError,
    InvalidCIDError,
    InvalidDataError,
    InvalidPathError,
    IsAFolderError,
    MlflowIpfsError,
    NotAFolderError,
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
    "Entry",
    "ImmutableError",
    "IntegrityError",
    "InvalidCIDError",
    "InvalidDataError",
    "InvalidPathError",
    "IsAFolderError",
    "MlflowIpfsError",
    "NotAFolderError",
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
    "open_store",
]
