"""What an add reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow_ipfs.content.cid import CID


@dataclass(frozen=True, slots=True)
class Added:
    """The outcome of adding content.

    Attributes:
        cid: root of what was added.
        size_bytes: sum of the sizes of its files.
        dag_bytes: sum of the sizes of its blocks, each link counted.
        new_bytes: how many bytes the store did not have before.
        hidden_left_out: how many hidden names were left out.
    """

    cid: CID
    size_bytes: int
    dag_bytes: int
    new_bytes: int = 0
    hidden_left_out: int = 0
