"""What users may rely on: a change of this list is a change of the public face (CHANGELOG.md)."""

from __future__ import annotations

import importlib.metadata

import mlflow_ipfs
from mlflow_ipfs import errors

PUBLIC_NAMES = {
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
}


def test_public_names_are_the_ones_promised() -> None:
    assert set(mlflow_ipfs.__all__) == PUBLIC_NAMES
    assert len(mlflow_ipfs.__all__) == len(PUBLIC_NAMES), "a name stands twice"


def test_every_public_name_leads_to_something() -> None:
    assert {name for name in PUBLIC_NAMES if getattr(mlflow_ipfs, name, None) is None} == set()


def test_dir_shows_every_public_name() -> None:
    assert set(dir(mlflow_ipfs)) >= PUBLIC_NAMES


def test_all_errors_are_public() -> None:
    kinds = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert kinds <= PUBLIC_NAMES


def test_version_is_that_of_the_installed_distribution() -> None:
    assert mlflow_ipfs.__version__ == importlib.metadata.version("mlflow-ipfs")
