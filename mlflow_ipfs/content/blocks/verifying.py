"""Verification of fetched blocks. The blocks of an untrusted source reach a block reader only through this module."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from mlflow_ipfs.content.blocks.base import MAX_BLOCK_BYTES, BlockReader
from mlflow_ipfs.content.blocks.fetcher import Deadline
from mlflow_ipfs.content.blocks.seen_blocks import SeenBlocks
from mlflow_ipfs.content.codecs.links import links
from mlflow_ipfs.errors import IntegrityError, NotFoundError, RemoteError

if TYPE_CHECKING:
    from collections.abc import Generator

    from mlflow_ipfs.content.blocks.fetcher import DagScope, Fetcher
    from mlflow_ipfs.content.cid import CID


class VerifyingReader(BlockReader):
    """Reader of the blocks of one fetcher. Verifies each block before returning it.

    Args:
        fetcher: the source. The caller must close it.
        timeout_seconds: time limit for one block.
    """

    def __init__(self, fetcher: Fetcher, *, timeout_seconds: float) -> None:
        self._fetcher = fetcher
        self._timeout_seconds = timeout_seconds

    def get(self, cid: CID) -> bytes:
        """Return a block from the source, verified against its CID."""
        data = cid.identity_data
        if data is not None:
            return data
        return self._verified(cid, self._fetcher.fetch(cid, Deadline.after(self._timeout_seconds)))

    def has(self, cid: CID) -> bool:
        """Return whether the source has the block. Fetches the block, because only its bytes prove the answer."""
        try:
            self.get(cid)
        except NotFoundError:
            return False
        return True

    def get_dag(
        self, root: CID, deadline: Deadline, *, scope: DagScope = "all"
    ) -> Generator[tuple[CID, bytes], None, None]:
        """Yield the verified blocks of a DAG, each once and after a node that links to it.

        Only blocks that a verified block links to are accepted, so a source cannot make the caller store other blocks.

        Raises:
            NotFoundError: the source does not have the root.
            IntegrityError: the source sent a wrong block, or a block that is not part of the DAG.
            RemoteError: the source failed; or the scope is ``all`` and the source ended before the DAG was complete.
            InvalidDataError: the links of a block cannot be determined.
        """
        walk = _ExpectedBlocks(root)
        with closing(self._fetcher.fetch_dag(root, deadline, scope=scope)) as blocks:
            for cid, data in blocks:
                if deadline.has_passed:
                    msg = f"{self._fetcher.name} did not send {root} within {deadline.timeout_seconds:g} s: try again"
                    raise RemoteError(msg)
                if walk.was_seen(cid):
                    continue
                if not walk.expects(cid):
                    msg = f"{self._fetcher.name} sent the block {cid}, which is not part of {root}: use another source"
                    raise IntegrityError(msg)
                walk.descend(cid, self._verified(cid, data))
                yield cid, data
        missing = walk.first_missing
        if missing is not None and scope == "all":
            msg = f"{self._fetcher.name} ended before {root} was complete: the block {missing} is missing; try again"
            raise RemoteError(msg)

    def _verified(self, cid: CID, data: bytes) -> bytes:
        if len(data) > MAX_BLOCK_BYTES:
            msg = (
                f"{self._fetcher.name} sent {len(data)} bytes for the block {cid}, more than the limit of "
                f"{MAX_BLOCK_BYTES}; they were discarded: use another source"
            )
            raise IntegrityError(msg)
        if not cid.matches(data):
            msg = (
                f"{self._fetcher.name} sent {len(data)} bytes that do not hash to {cid}; they were discarded: "
                "use another source"
            )
            raise IntegrityError(msg)
        return data


class _ExpectedBlocks:
    """Blocks that verified nodes link to and that have not arrived yet."""

    def __init__(self, root: CID) -> None:
        self._expected = {_key(root): root} if root.identity_data is None else {}
        self._seen = SeenBlocks()
        if root.identity_data is not None:
            self.descend(root, root.identity_data)

    @property
    def first_missing(self) -> CID | None:
        """The first block that has not arrived, or None if the DAG is complete."""
        return next(iter(self._expected.values()), None)

    def was_seen(self, cid: CID) -> bool:
        """Return whether the block has arrived already. Archives may repeat blocks."""
        return cid.identity_data is not None or (_key(cid) not in self._expected and cid in self._seen)

    def expects(self, cid: CID) -> bool:
        """Return whether a node links to the block and it has not arrived."""
        return _key(cid) in self._expected

    def descend(self, cid: CID, block: bytes) -> None:
        """Replace a block that arrived by the blocks that it links to."""
        self._expected.pop(_key(cid), None)
        self._seen.add(cid)
        stack = list(links(cid, block))
        while stack:
            child = stack.pop()
            if child.identity_data is not None:
                if self._seen.add(child):
                    stack.extend(links(child, child.identity_data))
            elif child not in self._seen:
                self._expected[_key(child)] = child


def _key(cid: CID) -> tuple[int, bytes]:
    """Return the key of a block in a walk. The same bytes under two codecs are two blocks: their links differ."""
    return cid.codec, cid.multihash
