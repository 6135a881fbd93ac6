"""Outbox: pending actions at other nodes. Each row retains its content until the action is sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow_ipfs.content.cid import CID


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """One pending action at another node.

    Attributes:
        target: the replica that performs the action.
        action: the action, for example ``pin``.
        cid: the content.
        name: the pin owner or the ref, if the action needs one.
    """

    target: str
    action: str
    cid: CID
    name: str = ""

    @property
    def label(self) -> str:
        """The row as reports show it."""
        return f"{self.target} {self.name}".strip()
