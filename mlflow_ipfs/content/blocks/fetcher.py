"""Fetchers: sources of blocks that are not trusted, such as a gateway or another node."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Generator

    from mlflow_ipfs.content.cid import CID

DagScope = Literal["block", "entity", "all"]
"""Which part of a DAG: its root block, the file or directory at the root, or everything.

Source: ``dag-scope`` of the trustless gateway specification, https://specs.ipfs.tech/http-gateways/trustless-gateway/.
"""


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment at which waiting ends, on the monotonic clock.

    Attributes:
        at_seconds: the moment, as ``time.monotonic`` counts.
        timeout_seconds: how long the wait was when it began; for messages.
    """

    at_seconds: float
    timeout_seconds: float

    @classmethod
    def after(cls, timeout_seconds: float) -> Deadline:
        """Return the deadline that many seconds from now."""
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
    """A source of blocks whose answers are not trusted.

    A fetcher never verifies: ``VerifyingReader`` does, for every fetcher alike. It may be shared between threads.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """What messages call the source, for example its URL without credentials."""

    @abstractmethod
    def fetch(self, cid: CID, deadline: Deadline) -> bytes:
        """Return the bytes that the source has for a CID. Not verified.

        Raises:
            NotFoundError: the source answered that it does not have the block.
            RemoteError: the source could not be reached, gave an unusable answer, or the deadline passed.
        """

    @abstractmethod
    def fetch_dag(
        self, root: CID, deadline: Deadline, *, scope: DagScope = "all"
    ) -> Generator[tuple[CID, bytes], None, None]:
        """Yield blocks of a DAG, each after the node that links to it. Not verified, perhaps incomplete.

        Raises:
            NotFoundError: the source answered that it does not have the root.
            RemoteError: as ``fetch``, also in the middle.
        """

    @abstractmethod
    def close(self) -> None:
        """Release connections. A second call is a no-op."""
