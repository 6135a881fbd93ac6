"""CID: a self-describing content identifier.

``<version><codec><multihash>``; a CIDv0 is a bare sha2-256 multihash of a dag-pb block.
Source: https://github.com/multiformats/cid; limits on hashes as in Kubo's ``verifcid``.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from mlflow_ipfs.content.hash_functions import DIGEST_BYTES, HASHES, explain_unsupported, hash_name, is_known
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

MIN_DIGEST_BYTES: Final = 20  # shorter digests are too weak for verification (Kubo's verifcid)
MAX_DIGEST_BYTES: Final = 128
MAX_IDENTITY_BYTES: Final = 128
MAX_CID_TEXT: Final = 1024
_COMMON_PREFIXES: Final = ("baf", "bag", "Qm", "zdj", "zb2", "f01", "k51")  # text that was probably meant as a CID
_USUAL_LENGTHS: Final = {"Qm": 46, "bafy": 59, "bafk": 59}  # of CIDs with sha2-256, by their first characters

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
    """A content identifier. Two CIDs are equal if their versions, codecs and multihashes are equal.

    The hash function of a link may be unsupported: the node that contains the link is still readable. Where the linked
    block is needed, ``check_hash`` rejects such a CID.

    Attributes:
        version: 0 or 1.
        codec: multicodec number of the block's format (``RAW``, ``DAG_PB``, ``DAG_CBOR``).
        multihash: hash function code, digest length and digest, as bytes.

    Raises:
        InvalidCIDError: the version is 0 and the codec is not dag-pb, or the hash function is not sha2-256.
    """

    version: int
    codec: int
    multihash: bytes

    def __post_init__(self) -> None:
        if self.version != 1 and (self.version != 0 or self.codec != DAG_PB or self.multihash[:2] != _SHA2_256_PREFIX):
            msg = (
                f"a CID cannot have version {self.version}, codec {codec_name(self.codec)} and hash function "
                f"{hash_name(self.hash_code)}: version 0 is for dag-pb with sha2-256 only; use version 1"
            )
            raise InvalidCIDError(msg)

    @classmethod
    def parse(cls, text: str) -> CID:
        """Parse the text form, in any base that IPFS tools print.

        Raises:
            InvalidCIDError: the text is not a CID, or its hash function is not supported. The message quotes the text.
        """
        cid = cls.from_text(text)
        if not cid.is_hash_supported:
            hint = "; the CID may be mistyped" if not is_known(cid.hash_code) else ""
            msg = f"{text!r} cannot be used: {explain_unsupported(cid.hash_code)}{hint}"
            raise InvalidCIDError(msg)
        return cid

    @classmethod
    def from_text(cls, text: str) -> CID:
        """Parse the text form of a link. Unlike ``parse``, accepts unsupported hash functions.

        Raises:
            InvalidCIDError: the text is not a CID. The message quotes the text.
        """
        if not text or len(text) > MAX_CID_TEXT:
            msg = f"{text[:80]!r} is not a CID: it has {len(text)} characters"
            raise InvalidCIDError(msg)
        try:
            if text.startswith("Qm") and len(text) == 46:
                return cls.from_bytes(decode_base58(text))
            cid = cls.from_bytes(decode_multibase(text))
        except (InvalidCIDError, InvalidDataError) as error:
            msg = f"{text!r} is not a CID: {_explain_malformed(text, str(error))}"
            raise InvalidCIDError(msg) from error
        if cid.version == 0:
            msg = f"{text!r} is not a CID: version 0 is written in plain base58, without a multibase prefix"
            raise InvalidCIDError(msg)
        return cid

    @classmethod
    def from_bytes(cls, data: bytes) -> CID:
        """Parse the binary form. Trailing bytes are an error.

        Raises:
            InvalidCIDError: the bytes are not a CID, or other bytes follow it.
        """
        # Fast path for by far the most common form, without decoding varints: directories may have 100,000 links.
        if len(data) == 36 and data[0] == 1 and data[1] < 0x80 and data[2:4] == _SHA2_256_PREFIX:
            return cls(1, data[1], bytes(data[2:]))
        cid, end = cls.decode(data)
        if end != len(data):
            msg = f"{len(data) - end} bytes follow the CID {cid}"
            raise InvalidCIDError(msg)
        return cid

    @classmethod
    def decode(cls, data: bytes, offset: int = 0) -> tuple[CID, int]:
        """Parse one CID at ``offset`` in ``data``.

        Returns:
            The CID, and the offset of the byte after it.

        Raises:
            InvalidCIDError: the bytes are not a CID.
        """
        head = data[offset : offset + 36]
        if len(head) == 36 and head[0] == 1 and head[1] < 0x80 and head[2:4] == _SHA2_256_PREFIX:
            return cls(1, head[1], bytes(head[2:])), offset + 36  # the fast path of ``from_bytes``: CARs have millions
        if head[:2] == _SHA2_256_PREFIX:
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
            InvalidCIDError: the version is 0 and the codec is not dag-pb.
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
    def hash_hint(self) -> str:
        """Explanation of an unsupported hash function, for a message about a missing block; else ``""``."""
        return "" if self.is_hash_supported else f": {explain_unsupported(self.hash_code)}"

    def check_hash(self) -> None:
        """Raise if blocks cannot be verified against this CID.

        Raises:
            InvalidCIDError: the hash function is not supported. The message names the CID and the function.
        """
        if not self.is_hash_supported:
            msg = f"{self} cannot be used: {explain_unsupported(self.hash_code)}"
            raise InvalidCIDError(msg)

    @property
    def digest(self) -> bytes:
        """The digest of the block; for an identity CID, the block itself."""
        _, position = decode_varint(self.multihash)
        return self.multihash[decode_varint(self.multihash, position)[1] :]

    @property
    def identity_data(self) -> bytes | None:
        """The block's bytes if the CID contains them, else None."""
        return self.digest if self.multihash[0] == IDENTITY else None

    def to_v1(self) -> CID:
        """Return the CIDv1 of the same block."""
        return self if self.version == 1 else CID(1, self.codec, self.multihash)

    def verify(self, data: bytes | memoryview) -> None:
        """Raise unless ``data`` is the block that this CID names.

        Raises:
            IntegrityError: the data does not hash to this CID.
            InvalidCIDError: the hash function is not supported.
        """
        if not self.matches(data):
            msg = f"{len(data)} bytes do not hash to {self}: they are damaged, or belong to another CID"
            raise IntegrityError(msg)

    def matches(self, data: bytes | memoryview) -> bool:
        """Return whether ``data`` hashes to this CID.

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
        """Return the binary form."""
        if self.version == 0:
            return self.multihash
        return b"\x01" + encode_varint(self.codec) + self.multihash

    def __str__(self) -> str:
        """Return the text form: base58btc for version 0, base32 for version 1."""
        return encode_base58(self.multihash) if self.version == 0 else "b" + encode_base32(bytes(self))

    def __repr__(self) -> str:
        return f"CID({str(self)!r})"


def _multihash_end(data: bytes, offset: int) -> int:
    """Check the multihash at ``offset`` against the limits, and return the offset of the byte after it."""
    code, position = decode_varint(data, offset)
    length, position = decode_varint(data, position)
    end = position + length
    if len(data) < end:
        msg = "a multihash ends early"
        raise InvalidCIDError(msg)
    if code == IDENTITY:
        if length > MAX_IDENTITY_BYTES:
            msg = f"an identity CID contains {length} bytes, more than {MAX_IDENTITY_BYTES}"
            raise InvalidCIDError(msg)
        return end
    shortest, longest = (MIN_DIGEST_BYTES, DIGEST_BYTES[code]) if code in HASHES else (0, MAX_DIGEST_BYTES)
    if not shortest <= length <= longest:
        msg = f"a digest of {length} bytes for hash function {hash_name(code)} (allowed: {shortest} to {longest} bytes)"
        raise InvalidCIDError(msg)
    return end


def codec_name(codec: int) -> str:
    """Return the name of a codec with its code, ``dag-json (0x129)``; for an unknown codec the code alone."""
    name = CODEC_NAMES.get(codec)
    return f"0x{codec:x}" if name is None else f"{name} (0x{codec:x})"


def sha2_256_multihash(digest: bytes) -> bytes:
    """Return the multihash of a sha2-256 digest."""
    return _SHA2_256_PREFIX + digest


def multihash_text(multihash: bytes) -> str:
    """Return a multihash in lower-case base32 without prefix, the text that the local store names objects by."""
    return encode_base32(multihash)


def _explain_malformed(text: str, reason: str) -> str:
    """Return why text is not a CID, in terms of what a user can see in it."""
    if not text.startswith(_COMMON_PREFIXES):
        return "a CID is a long text such as bafybei… or Qm…, which `mlflow-ipfs add` prints"
    for prefix, length in _USUAL_LENGTHS.items():
        if text.startswith(prefix) and len(text) != length:
            reason = f"a CID that starts with {prefix!r} usually has {length} characters, and this text has {len(text)}"
    return f"{reason}; it may be cut off or mistyped"
