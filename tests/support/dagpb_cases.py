"""dag-pb blocks in every form that a decoder may encounter, with the result of Kubo 0.43.0 for each.

``test_dagpb_strictness.py`` runs our decoder and a real Kubo on them.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from mlflow_ipfs.content.cid import CID
from mlflow_ipfs.content.codecs.dag_pb import Link, encode_link

LEAF: Final = CID.of(b"x")
_HASH: Final = b"\x0a\x24" + bytes(LEAF)
_NAME: Final = b"\x12\x01a"
_SIZE: Final = b"\x18\x01"
_LINK: Final = encode_link(Link(LEAF, b"a", 1))
_OTHER: Final = encode_link(Link(LEAF, b"b", 1))
_DIRECTORY: Final = b"\x08\x01"
_DATA: Final = b"\x0a\x02" + _DIRECTORY


class Case(NamedTuple):
    """Block with the expected results.

    Attributes:
        name: short description of the case.
        block: data of the block.
        kubo_reads: whether Kubo decodes the block.
        refused_here: whether our decoder refuses the block although Kubo decodes it.
    """

    name: str
    block: bytes
    kubo_reads: bool
    refused_here: bool = False

    @property
    def we_read(self) -> bool:
        """Whether our decoder decodes the block."""
        return self.kubo_reads and not self.refused_here


def _link(*fields: bytes) -> bytes:
    body = b"".join(fields)
    return b"\x12" + bytes((len(body),)) + body


CASES: Final = [
    Case("empty", b"", True),
    Case("data only", _DATA, True),
    Case("links only", _LINK, True),
    Case("links, data", _LINK + _OTHER + _DATA, True),
    Case("data, links", _DATA + _LINK + _OTHER, True),
    Case("links in no order", _OTHER + _LINK + _DATA, True),
    Case("the same name twice", _LINK + _LINK + _DATA, True),
    Case("link, data, link", _LINK + _DATA + _OTHER, False),
    Case("data, link, data", _DATA + _LINK + _DATA, False),
    Case("data twice", _DATA + _DATA, False),
    Case("empty data twice", b"\x0a\x00\x0a\x00", False),
    Case("field 3 in a node", _DATA + b"\x1a\x01a", False),
    Case("a number as data", b"\x08\x01", False),
    Case("a number as links", b"\x10\x01", False),
    Case("node cut short", _DATA[:-1], False),
    Case("link cut short", _LINK[:-1], False),
    Case("hash, name, size", _link(_HASH, _NAME, _SIZE) + _DATA, True),
    Case("hash, size", _link(_HASH, _SIZE) + _DATA, True),
    Case("hash, name", _link(_HASH, _NAME) + _DATA, True),
    Case("hash", _link(_HASH) + _DATA, True),
    Case("empty name", _link(_HASH, b"\x12\x00", _SIZE) + _DATA, True),
    Case("no hash", _link(_NAME, _SIZE) + _DATA, False),
    Case("empty link", _link() + _DATA, False),
    Case("empty hash", _link(b"\x0a\x00", _NAME, _SIZE) + _DATA, False),
    Case("hash twice", _link(_HASH, _HASH, _NAME, _SIZE) + _DATA, False),
    Case("name twice", _link(_HASH, _NAME, _NAME, _SIZE) + _DATA, False),
    Case("size twice", _link(_HASH, _NAME, _SIZE, _SIZE) + _DATA, False),
    Case("name, hash", _link(_NAME, _HASH, _SIZE) + _DATA, False),
    Case("size, hash", _link(_SIZE, _HASH, _NAME) + _DATA, False),
    Case("hash, size, name", _link(_HASH, _SIZE, _NAME) + _DATA, False),
    Case("hash, name, hash", _link(_HASH, _NAME, _HASH) + _DATA, False),
    Case("field 4 in a link", _link(_HASH, _NAME, _SIZE, b"\x20\x01") + _DATA, False),
    Case("field 4 before the hash", _link(b"\x20\x01", _HASH) + _DATA, False),
    Case("field 0 in a link", _link(b"\x00\x01", _HASH) + _DATA, False),
    Case("field 0 in a node", b"\x02\x00" + _DATA, False),
    Case("a number as hash", _link(b"\x08\x01") + _DATA, False),
    Case("a number as name", _link(_HASH, b"\x10\x01") + _DATA, False),
    Case("bytes as size", _link(_HASH, b"\x1a\x01a") + _DATA, False),
    Case("fixed64 as size", _link(_HASH, b"\x19" + bytes(8)) + _DATA, False),
    Case("group in a node", b"\x0b\x0c" + _DATA, False),
    # Kubo drops the bytes after the CID, so two different blocks would decode to the same node.
    Case("bytes after the CID in a hash", _link(b"\x0a\x25" + bytes(LEAF) + b"!") + _DATA, True, refused_here=True),
    Case("hash that is not a CID", _link(b"\x0a\x03abc") + _DATA, False),
    Case("length not in its shortest form", b"\x0a\x82\x00" + _DIRECTORY, True),
    Case("key not in its shortest form", b"\x8a\x00\x02" + _DIRECTORY, True),
    Case("size not in its shortest form", _link(_HASH, b"\x18\x81\x00") + _DATA, True),
    Case("largest size", _link(_HASH, b"\x18" + b"\xff" * 9 + b"\x01") + _DATA, True),
    Case("size of 65 bits", _link(_HASH, b"\x18" + b"\xff" * 9 + b"\x03") + _DATA, False),
    Case("size of eleven bytes", _link(_HASH, b"\x18" + b"\xff" * 10 + b"\x01") + _DATA, False),
    Case("field number of 30 bits", b"\x82\x80\x80\x80\x10\x00" + _DATA, False),
    Case("name that is not UTF-8", _link(_HASH, b"\x12\x01\xff", _SIZE) + _DATA, True),
    Case("name with a slash", _link(_HASH, b"\x12\x03a/b", _SIZE) + _DATA, True),
]
