"""Pins: promises to keep a CID and all blocks below it, each for one owner."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow_ipfs.content.cid import CID

USER = "user"
"""Owner of content that a user added or pinned directly."""


class PinState(StrEnum):
    """State of a pin: whether the event that it belongs to is known to have happened."""

    PENDING = "pending"
    CONFIRMED = "confirmed"


@dataclass(frozen=True, slots=True)
class Pin:
    """Promise to keep a CID for one owner. A CID is kept while any pin, confirmed or pending, names it.

    Attributes:
        owner: owner of the pin, for example ``user`` or ``model-version:<registry id>/<model>/<version>``.
        cid: the root that is kept, with all blocks below it.
        state: pending until the event that the pin belongs to is known to have happened.
    """

    owner: str
    cid: CID
    state: PinState = PinState.CONFIRMED


class Pins(Protocol):
    """The pins of one store, keyed by owner and CID. An owner may pin several CIDs."""

    def add(self, pin: Pin) -> None:
        """Add a pin, or set the state of the owner's existing pin of the CID.

        Raises:
            NotFoundError: the root block of the CID is not in the store.
        """

    def replace(self, old: Pin, new: Pin) -> None:
        """Replace one pin with another atomically, for example a pending pin with the confirmed pin of its final owner.

        Raises:
            NotFoundError: ``old`` does not exist.
        """

    def remove(self, cid: CID, owner: str = USER) -> bool:
        """Remove the pin of one owner. Return whether it existed. The pins of other owners are unchanged."""

    def list(self, *, owner_prefix: str = "", cid: CID | None = None) -> Iterator[Pin]:
        """Yield pins in order of owner, optionally only those of owners with a prefix or of one CID."""
