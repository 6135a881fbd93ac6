"""Pins: promises to keep a CID and everything below it, each made by an owner."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow_ipfs.content.cid import CID

USER = "user"
"""Owner of what a person added or pinned by hand."""


class PinState(StrEnum):
    """Whether the event that a pin belongs to has happened for certain."""

    PENDING = "pending"
    CONFIRMED = "confirmed"


@dataclass(frozen=True, slots=True)
class Pin:
    """One owner's promise. A CID is kept while any pin, confirmed or pending, names it.

    Attributes:
        owner: who needs it, for example ``user`` or ``model-version:<registry id>/<model>/<version>``.
        cid: the root that is kept, with everything below it.
        state: pending until the event that the pin belongs to is known to have happened.
    """

    owner: str
    cid: CID
    state: PinState = PinState.CONFIRMED


class Pins(Protocol):
    """The pins of one store. Keyed by owner and CID: an owner may pin several CIDs."""

    def add(self, pin: Pin) -> None:
        """Add a pin, or set the state of the owner's pin of that CID.

        Raises:
            NotFoundError: the root block of the CID is not in the store.
        """

    def replace(self, old: Pin, new: Pin) -> None:
        """Swap one pin for another in one step (pending becomes confirmed under its final owner).

        Raises:
            NotFoundError: ``old`` is not there.
        """

    def remove(self, cid: CID, owner: str = USER) -> bool:
        """Drop one owner's pin. Returns whether there was one; other owners' pins stay."""

    def list(self, *, owner_prefix: str = "", cid: CID | None = None) -> Iterator[Pin]:
        """Pins in order of owner, optionally only of owners with a prefix or of one CID."""
