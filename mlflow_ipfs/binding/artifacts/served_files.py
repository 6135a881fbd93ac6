"""Files that MLflow's server sends from the store after ``get_local_path`` returned None.

MLflow's server calls ``get_local_path`` on its event loop, where files may not be hashed or assembled. If the result is
None, the server calls ``download_artifacts`` on a thread. It passes a temporary directory that it only reads from and
then removes, so a symlink to the store's file is sufficient and no bytes are copied. Every other caller of
``download_artifacts`` gets separate files, which the caller may write to.
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import TYPE_CHECKING

from mlflow_ipfs.binding.mlflow_process import Server
from mlflow_ipfs.opening import shared_store_if_open

if TYPE_CHECKING:
    from pathlib import Path

# The artifact for which ``get_local_path`` returned None in this request. The server's thread runs in a copy of the
# request's context.
_expected: ContextVar[tuple[str, str] | None] = ContextVar("mlflow_ipfs_expected", default=None)


def must_not_wait() -> bool:
    """Return True if the caller is on an event loop and the store is not open: opening it may take seconds."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return shared_store_if_open() is None


def expect_download(artifact_uri: str, path: str) -> None:
    """Record, in a server, that the current request will download an artifact."""
    if Server.current() is not None:
        _expected.set((artifact_uri, path.strip("/")))


def take_download(artifact_uri: str, path: str) -> bool:
    """Return True if a download is the one that the current request expects. A second call returns False."""
    is_expected = _expected.get() == (artifact_uri, path)
    _expected.set(None)
    return is_expected


def link_into(directory: Path, name: str, file: Path) -> Path | None:
    """Create a symlink to a file of the store, and return the path of the symlink; None if the symlink cannot be created."""
    link = directory / name
    try:
        link.symlink_to(file)
    except OSError:
        return None
    return link
