"""CID: a self-describing content identifier.

``<version><codec><multihash>``; a CIDv0 is a bare sha2-256 multihash of a dag-pb block.
Source: https://github.com/multiformats/cid, hash rules as Kubo's ``verifcid``.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from mlflow_ipfs.content.hash_functions import DIGEST_BYTES, HASHES, hash_name, is_known, unsupported
from mlflow_ipfs.content.multibase import decode_base58, decode_multibase, encode_base32, encode_base58
from mlflow_ipfs.content.varint import decode_varint, encode_varint
from mlflow_ipfs.errors import IntegrityError, InvalidCIDError, InvalidDataError

RAW: Final = 0x55
DAG_PB: Final = 0x70
DAG_CBOR: Final = 0x71
LIBP2P_KEY: Final = 0x72
CBOR: Final = 0x51
DAG_JSON: Final = 0x0129
JSON: Final = 0x0200

IDENTITY: Final = 0x00
SHA2_256: Final = 0x12

MIN_DIGEST_BYTES: Final = 20  # shorter digests are too weak to verify with (Kubo's verifcid)
MAX_DIGEST_BYTES: Final = 128
MAX_IDENTITY_BYTES: Final = 128
MAX_CID_TEXT: Final = 1024
_USUAL_STARTS: Final = ("baf", "bag", "Qm", "zdj", "zb2", "f01", "k51")  # of what somebody meant as a CID

CODEC_NAMES: Final = {
    RAW: "raw",
    DAG_PB: "dag-pb",
    DAG_CBOR: "dag-cbor",
    LIBP2P_KEY: "libp2p-key",
    CBOR: "cbor",
    DAG_JSON: "dag-json",
    JSON: "json",
}

_SHA2_256_PREFIX: Final = bytes((SHA2_256, 32))


@dataclass(frozen=True, slots=True)
class CID:
    """A content identifier. Two CIDs are equal when version, codec and multihash are.

    A link may have a hash function that is not supported: the node around it can be read all the same.
    ``check_hash`` refuses such a CID where its block is needed.

    Attributes:
        version: 0 or 1.
        codec: multicodec number of the block's format (``RAW``, ``DAG_PB``, ``DAG_CBOR``).
        multihash: hash function code, digest length and digest, as bytes.

    Raises:
        InvalidCIDError: version 0 with another codec than dag-pb, or another hash than sha2-256.
    """

    version: int
    codec: int
    multihash: bytes

    def __post_init__(self) -> None:
        if self.version != 1 and (self.version != 0 or self.codec != DAG_PB or self.multihash[:2] != _SHA2_256_PREFIX):
            msg = (
                f"no CID has version {self.version}, codec {codec_name(self.codec)} and hash function "
                f"{hash_name(self.hash_code)}: version 0 is for dag-pb with sha2-256 only; use version 1"
            )
            raise InvalidCIDError(msg)

    @classmethod
    def parse(cls, text: str) -> CID:
        """Read the text form in any base that IPFS tools print.

        Raises:
            InvalidCIDError: not a CID, or one whose hash function is not supported; the message quotes the text.
        """
        cid = cls.from_text(text)
        if not cid.is_hash_supported:
            hint = "; the CID may be mistyped" if not is_known(cid.hash_code) else ""
            msg = f"{text!r} cannot be used: {unsupported(cid.hash_code)}{hint}"
            raise InvalidCIDError(msg)
        return cid

    @classmethod
    def from_text(cls, text: str) -> CID:
        """Read the text form of a link, whose hash function need not be supported; otherwise as ``parse``.

        Raises:
            InvalidCIDError: not a CID; the message quotes the text.
        """
        if not text or len(text) > MAX_CID_TEXT:
            msg = f"{text[:80]!r} is not a CID: it has {len(text)} characters"
            raise InvalidCIDError(msg)
        try:
            if text.startswith("Qm") and len(text) == 46:
                return cls.from_bytes(decode_base58(text))
            cid = cls.from_bytes(decode_multibase(text))
        except (InvalidCIDError, InvalidDataError) as error:
            hint = "; it may be cut off or mistyped" if text.startswith(_USUAL_STARTS) else ""
            msg = f"{text!r} is not a CID: {error}{hint}"
            raise InvalidCIDError(msg) from error
        if cid.version == 0:
            msg = f"{text!r} is not a CID: version 0 is written in plain base58, without a multibase prefix"
            raise InvalidCIDError(msg)
        return cid

    @classmethod
    def from_bytes(cls, data: bytes) -> CID:
        """Read the binary form; nothing may follow it.

        Raises:
            InvalidCIDError: not a CID, or trailing bytes.
        """
        # By far the most common form, read without decoding numbers: trees of 100,000 files are read whole.
        if len(data) == 36 and data[0] == 1 and data[1] < 0x80 and data[2:4] == _SHA2_256_PREFIX:
            return cls(1, data[1], bytes(data[2:]))
        cid, end = cls.decode(data)
        if end != len(data):
            msg = f"{len(data) - end} bytes follow the CID {cid}"
            raise InvalidCIDError(msg)
        return cid

    @classmethod
    def decode(cls, data: bytes, offset: int = 0) -> tuple[CID, int]:
        """Read one CID out of ``data`` at ``offset``.

        Returns:
            The CID, and the offset of the byte after it.

        Raises:
            InvalidCIDError: the bytes are not a CID.
        """
        usual = data[offset : offset + 36]
        if len(usual) == 36 and usual[0] == 1 and usual[1] < 0x80 and usual[2:4] == _SHA2_256_PREFIX:
            return cls(1, usual[1], bytes(usual[2:])), offset + 36  # as in ``from_bytes``: CARs have millions
        if usual[:2] == _SHA2_256_PREFIX:
            end = offset + 34
            if len(data) < end:
                msg = "a CIDv0 ends early"
                raise InvalidCIDError(msg)
            return cls(0, DAG_PB, bytes(data[offset:end])), end
        try:
            version, position = decode_varint(data, offset)
            if version != 1:
                msg = f"CID version {version} is unknown"
                raise InvalidCIDError(msg)
            codec, position = decode_varint(data, position)
            end = _multihash_end(data, position)
        except InvalidDataError as error:
            raise InvalidCIDError(str(error)) from error
        return cls(1, codec, bytes(data[position:end])), end

    @classmethod
    def of(cls, data: bytes | memoryview, codec: int = RAW, *, version: int = 1) -> CID:
        """Compute the sha2-256 CID of a block's bytes.

        Raises:
            InvalidCIDError: version 0 with another codec than dag-pb.
        """
        return cls(version, codec, _SHA2_256_PREFIX + hashlib.sha256(data).digest())

    @property
    def hash_code(self) -> int:
        """Multicodec number of the hash function."""
        return decode_varint(self.multihash)[0]

    @property
    def is_hash_supported(self) -> bool:
        """Whether a block can be verified against this CID."""
        if self.multihash[:2] == _SHA2_256_PREFIX:
            return True
        return self.hash_code in HASHES or self.hash_code == IDENTITY

    @property
    def hash_note(self) -> str:
        """What a message about a missing block adds if no block can be verified against this CID, else ``""``."""
        return "" if self.is_hash_supported else f": {unsupported(self.hash_code)}"

    def check_hash(self) -> None:
        """Refuse a CID that no block can be verified against.

        Raises:
            InvalidCIDError: the hash function is not supported; the message names the CID and the function.
        """
        if not self.is_hash_supported:
            msg = f"{self} cannot be used: {unsupported(self.hash_code)}"
            raise InvalidCIDError(msg)

    @property
    def digest(self) -> bytes:
        """The hash value; for an identity CID, the block itself."""
        _, position = decode_varint(self.multihash)
        return self.multihash[decode_varint(self.multihash, position)[1] :]

    @property
    def identity_data(self) -> bytes | None:
        """The block's bytes if they are inside the CID, else None."""
        return self.digest if self.multihash[0] == IDENTITY else None

    def to_v1(self) -> CID:
        """The same block named by a CIDv1."""
        return self if self.version == 1 else CID(1, self.codec, self.multihash)

    def verify(self, data: bytes | memoryview) -> None:
        """Check that ``data`` is the block that this CID names.

        Raises:
            IntegrityError: it is not.
            InvalidCIDError: the hash function is not supported.
        """
        if not self.matches(data):
            msg = f"{len(data)} bytes do not hash to {self}: the data is damaged or not what was asked for"
            raise IntegrityError(msg)

    def matches(self, data: bytes | memoryview) -> bool:
        """Tell whether ``data`` hashes to this CID.

        Raises:
            InvalidCIDError: the hash function is not supported.
        """
        if self.multihash[:2] == _SHA2_256_PREFIX:
            return hashlib.sha256(data).digest() == self.multihash[2:]
        digest, code = self.digest, self.hash_code
        if code == IDENTITY:
            return digest == bytes(data)
        self.check_hash()
        return HASHES[code](bytes(data))[: len(digest)] == digest

    def __bytes__(self) -> bytes:
        """The binary form."""
        if self.version == 0:
            return self.multihash
        return b"\x01" + encode_varint(self.codec) + self.multihash

    def __str__(self) -> str:
        """The text form: base58btc for version 0, base32 for version 1."""
        return encode_base58(self.multihash) if self.version == 0 else "b" + encode_base32(bytes(self))

    def __repr__(self) -> str:
        return f"CID({str(self)!r})"


def _multihash_end(data: bytes, offset: int) -> int:
    """Check the multihash at ``offset`` against the limits and return where it ends."""
    code, position = decode_varint(data, offset)
    length, position = decode_varint(data, position)
    end = position + length
    if len(data) < end:
        msg = "a multihash ends early"
        raise InvalidCIDError(msg)
    if code == IDENTITY:
        if length > MAX_IDENTITY_BYTES:
            msg = f"an identity CID holds {length} bytes, more than {MAX_IDENTITY_BYTES}"
            raise InvalidCIDError(msg)
        return end
    shortest, longest = (MIN_DIGEST_BYTES, DIGEST_BYTES[code]) if code in HASHES else (0, MAX_DIGEST_BYTES)
    if not shortest <= length <= longest:
        msg = f"a digest of {length} bytes for hash function {hash_name(code)} (allowed: {shortest} to {longest})"
        raise InvalidCIDError(msg)
    return end


def codec_name(codec: int) -> str:
    """Return the name of a codec with its code, ``dag-json (0x129)``, or the code alone."""
    name = CODEC_NAMES.get(codec)
    return f"0x{codec:x}" if name is None else f"{name} (0x{codec:x})"


def sha2_256_multihash(digest: bytes) -> bytes:
    """The multihash around a finished sha2-256 digest."""
    return _SHA2_256_PREFIX + digest


def multihash_text(multihash: bytes) -> str:
    """Lower-case base32 of a multihash, without prefix: how the local store names objects."""
    return encode_base32(multihash)
