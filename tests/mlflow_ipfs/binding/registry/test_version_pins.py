"""Pins of model versions that two processes change at the same time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from mlflow_ipfs.binding.registry.version_pins import OWNER, PENDING_SECONDS, FrozenVersion, VersionPins
from mlflow_ipfs.content.mfs import MfsPath
from mlflow_ipfs.content.names.pins import Pin, PinState

if TYPE_CHECKING:
    from mlflow_ipfs.content.cid import CID
    from mlflow_ipfs.content.store import ContentStore


def test_a_version_that_comes_back_while_its_pin_goes_keeps_a_pin(store: ContentStore) -> None:
    """A model is deleted, and created again by another process before the deletion has removed the old version's pin."""
    root = store.add_bytes(b"model", pin=None)
    pin = Pin(f"{OWNER}registry/m/1", root)
    store.pins.add(pin)
    answers = [[], [FrozenVersion("m", 1, root, None)]]  # what the database says at first, and from then on

    def read_versions(cid: CID) -> list[FrozenVersion]:
        assert cid == root
        return answers.pop(0) if len(answers) > 1 else answers[0]

    pins = VersionPins(store, "registry", read_versions)
    pins.finish(pins.claim(root, None))
    assert list(store.pins.list()) == [pin]


def test_a_created_version_gets_its_pin_in_the_transaction_that_removes_the_pending_one(
    store: ContentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = store.add_bytes(b"model", pin=None)
    path = MfsPath("mlflow", "1/run/artifacts/model")
    versions = [FrozenVersion("m", 1, root, path)]
    pins = VersionPins(store, "registry", lambda _: versions)
    pending = pins.claim(root, path)
    for name in ("add", "remove"):
        monkeypatch.setattr(type(store.pins), name, lambda *_: pytest.fail("a transaction of its own"))
    pins.finish(pending)
    assert list(store.pins.list()) == [Pin(f"{OWNER}registry/m/1", root)]
    assert [frozen.path for frozen in store.storage.entries.list_frozen()] == [path.path]


def test_a_registration_that_failed_leaves_neither_pin_nor_path(store: ContentStore) -> None:
    root = store.add_bytes(b"model", pin=None)
    older = FrozenVersion("m", 1, root, MfsPath("mlflow", "1/older"))
    pins = VersionPins(store, "registry", lambda _: [older])
    pins.finish(pins.claim(root, MfsPath("mlflow", "1/newer")))
    assert list(store.pins.list()) == [Pin(f"{OWNER}registry/m/1", root)]
    assert [frozen.path for frozen in store.storage.entries.list_frozen()] == ["1/older"]


def pending_of(pins: VersionPins, store: ContentStore, *, session: str | None, age_seconds: int = 0) -> Pin:
    """Add the pending pin of a process with another session; None: of an earlier version of this package."""
    root = store.add_bytes(b"model", pin=None)
    prefix, _, _ = pins.pending_owner(None).rpartition("/")
    owner = f"{prefix}/{int(time.time()) - age_seconds}-ab" + (f"-{session}" if session else "")
    pin = Pin(owner, root, PinState.PENDING)
    store.pins.add(pin)
    return pin


@pytest.mark.parametrize(
    ("session", "age_seconds", "is_kept"),
    [
        ("0" * 32, 0, False),  # it ended just now
        ("own", 0, True),
        ("own", PENDING_SECONDS + 9, False),
        (None, 0, True),
        (None, PENDING_SECONDS + 9, False),
    ],
)
def test_a_pending_pin_goes_when_its_process_has_ended(
    store: ContentStore, session: str | None, age_seconds: int, is_kept: bool
) -> None:
    pins = VersionPins(store, "registry", lambda _: [])
    session = store.storage.session_name() if session == "own" else session
    pin = pending_of(pins, store, session=session, age_seconds=age_seconds)
    pins.reconcile()
    assert list(store.pins.list()) == ([pin] if is_kept else [])


def test_pending_pins_stay_while_the_database_may_be_committing(store: ContentStore) -> None:
    pins = VersionPins(store, "registry", lambda _: [], await_writers=lambda: False)
    pin = pending_of(pins, store, session="0" * 32)
    pins.reconcile()
    assert list(store.pins.list()) == [pin]


def test_pending_pins_stay_while_a_copy_of_the_database_is_in_use(store: ContentStore) -> None:
    pins = VersionPins(store, "registry", lambda _: [], is_shared=lambda: True)
    pin = pending_of(pins, store, session="0" * 32)
    pins.reconcile()
    assert list(store.pins.list()) == [pin]


def test_the_version_that_an_ended_process_committed_gets_its_pin(store: ContentStore) -> None:
    pins = VersionPins(store, "registry", lambda cid: [FrozenVersion("m", 1, cid, None)])
    pin = pending_of(pins, store, session="0" * 32)
    pins.reconcile()
    assert list(store.pins.list()) == [Pin(f"{OWNER}registry/m/1", pin.cid)]
