"""The single blocks of a local store: row, read, hash, return."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from mlflow_ipfs.content.blockstore.interface import LeafForm
from mlflow_ipfs.content.blockstore.local import index
from mlflow_ipfs.content.blockstore.local.publication import LocalPublication
from mlflow_ipfs.content.unixfs import encode_leaf, leaf_frame
from mlflow_ipfs.errors import IntegrityError, MlflowIpfsError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from mlflow_ipfs.content.blockstore.local.index import BlockRow
    from mlflow_ipfs.content.blockstore.local.parts import Parts
    from mlflow_ipfs.content.cid import CID

_PAGE: Final = 10_000


class LocalBlocks:
    """The blocks of a local store. See ``Blockstore``."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._prefix = f"{parts.layout.folder}{os.sep}"  # joined as text: Path is slow, and every read passes here

    def get(self, cid: CID) -> bytes:
        """Return a block, verified against its CID."""
        data = cid.identity_data
        if data is not None:
            return data
        row = self._find(cid)
        data = self._read(row)
        if data is None:
            # A gc or a repair may have come between the row and the file.
            row = self._find(cid)
            data = self._read(row)
        if data is None or not cid.matches(data):
            raise self._damaged(cid, row, is_missing=data is None)
        return data

    def has(self, cid: CID) -> bool:
        """Tell whether the block is here, without reading it."""
        if cid.identity_data is not None:
            return True
        with self._parts.database.read() as connection:
            return index.is_known(connection, cid.multihash)

    def get_size(self, cid: CID) -> int:
        """The length of a block in bytes, from the index."""
        data = cid.identity_data
        if data is not None:
            return len(data)
        row = self._find(cid)
        wrapping = leaf_frame(row.length) if row.form is LeafForm.UNIXFS_FILE else ()
        return row.length + sum(map(len, wrapping))

    def put(self, cid: CID, data: bytes) -> None:
        """Keep a block. Durable when the call returns."""
        self.put_many([(cid, data)])

    def put_many(self, blocks: Iterable[tuple[CID, bytes]]) -> None:
        """Keep many blocks, all or none."""
        with LocalPublication(self._parts) as publication:
            for cid, data in blocks:
                cid.verify(data)
                publication.put(cid, data)
            publication.commit()

    def delete(self, cid: CID) -> bool:
        """Forget a block. Waits for publications, which may rely on it."""
        self._parts.database.check_writable()
        with self._parts.publish_lock.exclusive(), self._parts.database.write() as connection:
            # An object without its root's block is no longer the file of that root.
            connection.execute("UPDATE place SET root = NULL WHERE root = ?", (cid.multihash,))
            gone = connection.execute("DELETE FROM block WHERE multihash = ?", (cid.multihash,))
        return bool(gone.rowcount)

    def multihashes(self) -> Iterator[bytes]:
        """The multihash of every block."""
        last = 0
        while True:
            with self._parts.database.read() as connection:
                rows = index.page_of_multihashes(connection, last, _PAGE)
            if not rows:
                return
            last = rows[-1][0]
            for _, multihash in rows:
                yield multihash

    def _find(self, cid: CID) -> BlockRow:
        with self._parts.database.read() as connection:
            row = index.find_block(connection, cid.multihash)
        if row is None:
            msg = f"the block {cid} is not in the store {self._parts.layout.folder}"
            raise NotFoundError(msg)
        return row

    def _read(self, row: BlockRow) -> bytes | None:
        """The block as it should be, unverified; None if its file is missing."""
        if row.place_name is None:
            return row.data
        try:
            piece = self._parts.disk.read_piece(self._prefix + row.place_name, row.offset, row.length)
        except FileNotFoundError:
            return None
        return encode_leaf(piece) if row.form is LeafForm.UNIXFS_FILE else piece

    def _damaged(self, cid: CID, row: BlockRow, *, is_missing: bool) -> IntegrityError:
        """Note the damage, so that adding the content again heals it, and name it."""
        if row.place_name is None or row.place_id is None:
            path = self._parts.layout.database
        else:
            path = self._parts.layout.folder / row.place_name
            # Only a help for later; a busy or full store must not hide the damage itself.
            with suppress(MlflowIpfsError), self._parts.database.write() as connection:
                index.mark_damaged(connection, row.place_id)
        what = "is missing" if is_missing else f"is damaged between bytes {row.offset} and {row.offset + row.length}"
        msg = f"the block {cid} cannot be read: {path} {what}. Add the content again to heal it"
        return IntegrityError(msg)
