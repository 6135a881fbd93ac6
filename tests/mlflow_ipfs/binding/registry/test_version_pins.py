"""Pins of model versions that two processes change at the same time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow_ipfs.binding.registry.version_pins import OWNER, FrozenVersion, VersionPins
from mlflow_ipfs.content.names.pins import Pin

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
