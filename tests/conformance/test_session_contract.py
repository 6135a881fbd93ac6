"""What every storage promises about the sessions of its processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow_ipfs.content.storage.base import Storage


def test_this_process_uses_the_storage(storage: Storage) -> None:
    name = storage.session_name()
    assert name.isalnum()
    assert storage.session_name() == name
    assert storage.is_session_open(name)


def test_no_process_has_another_session(storage: Storage) -> None:
    for name in ("0" * 32, "", "..", "../store.db"):
        assert not storage.is_session_open(name)
