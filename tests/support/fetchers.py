"""Fetcher in memory, which can also simulate a source that fails or sends wrong data."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from mlflow_ipfs.content.blocks.fetcher import Fetcher
from mlflow_ipfs.content.cid import CID, RAW
from mlflow_ipfs.content.codecs.links import links
from mlflow_ipfs.errors import NotFoundError, RemoteError

if TYPE_CHECKING:
    from collections.abc import Generator

    from mlflow_ipfs.content.blocks.base import BlockReader
    from mlflow_ipfs.content.blocks.fetcher import DagScope, Deadline


class MemoryFetcher(Fetcher):
    """Source that provides the blocks of a reader.

    Attributes:
        fetched: every block that was requested, in order.
        replaced: wrong data that is sent instead of the data of a block.
        is_away: whether the source cannot be reached.
        delay_seconds: delay before each block.
    """

    def __init__(self, blocks: BlockReader) -> None:
        self._blocks = blocks
        self.fetched: list[CID] = []
        self.replaced: dict[CID, bytes] = {}
        self.is_away = False
        self.delay_seconds = 0.0
        self.is_closed = False

    @property
    def name(self) -> str:
        return "memory://source"

    def fetch(self, cid: CID, deadline: Deadline) -> bytes:
        self.fetched.append(cid)
        if self.is_away:
            msg = f"{self.name} cannot be reached"
            raise RemoteError(msg)
        if self.delay_seconds > deadline.remaining_seconds:
            time.sleep(deadline.remaining_seconds)
            msg = f"{self.name} did not send {cid} within {deadline.timeout_seconds:g} s"
            raise RemoteError(msg)
        time.sleep(self.delay_seconds)
        if cid in self.replaced:
            return self.replaced[cid]
        try:
            return self._blocks.get(cid)
        except NotFoundError as error:
            msg = f"{self.name} does not have the block {cid}"
            raise NotFoundError(msg) from error

    def fetch_dag(
        self, root: CID, deadline: Deadline, *, scope: DagScope = "all"
    ) -> Generator[tuple[CID, bytes], None, None]:
        stack, sent = [root], set[CID]()
        while stack:
            cid = stack.pop()
            if cid in sent or cid.identity_data is not None:
                continue
            sent.add(cid)
            data = self.fetch(cid, deadline)
            yield cid, data
            if scope != "block" and cid.codec != RAW:
                stack.extend(reversed(links(cid, data)))

    def close(self) -> None:
        self.is_closed = True
