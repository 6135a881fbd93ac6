"""Opening of stores. Only this module assembles a store from the settings."""

from __future__ import annotations

import atexit
import os
import tempfile
import threading

from mlflow_ipfs.config import Settings, VerifyMode
from mlflow_ipfs.content.storage.local import open_local_storage
from mlflow_ipfs.content.store import ContentStore
from mlflow_ipfs.content.system.access import translate_access_errors

_shared: dict[Settings, ContentStore] = {}
_inherited: list[ContentStore] = []  # opened by the parent before a fork; closing them would end the parent's sessions
_lock = threading.Lock()


def open_store(settings: Settings | None = None, *, create: bool = True) -> ContentStore:
    """Open the store that the settings name. The caller must close it.

    Args:
        settings: the settings; None to read them from the environment.
        create: whether to create the store if it does not exist.

    Raises:
        StoreFormatError: the directory is not a store that this version can open, or the store does not exist and
            ``create`` is False.
    """
    settings = settings or Settings.from_environment()
    storage = open_local_storage(
        settings.store,
        timeout_seconds=settings.timeout_seconds,
        verify_always=settings.verify is VerifyMode.ALWAYS,
        view_mode=settings.view,
        cache_bytes=settings.cache_bytes,
        create=create,
    )
    return ContentStore(storage, profile=settings.profile, chunker=settings.chunker)


def check_writable(settings: Settings) -> None:
    """Check that content can be stored in the store, without creating the store and without changing its index.

    Raises:
        MlflowIpfsError: the store cannot be opened or written to, or it cannot be created.
        OSError: the directory of the store cannot be read.
    """
    directory = settings.store
    with translate_access_errors(directory):
        if not directory.exists() or not any(directory.iterdir()):
            existing = next(path for path in (directory, *directory.parents) if path.exists())
            with tempfile.TemporaryDirectory(prefix=".mlflow-ipfs-", dir=existing):
                return
    with open_store(settings, create=False) as store, store.storage.hold():
        pass


def shared_store(settings: Settings | None = None) -> ContentStore:
    """Return the store of this process for the settings. It is opened at the first call and closed at exit.

    MLflow creates an artifact repository for every client call, so the store is kept open between the calls. After a
    fork, the child opens its own store.
    """
    settings = settings or Settings.from_environment()
    with _lock:
        store = _shared.get(settings)
        if store is None:
            store = _shared[settings] = open_store(settings)
        return store


def shared_store_if_open(settings: Settings | None = None) -> ContentStore | None:
    """Return the store of ``shared_store`` if it is open, else None. Does not wait for a thread that is opening it."""
    return _shared.get(settings or Settings.from_environment())


def close_shared_stores() -> None:
    """Close every store that ``shared_store`` opened in this process."""
    with _lock:
        stores = list(_shared.values())
        _shared.clear()
    for store in stores:
        store.close()


def _reset_in_child() -> None:
    """Forget the parent's stores in a forked child, which must neither use nor close their locks and connections."""
    global _lock  # noqa: PLW0603 - another thread of the parent may have held it at the fork
    _lock = threading.Lock()
    _inherited.extend(_shared.values())
    _shared.clear()


atexit.register(close_shared_stores)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_in_child)
