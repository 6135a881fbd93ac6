"""Pipeline that reads a file once, and hashes each buffer on a thread while the buffer is written.

The hashed buffers are the ones that are written. So the CID describes the stored bytes, even if the source changes
meanwhile.
"""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from mlflow_ipfs.content.blocks.base import MAX_LEAF_BYTES, Leaf
from mlflow_ipfs.content.cid import CID, DAG_PB, sha2_256_multihash
from mlflow_ipfs.content.codecs.unixfs import LeafEncoding, leaf_frame
from mlflow_ipfs.content.files.node_builder import Subtree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_HASH_THREADS: Final = min(4, os.cpu_count() or 1)
_BUFFERS: Final = _HASH_THREADS + 2  # one is being filled, one waits for a thread


def hash_leaf(payload: memoryview | bytes, encoding: LeafEncoding, cid_version: int) -> Subtree:
    """Return the CID and the sizes of one leaf, from its bytes of the file.

    Args:
        payload: the bytes of the file in the leaf.
        encoding: how the block is encoded from these bytes.
        cid_version: version of the CID of a dag-pb leaf. As in Kubo, a raw leaf has a CIDv1 in every profile.
    """
    if encoding is LeafEncoding.RAW:
        return Subtree(CID.of(payload), len(payload), len(payload))
    prefix, suffix = leaf_frame(len(payload))
    digest = hashlib.sha256(prefix)
    digest.update(payload)
    digest.update(suffix)
    cid = CID(cid_version, DAG_PB, sha2_256_multihash(digest.digest()))
    return Subtree(cid, len(payload), len(prefix) + len(payload) + len(suffix))


class LeafPipeline:
    """Pipeline that hashes and writes the chunks of one file at a time. It owns threads; call ``close`` after use.

    Args:
        encoding: how the block of a leaf is encoded from the bytes of the file.
        cid_version: version of the CIDs of dag-pb leaves.
    """

    def __init__(self, encoding: LeafEncoding, cid_version: int) -> None:
        self._encoding = encoding
        self._cid_version = cid_version
        self._pool = ThreadPoolExecutor(_HASH_THREADS, thread_name_prefix="mlflow-ipfs-hash")
        self._buffers: list[bytearray] = []

    def close(self) -> None:
        """Stop the hashing threads."""
        self._pool.shutdown()

    def run(
        self,
        fill: Callable[[memoryview], int],
        lengths: Iterable[int],
        write: Callable[[memoryview], None],
    ) -> Iterator[Subtree]:
        """Yield the leaves of one file, in order.

        Args:
            fill: reads the next bytes of the file into a buffer, and returns their number. It fills the whole buffer
                unless the file ends.
            lengths: length of each chunk in bytes, at most ``MAX_LEAF_BYTES``. A chunk that ``fill`` cannot fill is the
                last one. If it is empty, it is omitted.
            write: writes a buffer, which is reused after the call.
        """
        pending: list[Future[Subtree] | None] = [None] * _BUFFERS
        slot = 0
        for length in lengths:
            done = pending[slot]
            if done is not None:
                yield done.result()
                pending[slot] = None
            view = self._buffer(slot)[:length]
            filled = fill(view)
            view = view[:filled]
            if filled:
                pending[slot] = self._pool.submit(hash_leaf, view, self._encoding, self._cid_version)
                write(view)
            slot = (slot + 1) % _BUFFERS
            if filled < length:
                break
        for step in range(_BUFFERS):
            last = pending[(slot + step) % _BUFFERS]
            if last is not None:
                yield last.result()

    def _buffer(self, slot: int) -> memoryview:
        while len(self._buffers) <= slot:
            self._buffers.append(bytearray(MAX_LEAF_BYTES))
        return memoryview(self._buffers[slot])


def leaf_rows(leaves: Iterable[Subtree], encoding: LeafEncoding) -> Iterator[Leaf]:
    """Yield the position of each leaf in its file."""
    offset = 0
    for leaf in leaves:
        yield Leaf(leaf.cid, offset, leaf.size_bytes, encoding)
        offset += leaf.size_bytes
