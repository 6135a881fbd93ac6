"""Fetchers: untrusted sources of blocks, such as a gateway or another node."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Generator

    from mlflow_ipfs.content.cid import CID

DagScope = Literal["block", "entity", "all"]
"""Part of a DAG: the root block, the file or directory at the root, or all blocks.

Source: ``dag-scope`` of the trustless gateway specification, https://specs.ipfs.tech/http-gateways/trustless-gateway/.
"""


@dataclass(frozen=True, slots=True)
class Deadline:
    """Time on the monotonic clock at which a wait ends.

    Attributes:
        at_seconds: the time, as returned by ``time.monotonic``.
        timeout_seconds: the full length of the wait, for messages.
    """

    at_seconds: float
    timeout_seconds: float

    @classmethod
    def after(cls, timeout_seconds: float) -> Deadline:
        """Return the deadline ``timeout_seconds`` from now."""
        return cls(time.monotonic() + timeout_seconds, timeout_seconds)

    @property
    def remaining_seconds(self) -> float:
        """Seconds left, never below 0."""
        return max(0.0, self.at_seconds - time.monotonic())

    @property
    def has_passed(self) -> bool:
        """Whether no time is left."""
        return time.monotonic() >= self.at_seconds


class Fetcher(ABC):
    """Untrusted source of blocks.

    A fetcher never verifies blocks: ``VerifyingReader`` does so for every fetcher. A fetcher may be shared between
    threads.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """Name of the source in messages, for example its URL without credentials."""

    @abstractmethod
    def fetch(self, cid: CID, deadline: Deadline) -> bytes:
        """Return the bytes that the source has for a CID, unverified.

        Raises:
            NotFoundError: the source answered that it does not have the block.
            RemoteError: the source could not be reached, gave an unusable answer, or the deadline passed.
        """

    @abstractmethod
    def fetch_dag(
        self, root: CID, deadline: Deadline, *, scope: DagScope = "all"
    ) -> Generator[tuple[CID, bytes], None, None]:
        """Yield the blocks of a DAG, each after a node that links to it, unverified and possibly incomplete.

        Raises:
            NotFoundError: the source answered that it does not have the root.
            RemoteError: as ``fetch``, also after some blocks were yielded.
        """

    @abstractmethod
    def close(self) -> None:
        """Release the connections. A second call is a no-op."""
