"""The one place that reads the settings and puts a store together."""

from __future__ import annotations

import atexit
import os
import threading

from mlflow_ipfs.config import Settings, VerifyMode
from mlflow_ipfs.content.storage.local import open_local_storage
from mlflow_ipfs.content.store import ContentStore

_shared: dict[Settings, ContentStore] = {}
_lock = threading.Lock()


def open_store(settings: Settings | None = None, *, create: bool = True) -> ContentStore:
    """Open the store that the settings name. The caller closes it.

    Args:
        settings: None: from the environment.
        create: make the store if there is none.

    Raises:
        StoreFormatError: not a store that this version can open, or ``create`` is False and there is none.
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


def shared_store(settings: Settings | None = None) -> ContentStore:
    """The store of this process for these settings; opened at the first call, closed at exit.

    MLflow builds an artifact repository for every call of a client, so the store behind it is
    kept. After a fork the child opens its own.
    """
    settings = settings or Settings.from_environment()
    with _lock:
        store = _shared.get(settings)
        if store is None:
            store = _shared[settings] = open_store(settings)
        return store


def shared_store_if_open(settings: Settings | None = None) -> ContentStore | None:
    """Return the store of ``shared_store`` if this process has it open, without waiting for a thread that opens it."""
    return _shared.get(settings or Settings.from_environment())


def close_shared_stores() -> None:
    """Close every store that ``shared_store`` opened in this process."""
    with _lock:
        stores = list(_shared.values())
        _shared.clear()
    for store in stores:
        store.close()


def _forget_in_child() -> None:
    """The parent's locks and connections are not the child's to use or to close."""
    global _lock  # noqa: PLW0603 - the parent may have held it in another thread
    _lock = threading.Lock()
    _inherited.extend(_shared.values())  # kept alive: closing them would end the parent's session
    _shared.clear()


_inherited: list[ContentStore] = []
atexit.register(close_shared_stores)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
