"""From a row of the index to the block that it stands for, with a CID that names it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from mlflow_ipfs.content.blockstore.interface import LeafForm
from mlflow_ipfs.content.cid import CID, DAG_PB, RAW
from mlflow_ipfs.content.unixfs import encode_leaf
from mlflow_ipfs.errors import InvalidCIDError, InvalidDataError

if TYPE_CHECKING:
    from mlflow_ipfs.content.system.disk import Disk

_CID_BYTES: Final = 2  # of a CIDv1 before its multihash: version and codec


class StoredBlock(NamedTuple):
    """A block that lies in a file of the store.

    Attributes:
        id: of its row.
        multihash: what it should hash to.
        offset: where its bytes begin in the file.
        length: how many there are.
        form: how the block is made from them.
    """

    id: int
    multihash: bytes
    offset: int
    length: int
    form: int


def read_stored_block(disk: Disk, descriptor: int, stored: StoredBlock) -> tuple[CID, bytes]:
    """Read a block, unverified, and the CID under which it was put there.

    In a pack the CID stands before the block. A leaf in an object has none, but its form tells the codec.
    """
    piece = disk.read_what_is_left(descriptor, stored.offset, stored.length)
    if stored.form == LeafForm.UNIXFS_FILE:
        return CID(1, DAG_PB, stored.multihash), encode_leaf(piece)
    start = max(0, stored.offset - len(stored.multihash) - _CID_BYTES)
    return _cid_before(disk.read_what_is_left(descriptor, start, stored.offset - start), stored.multihash), piece


def _cid_before(prefix: bytes, multihash: bytes) -> CID:
    """The CID at the end of what stands before a block; that of raw bytes if there is none."""
    for start in (0, _CID_BYTES):  # version, codec and multihash; or, for CIDv0, the multihash alone
        try:
            cid, end = CID.decode(prefix[start:])
        except (InvalidCIDError, InvalidDataError):
            continue
        if end == len(prefix) - start and cid.multihash == multihash:
            return cid
    return CID(1, RAW, multihash)
