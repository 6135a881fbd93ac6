"""Verification of what a fetcher returns: the one way from an untrusted source to a block reader."""

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
    """The blocks of one fetcher, each verified before it is returned.

    Args:
        fetcher: the source. The caller closes it.
        timeout_seconds: limit for one block.
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
        """Return whether the source has the block. Fetches the block: an answer without its bytes proves nothing."""
        try:
            self.get(cid)
        except NotFoundError:
            return False
        return True

    def get_dag(
        self, root: CID, deadline: Deadline, *, scope: DagScope = "all"
    ) -> Generator[tuple[CID, bytes], None, None]:
        """Yield the blocks of a DAG, verified, once each, every one after the node that links to it.

        Only blocks that a verified block links to are accepted, so a source cannot make its caller store others.

        Raises:
            NotFoundError: the source does not have the root.
            IntegrityError: the source sent a wrong block, or one that is not part of the DAG.
            RemoteError: the source failed, or with the scope ``all`` ended before the DAG was complete.
            InvalidDataError: a block whose links cannot be known.
        """
        walk = _ExpectedBlocks(root)
        with closing(self._fetcher.fetch_dag(root, deadline, scope=scope)) as blocks:
            for cid, data in blocks:
                if walk.was_seen(cid):
                    continue
                if not walk.expects(cid):
                    msg = f"{self._fetcher.name} sent the block {cid}, which is not part of {root}: use another source"
                    raise IntegrityError(msg)
                walk.descend(cid, self._verified(cid, data))
                yield cid, data
        missing = walk.first_missing
        if missing is not None and scope == "all":
            msg = f"{self._fetcher.name} ended before {root} was complete, the block {missing} is missing: try again"
            raise RemoteError(msg)

    def _verified(self, cid: CID, data: bytes) -> bytes:
        if len(data) > MAX_BLOCK_BYTES:
            msg = (
                f"{self._fetcher.name} sent {len(data)} bytes for the block {cid}, more than the {MAX_BLOCK_BYTES} that "
                "a block may have, and they were discarded: use another source"
            )
            raise IntegrityError(msg)
        if not cid.matches(data):
            msg = (
                f"{self._fetcher.name} sent {len(data)} bytes that do not hash to {cid}, and they were discarded: "
                "use another source"
            )
            raise IntegrityError(msg)
        return data


class _ExpectedBlocks:
    """The blocks that verified nodes link to and that have not arrived."""

    def __init__(self, root: CID) -> None:
        self._expected = {_key(root): root} if root.identity_data is None else {}
        self._seen = SeenBlocks()
        if root.identity_data is not None:
            self.descend(root, root.identity_data)

    @property
    def first_missing(self) -> CID | None:
        """A block that has not arrived; None when the DAG is complete."""
        return next(iter(self._expected.values()), None)

    def was_seen(self, cid: CID) -> bool:
        """Whether the block has arrived. Archives may repeat blocks."""
        return cid.identity_data is not None or (_key(cid) not in self._expected and cid in self._seen)

    def expects(self, cid: CID) -> bool:
        """Whether a node links to the block."""
        return _key(cid) in self._expected

    def descend(self, cid: CID, block: bytes) -> None:
        """Replace a block by the blocks that it links to."""
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
    """The same bytes under two codecs are two blocks of a walk: they link to different things."""
    return cid.codec, cid.multihash
