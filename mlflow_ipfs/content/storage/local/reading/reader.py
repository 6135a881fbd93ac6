"""Reader of the blocks of a local store: look up the row, read the bytes, check the hash."""

from __future__ import annotations

import os
import time
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from mlflow_ipfs.content.blocks.base import BlockReader
from mlflow_ipfs.content.codecs.unixfs import LeafEncoding, block_of_leaf, leaf_frame
from mlflow_ipfs.content.storage.local.files.block_reading import OpenFiles
from mlflow_ipfs.content.storage.local.index import index_rows
from mlflow_ipfs.content.storage.local.reading.context import HEALING_ADVICE
from mlflow_ipfs.content.system.access import refused
from mlflow_ipfs.errors import IntegrityError, MlflowIpfsError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from mlflow_ipfs.content.cid import CID
    from mlflow_ipfs.content.storage.local.index.index_rows import BlockRow
    from mlflow_ipfs.content.storage.local.reading.context import StoreContext

_TOUCH_SECONDS: Final = 600  # a newer ``last_used`` is not written again


class LocalReader(BlockReader):
    """Reader of the blocks of a local store."""

    def __init__(self, context: StoreContext) -> None:
        self._context = context
        self._prefix = f"{context.layout.directory}{os.sep}"  # joined as text: every read does this, and Path is slow

    def __str__(self) -> str:
        return f"the store {self._context.layout.directory}"

    def get(self, cid: CID) -> bytes:
        """Return a block, verified against its CID."""
        data = cid.identity_data
        if data is not None:
            return data
        row = self._find(cid)
        data = self._read(row)
        if data is None:
            # A gc or a repair may have moved the block after the row was read.
            row = self._find(cid)
            data = self._read(row)
        if data is None or not cid.matches(data):
            return self._replace(cid, self._damaged(cid, row, is_missing=data is None))
        if row.cache_used is not None:
            self._touch(row)
        return data

    def get_many(self, cids: Sequence[CID]) -> Generator[bytes, None, None]:
        """Yield blocks, each verified. Uses one index lookup for all blocks and keeps files open between reads."""
        with self._context.database.read() as connection:
            rows = index_rows.find_blocks(connection, [cid.multihash for cid in cids])
        touched: set[int | None] = set()
        with OpenFiles(self._context.layout, self._context.disk) as files:
            for cid in cids:
                row = rows.get(cid.multihash)
                data = _read_from(files, row)
                if row is None or data is None or not cid.matches(data):
                    data = self.get(cid)  # handles identity CIDs and blocks that gc moved, and reports damage
                elif row.cache_used is not None and row.place_id not in touched:
                    touched.add(row.place_id)
                    self._touch(row)
                yield data

    def has(self, cid: CID) -> bool:
        """Return whether the block is in the store, without reading it."""
        if cid.identity_data is not None:
            return True
        with self._context.database.read() as connection:
            return index_rows.is_known(connection, cid.multihash)

    def find_absent(self, cids: Sequence[CID]) -> CID | None:
        """Return the first of the blocks that is not in the store; None if all are. Uses few index lookups."""
        with self._context.database.read() as connection:
            known = index_rows.all_known_among(connection, {cid.multihash for cid in cids})
        return next((cid for cid in cids if cid.multihash not in known and cid.identity_data is None), None)

    def get_size(self, cid: CID) -> int:
        """Return the length of a block in bytes, from the index."""
        data = cid.identity_data
        if data is not None:
            return len(data)
        row = self._find(cid)
        wrapping = leaf_frame(row.length) if row.form is LeafEncoding.UNIXFS_FILE else ()
        return row.length + sum(map(len, wrapping))

    def _find(self, cid: CID) -> BlockRow:
        with self._context.database.read() as connection:
            row = index_rows.find_block(connection, cid.multihash)
        if row is None:
            msg = f"the block {cid} is not in the store {self._context.layout.directory}{cid.hash_hint}"
            raise NotFoundError(msg)
        return row

    def _read(self, row: BlockRow) -> bytes | None:
        """Return the block, unverified; None if its file is missing."""
        if row.place_name is None:
            return row.data
        try:
            piece = self._context.disk.read_piece(self._prefix + row.place_name, row.offset, row.length)
        except FileNotFoundError:
            return None
        except PermissionError as error:
            raise refused(self._context.layout.directory, error) from error
        return block_of_leaf(piece, row.form)

    def _replace(self, cid: CID, damage: IntegrityError) -> bytes:
        """Return the block from another source. This reader has none and raises; a subclass may have one."""
        del cid
        raise damage

    def _damaged(self, cid: CID, row: BlockRow, *, is_missing: bool) -> IntegrityError:
        """Record the damage, so that adding the content again heals it, and return the error."""
        path = self._context.layout.database
        # Errors are suppressed: a busy or full store must not hide the damage.
        with suppress(MlflowIpfsError), self._context.database.write() as connection:
            if row.place_name is None or row.place_id is None:
                index_rows.mark_inline_damaged(connection, cid.multihash, f"quarantine/{uuid.uuid4().hex}.lost")
            else:
                index_rows.mark_damaged(connection, row.place_id, row.place_name)
        if row.place_name is not None:
            path = self._context.layout.directory / row.place_name
        damage = "is missing" if is_missing else f"is damaged between bytes {row.offset} and {row.offset + row.length}"
        msg = f"the block {cid} cannot be read: {path} {damage}. {HEALING_ADVICE}"
        return IntegrityError(msg)

    def _touch(self, row: BlockRow) -> None:
        """Record occasionally that a file of the cache is in use, so that unused files are evicted first."""
        database = self._context.database
        is_old = row.cache_used is not None and time.time() - row.cache_used > _TOUCH_SECONDS
        if is_old and row.place_id is not None and not database.read_only:
            with suppress(MlflowIpfsError), database.write() as connection:
                index_rows.touch_cached(connection, row.place_id)


def _read_from(files: OpenFiles, row: BlockRow | None) -> bytes | None:
    if row is None or row.place_name is None:
        return None if row is None else row.data
    piece = files.read(row.place_name, row.offset, row.length)
    return None if piece is None else block_of_leaf(piece, row.form)
