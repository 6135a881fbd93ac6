"""Blocks in a dictionary: the smallest storage that the importer can write to and the exporter can read from."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any, Self

from mlflow_ipfs.content.blocks.base import BlockReader
from mlflow_ipfs.content.cid import CID, DAG_PB
from mlflow_ipfs.content.codecs.dag_pb import Link, encode_node
from mlflow_ipfs.content.codecs.unixfs import (
    LeafEncoding,
    NodeType,
    UnixFSData,
    encode_data,
    encode_leaf,
    encode_symlink,
)
from mlflow_ipfs.content.files.importer import Imported, Importer, ImportOptions
from mlflow_ipfs.errors import NotFoundError

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable
    from pathlib import Path
    from types import TracebackType

    from mlflow_ipfs.content.blocks.base import Leaf
    from mlflow_ipfs.content.storage.base import Changes


class Blocks(BlockReader):
    """Publication and blockstore in one. A block can be read as soon as it was put. Every CID is verified."""

    def __init__(self) -> None:
        self.by_multihash: dict[bytes, bytes] = {}
        self.reads = 0

    def put(self, cid: CID, data: bytes) -> None:
        """Store a block."""
        cid.verify(data)
        self.by_multihash[cid.multihash] = bytes(data)

    def put_node(self, block: bytes, codec: int) -> CID:
        """Store a block that a test made by hand. Its content may be malformed."""
        cid = CID.of(block, codec)
        self.put(cid, block)
        return cid

    def get(self, cid: CID) -> bytes:
        """Return a block."""
        self.reads += 1
        if cid.identity_data is not None:
            return cid.identity_data
        try:
            return self.by_multihash[cid.multihash]
        except KeyError:
            msg = f"the block {cid} is missing"
            raise NotFoundError(msg) from None

    def has(self, cid: CID) -> bool:
        """Return whether a block is stored."""
        return cid.identity_data is not None or cid.multihash in self.by_multihash

    def begin_file(self, *, read_back: bool = False) -> _File:
        """Start a file. Its leaves are stored as ordinary blocks."""
        del read_back
        return _File(self)

    def commit(self, changes: Changes | None = None) -> int:
        """Return the total size of the blocks. Everything was already stored by ``put``."""
        assert changes is None
        return sum(map(len, self.by_multihash.values()))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Do nothing, because nothing is open."""


class _File:
    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks
        self._data = bytearray()

    def write(self, data: bytes | memoryview) -> None:
        self._data += data

    def read_at(self, offset: int, length: int) -> bytes:
        return bytes(self._data[offset : offset + length])

    def finish(self, root: CID, leaves: Iterable[Leaf]) -> None:
        """Split the data into the given leaves, and check that the leaves cover the file."""
        del root
        end = 0
        for leaf in leaves:
            assert leaf.offset == end, "leaves cover the file without gaps, in order"
            end += leaf.length
            piece = bytes(self._data[leaf.offset : end])
            self._blocks.put(leaf.cid, piece if leaf.form is LeafEncoding.RAW else encode_leaf(piece))
        assert end == len(self._data)

    def discard(self) -> None:
        self._data.clear()


def import_into(blocks: Blocks, path: str | os.PathLike[str], options: ImportOptions | None = None) -> Imported:
    """Import a path."""
    with Importer(blocks, options) as importer:
        return importer.import_path(path)


def node(blocks: Blocks, data: UnixFSData, *links: Link) -> CID:
    """Store a UnixFS node."""
    return blocks.put_node(encode_node(links, encode_data(data)), DAG_PB)


def directory_of(blocks: Blocks, *entries: tuple[bytes, CID], **fields: Any) -> CID:
    """Store a directory with the given entries."""
    links = [Link(cid, name, 1) for name, cid in entries]
    return node(blocks, UnixFSData(NodeType.DIRECTORY, **fields), *links)


def link_to(blocks: Blocks, target: bytes) -> CID:
    """Store a symlink."""
    return blocks.put_node(encode_symlink(target), DAG_PB)


def leaf(blocks: Blocks, data: bytes = b"data") -> CID:
    """Store a raw leaf."""
    cid = CID.of(data)
    blocks.put(cid, data)
    return cid


def everything_in(path: Path) -> list[str]:
    """Return the relative paths of everything below a directory."""
    return sorted(str(found.relative_to(path)) for found in path.rglob("*"))


def from_dag_json(value: Any) -> Any:
    """Convert parsed dag-json to the values that the dag-cbor codec encodes."""
    if isinstance(value, list):
        return [from_dag_json(item) for item in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {"/"}:
        special = value["/"]
        return CID.parse(special) if isinstance(special, str) else _decode_base64(special["bytes"])
    return {key: from_dag_json(item) for key, item in value.items()}


def _decode_base64(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except binascii.Error as error:
        msg = f"{text!r} is not the base64 of dag-json"
        raise ValueError(msg) from error
