"""Reading here and there in a few files of the store, without opening one for each piece."""

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
    piece = disk.read_at_or_empty(descriptor, stored.offset, stored.length)
    if stored.form == LeafEncoding.UNIXFS_FILE:
        return CID(1, DAG_PB, stored.multihash), encode_leaf(piece)
    start = max(0, stored.offset - len(stored.multihash) - _CID_BYTES)
    return _cid_before(disk.read_at_or_empty(descriptor, start, stored.offset - start), stored.multihash), piece


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


_MAX_OPEN: Final = 32


class OpenFiles:
    """Files that stay open until the end of the ``with``, the least used of many excepted. For one thread.

    A file that is deleted meanwhile is read as it was: who reads it verifies what he gets.
    """

    __slots__ = ("_descriptors", "_directory", "_disk", "_prefix")

    def __init__(self, layout: Layout, disk: Disk) -> None:
        self._directory = layout.directory
        self._prefix = f"{layout.directory}{os.sep}"  # joined as text: Path is slow
        self._disk = disk
        self._descriptors: OrderedDict[str, int] = OrderedDict()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all of them; what is read later opens its file again."""
        while self._descriptors:
            self._disk.close(self._descriptors.popitem()[1])

    def read(self, name: str, offset: int, length: int) -> bytes | None:
        """Read a piece of a file, less where the file is shorter or the disk has lost it; None if there is no file.

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
