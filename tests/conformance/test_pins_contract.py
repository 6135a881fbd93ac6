"""What every ``Pins`` must do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mlflow_ipfs.content.cid import CID
from mlflow_ipfs.content.names.pins import USER, Pin, PinState
from mlflow_ipfs.errors import NotFoundError
from support.storages import publish_blocks

if TYPE_CHECKING:
    from mlflow_ipfs.content.storage.base import Storage


@pytest.fixture
def cids(storage: Storage) -> list[CID]:
    return publish_blocks(storage, b"one", b"two", owner=None)


def test_pins_are_listed_by_owner(storage: Storage, cids: list[CID]) -> None:
    for owner in ("b", "a", "b/1"):
        storage.pins.add(Pin(owner, cids[0]))
    storage.pins.add(Pin("a", cids[1]))
    assert [pin.owner for pin in storage.pins.list()] == ["a", "a", "b", "b/1"]
    assert [pin.owner for pin in storage.pins.list(owner_prefix="b")] == ["b", "b/1"]
    assert list(storage.pins.list(owner_prefix="a", cid=cids[1])) == [Pin("a", cids[1])]
    assert list(storage.pins.list(owner_prefix="%")) == []


def test_adding_again_sets_the_state(storage: Storage, cids: list[CID]) -> None:
    storage.pins.add(Pin("a", cids[0], PinState.PENDING))
    storage.pins.add(Pin("a", cids[0], PinState.CONFIRMED))
    assert list(storage.pins.list()) == [Pin("a", cids[0], PinState.CONFIRMED)]


def test_only_what_is_here_can_be_pinned(storage: Storage) -> None:
    missing = CID.of(b"not here")
    with pytest.raises(NotFoundError, match=str(missing)):
        storage.pins.add(Pin("a", missing))
    assert list(storage.pins.list()) == []


def test_replace_is_one_step(storage: Storage, cids: list[CID]) -> None:
    pending, confirmed = Pin("draft", cids[0], PinState.PENDING), Pin("final", cids[0])
    storage.pins.add(pending)
    storage.pins.replace(pending, confirmed)
    assert list(storage.pins.list()) == [confirmed]
    with pytest.raises(NotFoundError, match="draft"):
        storage.pins.replace(pending, Pin("again", cids[0]))
    with pytest.raises(NotFoundError):
        storage.pins.replace(confirmed, Pin("final", CID.of(b"not here")))
    assert list(storage.pins.list()) == [confirmed]


def test_remove_touches_one_owner(storage: Storage, cids: list[CID]) -> None:
    storage.pins.add(Pin(USER, cids[0]))
    storage.pins.add(Pin("other", cids[0]))
    assert storage.pins.remove(cids[0])
    assert not storage.pins.remove(cids[0])
    assert list(storage.pins.list()) == [Pin("other", cids[0])]
