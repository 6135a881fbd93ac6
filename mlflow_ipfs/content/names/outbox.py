"""The outbox: what still has to be sent to other nodes. Each row retains its content until it is sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow_ipfs.content.cid import CID


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """One thing to do at another node.

    Attributes:
        target: the replica that it is for.
        action: what to do there, for example ``pin``.
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
