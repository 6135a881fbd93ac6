"""Random reads from a few files of the store, without opening a file for each read."""

from __future__ import annotations

import os
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, NamedTuple

from mlflow_ipfs.content.cid import CID, DAG_PB, RAW
from mlflow_ipfs.content.codecs.unixfs import LeafEncoding, encode_leaf
from mlflow_ipfs.content.system.access import refused
from mlflow_ipfs.errors import InvalidCIDError, InvalidDataError

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from mlflow_ipfs.content.storage.local.index.layout import Layout
    from mlflow_ipfs.content.system.disk import Disk

_CID_PREFIX_BYTES: Final = 2  # version and codec, which precede the multihash in a CIDv1
_MAX_OPEN: Final = 32


class StoredBlock(NamedTuple):
    """A block that is stored in a file of the store.

    Attributes:
        id: id of the block's row.
        multihash: the multihash that the block should have.
        offset: where the bytes begin in the file.
        length: the number of bytes.
        form: how the block is made from the bytes.
    """

    id: int
    multihash: bytes
    offset: int
    length: int
    form: int


def read_stored_block(disk: Disk, descriptor: int, stored: StoredBlock) -> tuple[CID, bytes]:
    """Return the CID under which a block was stored, and the block, unverified.

    In a pack the CID precedes the block. A leaf in an object has no CID, but its form determines the codec.
    """
    piece = disk.read_at_or_empty(descriptor, stored.offset, stored.length)
    if stored.form == LeafEncoding.UNIXFS_FILE:
        return CID(1, DAG_PB, stored.multihash), encode_leaf(piece)
    start = max(0, stored.offset - len(stored.multihash) - _CID_PREFIX_BYTES)
    return _cid_before(disk.read_at_or_empty(descriptor, start, stored.offset - start), stored.multihash), piece


def _cid_before(prefix: bytes, multihash: bytes) -> CID:
    """Return the CID at the end of the bytes that precede a block; if they end in no CID, the raw CID of the block."""
    for start in (0, _CID_PREFIX_BYTES):  # a CIDv1 has version, codec and multihash, a CIDv0 only the multihash
        try:
            cid, end = CID.decode(prefix[start:])
        except (InvalidCIDError, InvalidDataError):
            continue
        if end == len(prefix) - start and cid.multihash == multihash:
            return cid
    return CID(1, RAW, multihash)


class OpenFiles:
    """Files that stay open until the end of the ``with``. Used by one thread.

    If too many files are open, the least recently used one is closed. A file that was deleted while open can still be
    read, so the caller must verify the bytes.
    """

    __slots__ = ("_descriptors", "_directory", "_disk", "_prefix")

    def __init__(self, layout: Layout, disk: Disk) -> None:
        self._directory = layout.directory
        self._prefix = f"{layout.directory}{os.sep}"  # joined as text, because Path is slow
        self._disk = disk
        self._descriptors: OrderedDict[str, int] = OrderedDict()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all files. A later read opens its file again."""
        while self._descriptors:
            self._disk.close(self._descriptors.popitem()[1])

    def read(self, name: str, offset: int, length: int) -> bytes | None:
        """Return a piece of a file; None if the file does not exist.

        The piece is shorter where the file ends or the disk cannot read it.

        Raises:
            PolicyError: this user may not read the file.
        """
        descriptor = self._descriptors.get(name)
        if descriptor is None:
            try:
                descriptor = self._disk.open_to_read(self._prefix + name)
            except FileNotFoundError:
                return None
            except PermissionError as error:
                raise refused(self._directory, error) from error
            self._descriptors[name] = descriptor
            if len(self._descriptors) > _MAX_OPEN:
                self._disk.close(self._descriptors.popitem(last=False)[1])
        elif len(self._descriptors) > 1:
            self._descriptors.move_to_end(name)
        return self._disk.read_at_or_empty(descriptor, offset, length)
