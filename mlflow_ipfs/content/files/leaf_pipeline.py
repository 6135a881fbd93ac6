"""The pipeline that reads a file once, and hashes each buffer on a thread while it is written.

Hashing the very buffers that are written is what makes "read once" safe: the CID describes what
was stored, whatever happens to the source meanwhile.
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
_BUFFERS: Final = _HASH_THREADS + 2  # one is being filled, one waits


def hash_leaf(payload: memoryview | bytes, form: LeafEncoding, cid_version: int) -> Subtree:
    """Compute the CID of one leaf from its bytes of the file. A raw leaf has a CIDv1 in every profile, as in Kubo."""
    if form is LeafEncoding.RAW:
        return Subtree(CID.of(payload), len(payload), len(payload))
    prefix, suffix = leaf_frame(len(payload))
    digest = hashlib.sha256(prefix)
    digest.update(payload)
    digest.update(suffix)
    cid = CID(cid_version, DAG_PB, sha2_256_multihash(digest.digest()))
    return Subtree(cid, len(payload), len(prefix) + len(payload) + len(suffix))


class LeafPipeline:
    """Hashes and writes the cuts of one file at a time. Owns a few threads; close it after use.

    Args:
        form: how leaves are made from the file's bytes.
        cid_version: version of the CIDs of wrapped leaves.
    """

    def __init__(self, form: LeafEncoding, cid_version: int) -> None:
        self._form = form
        self._cid_version = cid_version
        self._pool = ThreadPoolExecutor(_HASH_THREADS, thread_name_prefix="mlflow-ipfs-hash")
        self._buffers: list[bytearray] = []

    def close(self) -> None:
        """Stop the threads."""
        self._pool.shutdown()

    def run(
        self,
        fill: Callable[[memoryview], int],
        lengths: Iterable[int],
        write: Callable[[memoryview], None],
    ) -> Iterator[Subtree]:
        """Yield the leaves of one file, in order.

        Args:
            fill: reads the file's next bytes into a buffer, all of it unless the file ends.
            lengths: length of each cut in bytes, at most ``MAX_LEAF_BYTES``. A cut that ``fill``
                can't fill is the last one, and left out if it stays empty.
            write: takes each buffer; it must not keep it.
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
                pending[slot] = self._pool.submit(hash_leaf, view, self._form, self._cid_version)
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


def leaf_rows(leaves: Iterable[Subtree], form: LeafEncoding) -> Iterator[Leaf]:
    """Where each leaf lies in its file."""
    offset = 0
    for leaf in leaves:
        yield Leaf(leaf.cid, offset, leaf.size_bytes, form)
        offset += leaf.size_bytes
