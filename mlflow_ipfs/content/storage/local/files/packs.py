"""Packs: CARv1 files with the small blocks of one publication. A finished pack is never appended to.

::

    | varint length | header |  then for each block:  | varint length | CID | block |

Source: https://ipld.io/specs/transport/car/carv1/
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mlflow_ipfs.content.car.format import encode_car_header
from mlflow_ipfs.content.codecs.unixfs import LeafEncoding
from mlflow_ipfs.content.storage.local.files.drafts import Draft
from mlflow_ipfs.content.storage.local.index.index_rows import NewBlock
from mlflow_ipfs.content.varint import encode_varint

if TYPE_CHECKING:
    from pathlib import Path

    from mlflow_ipfs.content.cid import CID
    from mlflow_ipfs.content.system.disk import Disk

SEAL_BYTES: Final = 256 << 20  # a pack of at least this size takes no more blocks
_BUFFER_BYTES: Final = 1 << 20
HEADER: Final = encode_car_header([])


class PackWriter:
    """Writer of one pack.

    Args:
        disk: the disk to write to.
        draft: the path of the new file.
    """

    def __init__(self, disk: Disk, draft: Path) -> None:
        self._disk = disk
        self._draft = draft
        self._descriptor = disk.create(draft)
        self.rows: list[NewBlock] = []
        self.block_bytes = 0
        self.size_bytes = len(HEADER)
        self._buffer = bytearray(HEADER)

    @property
    def is_sealed(self) -> bool:
        """Whether the next block must go to another pack."""
        return self.size_bytes >= SEAL_BYTES

    def append(self, cid: CID, data: bytes) -> None:
        """Add a block."""
        name = bytes(cid)
        frame = encode_varint(len(name) + len(data)) + name
        self.rows.append(NewBlock(cid.multihash, None, self.size_bytes + len(frame), len(data), LeafEncoding.RAW))
        self._buffer += frame
        self._buffer += data
        self.size_bytes += len(frame) + len(data)
        self.block_bytes += len(data)
        if len(self._buffer) >= _BUFFER_BYTES:
            self.flush()

    def flush(self) -> None:
        """Pass the buffered bytes to the operating system."""
        self._disk.write(self._descriptor, self._buffer)
        self._buffer.clear()

    def finish(self) -> Draft:
        """Write the buffered bytes and return the file as a draft."""
        self.flush()
        return Draft(self._draft, self._descriptor)

    def discard(self) -> None:
        """Delete the file."""
        self._disk.close(self._descriptor)
        self._disk.remove(self._draft)
