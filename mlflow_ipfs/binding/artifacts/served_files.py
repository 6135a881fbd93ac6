"""Files that MLflow's server sends from the store, although ``get_local_path`` had no path for them yet.

MLflow's server asks for a path on its event loop, where nothing may be hashed or assembled. Without a path it calls
``download_artifacts`` on a thread, with a temporary directory that it only reads from and then removes. So a symlink
to the store's file is enough there, and nothing is copied. Every other caller of ``download_artifacts`` gets files
of its own, which it may write to.
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import TYPE_CHECKING

from mlflow_ipfs.binding.mlflow_compat import Server
from mlflow_ipfs.opening import shared_store_if_open

if TYPE_CHECKING:
    from pathlib import Path

_asked: ContextVar[tuple[str, str] | None] = ContextVar("mlflow_ipfs_asked", default=None)
"""The artifact of which this request has got no path. The server's thread runs in a copy of the request's context."""


def must_not_wait() -> bool:
    """Tell whether the caller is on an event loop and the store is not open: to open it may take seconds."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return shared_store_if_open() is None


def expect_download(artifact_uri: str, path: str) -> None:
    """Record, in a server, that the request which is being answered will download an artifact."""
    if Server.current() is not None:
        _asked.set((artifact_uri, path.strip("/")))


def take_download(artifact_uri: str, path: str) -> bool:
    """Tell, once, whether a download is the one that the server needs for the request which is being answered."""
    is_expected = _asked.get() == (artifact_uri, path)
    _asked.set(None)
    return is_expected


def link_into(directory: Path, name: str, file: Path) -> Path | None:
    """Make a symlink to a file of the store. Returns None on a file system without symlinks."""
    link = directory / name
    try:
        link.symlink_to(file)
    except OSError:
        return None
    return link
