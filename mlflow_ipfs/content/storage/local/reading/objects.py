"""Check of whether an object still is the file that its root names: by its stamp, or by hashing every leaf."""

from __future__ import annotations

import logging
import uuid
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Final

from mlflow_ipfs.content.blocks.base import Leaf
from mlflow_ipfs.content.cid import DAG_PB
from mlflow_ipfs.content.codecs.unixfs import LeafEncoding, block_of_leaf, encode_leaf
from mlflow_ipfs.content.dag import read_unixfs
from mlflow_ipfs.content.files.file_reader import check_parts, part_bounds
from mlflow_ipfs.content.storage.local.index import index_rows
from mlflow_ipfs.content.storage.local.index.index_rows import PlaceRow, Stamp
from mlflow_ipfs.content.storage.local.reading.context import HEALING_ADVICE
from mlflow_ipfs.content.system.disk import NO_LINKS
from mlflow_ipfs.content.system.read_ahead import map_ahead
from mlflow_ipfs.errors import ImmutableError, IntegrityError, InvalidDataError, MlflowIpfsError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mlflow_ipfs.content.blocks.base import BlockReader
    from mlflow_ipfs.content.cid import CID
    from mlflow_ipfs.content.dag import UnixFSNode
    from mlflow_ipfs.content.storage.local.index.database import Database
    from mlflow_ipfs.content.storage.local.reading.context import StoreContext


_TRUSTED: Final = "%s: %s matches the index (inode, size, mtime); trusted without hashing"
_logger = logging.getLogger(__name__)


def iterate_leaves(database: Database, reader: BlockReader, root: CID, size_bytes: int) -> Iterator[Leaf]:
    """Yield the leaves of a file. Reads only nodes, and leaves whose form the index does not record.

    Args:
        database: the index, which records the form of each leaf in an object.
        reader: reads the nodes.
        root: the file.
        size_bytes: the size of the file.

    Raises:
        NotFoundError: a node, or the row of a leaf, is not in the store.
        InvalidDataError: the file has a structure that an object cannot have.
    """
    offset = visits = 0
    stack = [(root, size_bytes)]
    while stack:
        cid, length = stack.pop()
        visits += 1  # nodes with 0 bytes count too: shared ones can be visited 2**60 times
        check_parts(root, visits, size_bytes)
        form = _form_by_index(database, cid)
        if form is None:
            node = read_unixfs(reader, cid)
            if _is_wrapped_leaf(node):
                form = LeafEncoding.UNIXFS_FILE
            else:
                parts = _parts_of(node, root)
                if cid != root and length != sum(size for _, size in parts):
                    msg = f"the node {cid} of the file {root} holds another number of bytes than its parent node states"
                    raise InvalidDataError(msg)
                stack.extend(reversed(parts))
                continue
        yield Leaf(cid, offset, length, form)
        offset += length


def _form_by_index(database: Database, cid: CID) -> LeafEncoding | None:
    """Return how a leaf is made from the file's bytes; None if only its block can tell."""
    if cid.codec != DAG_PB:
        return LeafEncoding.RAW
    with database.read() as connection:
        row = index_rows.find_block(connection, cid.multihash)
    if row is None:
        msg = f"the block {cid} is not in the store"
        raise NotFoundError(msg)
    return LeafEncoding.UNIXFS_FILE if row.form is LeafEncoding.UNIXFS_FILE else None


def _is_wrapped_leaf(node: UnixFSNode) -> bool:
    """Return whether a block is the plain wrapping of a piece of a file. A pack stores such a block whole."""
    return not node.links and node.data.is_file and node.block == encode_leaf(node.data.data or b"")


def _parts_of(node: UnixFSNode, root: CID) -> list[tuple[CID, int]]:
    if node.data.data or not node.data.is_file:
        msg = f"the node {node.cid} of the file {root} holds bytes of its own, so it has no object"
        raise InvalidDataError(msg)
    part_bounds(node.cid, node.data)  # raises if the sizes are inconsistent
    return list(zip([link.cid for link in node.links], node.data.block_sizes, strict=True))


class ObjectChecker:
    """Lookup of the object of a file. A damaged object is moved to quarantine.

    Args:
        context: the store.
        reader: reads the nodes above the leaves.
        verify_always: hash the object each time, even if its stamp is unchanged.
    """

    def __init__(self, context: StoreContext, reader: BlockReader, *, verify_always: bool) -> None:
        self._context = context
        self._reader = reader
        self._verify_always = verify_always

    def find(self, cid: CID) -> tuple[Path, PlaceRow] | None:
        """Return the undamaged object of a file and its row. Raises the same errors as ``Storage.file_path``."""
        place = self._find(cid)
        if place is None:
            _logger.debug("%s: the store does not keep it as a single file", cid)
        while place is not None:
            path = self._context.layout.directory / place.name
            try:
                stamp = Stamp.of(self._context.disk.status(path))
                return (path, place) if self._is_sound(cid, path, place, stamp) else None
            except FileNotFoundError:
                before, place = place, self._find(cid)  # a gc or another reader may have moved or deleted it
                if place == before:
                    raise self._quarantine(cid, place, "is missing") from None
        return None

    def find_unchanged(self, cid: CID) -> tuple[Path, PlaceRow] | None:
        """Return the object of a file and its row if its stamp is unchanged. Does not read the object."""
        place = self._find(cid)
        if place is None:
            return None
        path = self._context.layout.directory / place.name
        try:
            reasons = self._reasons_to_hash(place, Stamp.of(self._context.disk.status(path)))
        except FileNotFoundError:
            return None
        if reasons:
            _logger.debug("%s: %s must be hashed first: %s", cid, path, reasons)
            return None
        _logger.debug(_TRUSTED, cid, path)
        return path, place

    def _reasons_to_hash(self, place: PlaceRow, stamp: Stamp) -> str:
        """Return why the stamp is not enough to trust an object; empty if it is enough."""
        known = place.stamp
        pairs = [
            ("inode", stamp.inode, known.inode),
            ("size", stamp.size_bytes, known.size_bytes),
            ("mtime", stamp.mtime_ns, known.mtime_ns),
        ]
        reasons = [f"its {name} is {now} instead of {before}" for name, now, before in pairs if now != before]
        if place.is_damaged:
            reasons.append("damage was found in it before")
        if self._verify_always:
            reasons.append("every file is hashed, even if its stamp is unchanged")
        return ", ".join(reasons)

    def _find(self, cid: CID) -> PlaceRow | None:
        with self._context.database.read() as connection:
            return index_rows.find_object_of(connection, cid)

    def _is_sound(self, cid: CID, path: Path, place: PlaceRow, stamp: Stamp) -> bool:
        """Return whether the object is undamaged; False if the store lacks the nodes for the check."""
        is_as_known = stamp == place.stamp and not place.is_damaged
        reasons = self._reasons_to_hash(place, stamp)
        if not reasons:
            _logger.debug(_TRUSTED, cid, path)
            return True
        if stamp.size_bytes != place.stamp.size_bytes:
            raise self._quarantine(cid, place, f"has {stamp.size_bytes} bytes instead of {place.stamp.size_bytes}")
        _logger.debug("%s: hashing %s, %d bytes: %s", cid, path, stamp.size_bytes, reasons)
        try:
            damaged = self._find_damage(cid, path, stamp.size_bytes)
        except NotFoundError as error:
            _logger.debug("%s: %s cannot be checked: %s", cid, path, error)
            return False
        if damaged is not None:
            raise self._quarantine(cid, place, f"is damaged in its leaf {damaged}")
        _logger.debug("%s: every leaf in %s matches its CID", cid, path)
        if not is_as_known:
            with suppress(OSError):  # the file system may not support modes, and the hash is what counts
                self._context.disk.make_read_only(path)
            # If this update fails, the next reader hashes the file again.
            with suppress(MlflowIpfsError), self._context.database.write() as connection:
                index_rows.restamp(connection, place, stamp)
        return True

    def _find_damage(self, cid: CID, path: Path, size_bytes: int) -> CID | None:
        """Hash the whole file. Return the first leaf that does not match its CID; None if all match."""
        disk = self._context.disk
        descriptor = disk.open_to_read(path)

        def check(leaf: Leaf) -> tuple[Leaf, bool]:
            piece = disk.read_at_or_empty(descriptor, leaf.offset, leaf.length)
            return leaf, leaf.cid.matches(block_of_leaf(piece, leaf.form))

        end = 0
        expected = iterate_leaves(self._context.database, self._reader, cid, size_bytes)
        try:
            with closing(map_ahead(check, expected)) as leaves:  # its threads end before the file is closed
                for leaf, is_sound in leaves:
                    if not is_sound:
                        return leaf.cid
                    end = leaf.offset + leaf.length
            return None if end == size_bytes else cid
        finally:
            disk.close(descriptor)

    def _link_in_quarantine(self, path: Path, quarantined: Path) -> None:
        """Give an object a second name in quarantine. The caller removes the first name after the commit.

        The index therefore never names a file that does not exist.
        """
        disk = self._context.disk
        with suppress(FileNotFoundError):
            try:
                disk.link(path, quarantined)
            except OSError as error:
                if error.errno not in NO_LINKS:
                    raise
                disk.rename(path, quarantined)
            disk.sync_directory(quarantined.parent)

    def _quarantine(self, cid: CID, place: PlaceRow, damage: str) -> IntegrityError:
        """Move a damaged object to quarantine and return the error. Its undamaged blocks can still be read there."""
        layout, disk = self._context.layout, self._context.disk
        path, name = layout.directory / place.name, f"quarantine/{uuid.uuid4().hex[:8]}-{place.name.rpartition('/')[2]}"
        advice, is_linked = HEALING_ADVICE, False
        try:
            with self._context.database.write() as connection:
                current = index_rows.find_object_of(connection, cid)
                if current is not None and current.name == place.name:  # else another process moved it first
                    index_rows.move_to_quarantine(connection, place.id, name)
                    self._link_in_quarantine(path, layout.directory / name)
                    is_linked = True
            if is_linked:
                disk.remove(path)
            if (layout.directory / name).exists():  # not if the file is missing
                advice = f"The file was moved to {layout.quarantine}. {advice}"
        except (MlflowIpfsError, OSError) as error:
            if not isinstance(error, ImmutableError):
                advice = f"The file could not be moved to {layout.quarantine} ({error}). {advice}"
        msg = f"the file of {cid}, {path}, {damage}. {advice}"
        return IntegrityError(msg)
